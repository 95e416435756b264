"""A database file that is restored from a backup: what was sent since is sent as a repeat."""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

from tests.scene import Scene

from handbell.delivery.queue.restored import mark_restored
from handbell.storage.database import Database

_BACK_UP = "import sqlite3, sys; a, b = map(sqlite3.connect, sys.argv[1:]); a.backup(b); b.close();"


def test_what_was_sent_since_the_backup_comes_again_and_is_shown_once(scene: Scene) -> None:
    """Sends to some and to everybody, accepted before it; what is due later goes out as ever."""
    phones = scene.add_phones(20)
    path = scene.system.database.path
    assert path is not None

    async def accept_and_send() -> None:
        async with scene.running() as engine:
            scene.system.app_control.switch(scene.app, is_enabled=False)
            some = await scene.accept(engine, [phone.mail for phone in phones[:5]])
            everybody = await scene.accept(engine, {"everybody": True}, title="All")
            at = {"send_at": scene.clock() + 3600}
            await scene.accept(engine, phones[0].mail, at, title="Later")
            await scene.until(engine, lambda: scene.states(some) == {"held": 5})
            _back_up(path)
            scene.system.app_control.switch(scene.app, is_enabled=True)
            scene.clock.move(10)
            await scene.until(engine, lambda: scene.states(everybody) == {"sent": 20})
            await scene.until(engine, lambda: scene.states(some) == {"sent": 5})

    asyncio.run(accept_and_send())
    scene.system.database.close()
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    shutil.move(_copy_of(path), path)
    restored = scene.another()
    found = mark_restored(restored.database, now=scene.clock())
    assert (found.deliveries, found.shards) == (5, 1)
    assert mark_restored(restored.database, now=scene.clock()).deliveries == 0

    async def send_again() -> None:
        async with scene.running(restored) as engine:
            restored.app_control.switch(scene.app, is_enabled=True)
            scene.clock.move(10)
            await scene.until(engine, lambda: len(scene.twin.requests) >= 50)
            scene.clock.move(3600)
            await scene.until(engine, lambda: len(scene.twin.requests) >= 51)

    asyncio.run(send_again())
    pushes = [scene.accepted(phone) for phone in phones]
    assert sorted(times for one in pushes for times in one.values()) == [1, *[2] * 25]
    held = scene.twin.phones.values()
    assert [len(phone.cards) for phone in held] == [len(one) for one in pushes]
    _unmarked(restored.database)


def _unmarked(database: Database) -> None:
    """See that nothing is left to be marked."""
    assert mark_restored(database, now=4e9).deliveries == 0


def _copy_of(path: Path) -> Path:
    return path.with_name("copy.db")


def _back_up(path: Path) -> None:
    """Copy a database while it is in use, by a process of its own as ``sqlite3 .backup`` is."""
    subprocess.run([sys.executable, "-c", _BACK_UP, path, _copy_of(path)], check=True, timeout=30)
