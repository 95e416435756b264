"""One database, many hands: repeats, races, broadcasts in shards, and disks that refuse."""

import asyncio
import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import event, func, select
from sqlalchemy.pool import Pool
from tests.scene import Scene, clocked

from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.accept.send_store import SendStore
from handbell.delivery.accept.store import Order
from handbell.delivery.engine import Engine
from handbell.delivery.queue.cap_claims import CapClaims, CapQuestion
from handbell.delivery.queue.shards import MOST_SPANNED, spanned
from handbell.delivery.queue.workers import LEASE_SECONDS
from handbell.delivery.record.outcome_batch import Batch
from handbell.delivery.work.app_states import WINDOW
from handbell.errors import (
    DatabaseFullError,
    DatabaseLockedError,
    IdempotencyError,
    ReadOnlyError,
)
from handbell.settings import DATABASE_FILE
from handbell.storage.database import Database
from handbell.storage.tables import metadata
from handbell.system import System

MAIL = "user0@example.com"
EVERYBODY = {"everybody": True}


# The same key


@pytest.mark.databases
@pytest.mark.parametrize("to", [MAIL, EVERYBODY])
def test_a_repeat_under_the_same_key_returns_the_first_answer(scene: Scene, to: object) -> None:
    """The second call stores and sends nothing, and has the id and figures of the first."""
    scene.add_phones(1)

    async def scenario() -> None:
        async with scene.running() as engine:
            first = await scene.send(engine, to, {"idempotency_key": "k"})
            scene.clock.move(29 * 24 * 3600)
            again = await scene.send(engine, to, {"idempotency_key": "k"})
            assert again.notification_id == first.notification_id
            assert (again.success, again.reached, again.total) == (True, 1, 1)
            with pytest.raises(IdempotencyError):
                await scene.send(engine, to, {"idempotency_key": "k"}, body="Something else")
            other = await scene.send(engine, to, {"idempotency_key": "l"})
            assert other.notification_id != first.notification_id

    asyncio.run(scenario())
    assert scene.twin.accepted == 2


@pytest.mark.databases
def test_one_key_at_once_from_many_processes_is_one_notification(scene: Scene) -> None:
    """However many processes accept under one key, one notification and one push come of it."""
    scene.add_phones(1)
    order = {"content": {"title": "Hello"}, "to": MAIL, "idempotency_key": "k"}
    told: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        senders = [stack.enter_context(scene.sender(orders=[order])) for _ in range(4)]
        for sender in senders:
            told += _until_settled(sender)
    accepted = [one for one in told if "accepted" in one]
    assert len({one["accepted"] for one in accepted}) == 1
    assert sorted(one["is_former"] for one in accepted) == [False, True, True, True]
    assert scene.twin.accepted == 1


def test_one_key_at_once_from_many_threads_is_one_notification(scene: Scene) -> None:
    """The database decides who was first, not the order in which threads looked."""
    scene.add_phones(1)
    targets = scene.system.engine.plan(scene.app, Recipients.read(MAIL)).targets
    order = Order(
        app=scene.app,
        content=Notification(title="Hello"),
        recipients={"mails": [MAIL]},
        idempotency_key="k",
    )
    databases = [Database.open(scene.task.settings().database_url) for _ in range(8)]
    together = threading.Barrier(8)

    def accept(database: Database) -> str:
        together.wait(10)
        return SendStore(database).accept(order, targets).id

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(accept, databases))
    for database in databases:
        database.close()
    assert len(ids) == 1
    assert _count(scene, "notifications") == _count(scene, "deliveries") == 1


# Broadcasts


@pytest.mark.databases
def test_who_registers_or_leaves_meanwhile_disturbs_no_broadcast(scene: Scene) -> None:
    """Whoever was there and stayed is reached once; who left before their turn is not."""
    number = 1500
    phones = scene.add_phones_at_once(number)
    scene.set_rules(rate_limit="1000/s burst 100")

    async def scenario() -> None:
        async with scene.running() as engine:
            acceptance = await scene.accept(engine, EVERYBODY)
            await scene.until(None, lambda: scene.twin.accepted > 100)
            late = scene.add_phones(1, first=number)[0]
            scene.system.registry.close(number, "LoggedOut")
            await scene.until(None, lambda: scene.states(acceptance)["sent"] == number - 1, 40)
            await engine.worker.settled(acceptance.row)
            assert scene.accepted(late) == {}

    asyncio.run(scenario())
    assert [sum(scene.accepted(phone).values()) for phone in phones] == [1] * (number - 1) + [0]


def test_shards_span_gaps_in_the_ids(scene: Scene) -> None:
    """Sessions whose ids lie far apart are in several shards, and each is reached."""
    tokens = [phone.token for phone in scene.add_phones_at_once(5)]
    with contextlib.closing(sqlite3.connect(scene.home / DATABASE_FILE)) as raw, raw:
        raw.execute("UPDATE sessions SET id = -id")
        raw.execute("UPDATE sessions SET id = -id * ?", (MOST_SPANNED - 1,))

    async def scenario() -> None:
        last = 5 * (MOST_SPANNED - 1)
        acceptance = await scene.accept(scene.system.engine, EVERYBODY)
        assert _count(scene, "shards") == 4 * (MOST_SPANNED - 1) // spanned(1, last) + 1
        async with scene.running() as engine:
            await scene.until(engine, lambda: scene.states(acceptance) == {"sent": 5})
            assert _count(scene, "shards") == 0

    asyncio.run(scenario())
    assert [len(scene.twin.accepted_of(token)) for token in tokens] == [1] * 5


def test_two_processes_share_one_broadcast(scene: Scene) -> None:
    """Two workers take shards of one broadcast, and nobody is reached twice."""
    tokens = [phone.token for phone in scene.add_phones_at_once(3000)]
    with contextlib.closing(sqlite3.connect(scene.home / DATABASE_FILE)) as raw, raw:
        raw.execute("UPDATE sessions SET id = -id")
        raw.execute("UPDATE sessions SET id = -id * 100")

    async def scenario() -> None:
        acceptance = await scene.accept(scene.system.engine, EVERYBODY)
        assert _count(scene, "shards") == 30
        with scene.sender() as first, scene.sender() as second:
            for each in (first, second):
                assert each.stdout is not None
                each.stdout.readline()
            await scene.until(None, lambda: scene.states(acceptance) == {"sent": 3000}, 30)

    asyncio.run(scenario())
    assert [sum(scene.twin.accepted_of(token).values()) for token in tokens] == [1] * 3000
    assert scene.twin.connections <= 2


def test_a_broadcast_goes_on_where_a_killed_process_left_it(scene: Scene) -> None:
    """After SIGKILL the next process reaches everybody; only what was unwritten goes twice."""
    number = 8000
    phones = scene.add_phones_at_once(number)
    orders = [{"content": {"title": "Hello"}, "to": EVERYBODY}]
    with scene.sender(orders=orders) as sender:
        asyncio.run(scene.until(None, lambda: scene.twin.accepted > 1500))
        sender.kill()
        sender.wait()
    # What the dead process left on the wire is still its own, and not to come after the repeats.
    asyncio.run(scene.until(None, lambda: scene.twin.connections == 0))

    async def finish() -> None:
        unwritten = scene.twin.accepted - _count(scene, "deliveries")
        async with scene.running() as engine:
            await scene.until(engine, lambda: _count(scene, "deliveries") == number, 40)
            await engine.worker.idle()
        assert scene.twin.accepted - number <= unwritten <= WINDOW

    asyncio.run(finish())
    tally = [scene.accepted(phone) for phone in phones]
    assert all(len(one) == 1 for one in tally)
    assert all(len(scene.twin.phone(phone.id).cards) == 1 for phone in phones)


# Disks that refuse


def test_a_locked_database_is_told_and_loses_nothing(scene: Scene) -> None:
    """While another process keeps the file locked, accepting fails clearly; then all goes on."""
    phones = scene.add_phones(3)
    system = _impatient(scene)

    async def scenario() -> None:
        async with scene.running(system) as engine:
            scene.twin.add_fault("slow", seconds=0.2, count=3)
            before = await scene.accept(engine, [phone.mail for phone in phones])
            with _locked(scene):
                await scene.until(None, lambda: scene.twin.accepted == 3)
                with pytest.raises(DatabaseLockedError):  # whoever waits before it is ours
                    await scene.accept(engine, MAIL)
            await scene.until(engine, lambda: scene.states(before) == {"sent": 3})
            assert (await scene.send(engine, MAIL)).success

    asyncio.run(scenario())
    assert _count(scene, "notifications") == 2
    assert scene.twin.accepted == 4


def test_an_engine_that_could_not_start_starts_later(scene: Scene) -> None:
    """A send into a locked database raises; the same engine works once the lock is gone."""
    scene.add_phones(1)
    system = _impatient(scene)

    async def scenario() -> None:
        try:
            with _locked(scene), pytest.raises(DatabaseLockedError):
                await scene.send(system.engine, MAIL)
            assert (await scene.send(system.engine, MAIL)).success
        finally:
            await system.close_gateways()

    asyncio.run(scenario())


def test_a_lock_between_claiming_deliveries_and_shards_strands_nothing(scene: Scene) -> None:
    """A lock that comes and goes at any moment leaves no delivery with a worker that forgot it."""
    phones = scene.add_phones_at_once(600)
    system = _impatient(scene, wait=0.02)

    async def scenario() -> None:
        async with scene.running(system) as engine:
            accepted = []
            stop = asyncio.Event()
            locking = asyncio.create_task(asyncio.to_thread(_lock_now_and_then, scene, stop))
            for number in range(0, 600, 20):
                mails = [phone.mail for phone in phones[number : number + 20]]
                elsewhere = scene.system.engine
                accepted.append(await scene.accept(elsewhere, mails))
                if number % 100 == 0:
                    accepted.append(await scene.accept(elsewhere, EVERYBODY))
                engine.worker.wake()
                await asyncio.sleep(0.03)
            stop.set()
            await locking
            await scene.until(engine, lambda: _open(scene) == 0, 30)
            assert {state for one in accepted for state in scene.states(one)} == {"sent"}

    asyncio.run(scenario())


def test_a_read_only_database_is_told(scene: Scene) -> None:
    """Where the file cannot be written, accepting says so, and what is known can be read."""
    scene.add_phones(1)
    path = scene.home / DATABASE_FILE
    settings = scene.task.settings().model_copy(
        update={"database_url": f"sqlite:///file:{path}?mode=ro&uri=true"}
    )
    system = clocked(settings, scene.clock)

    async def scenario() -> None:
        with pytest.raises(ReadOnlyError, match="cannot be written"):
            await scene.accept(system.engine, MAIL)
        with pytest.raises(ReadOnlyError):
            await scene.send(system.engine, MAIL)
        assert len(system.registry.sessions(scene.app)) == 1
        await system.close()

    asyncio.run(scenario())
    assert _count(scene, "notifications") == 0


def test_a_worker_whose_database_turns_read_only_goes_on_afterwards(scene: Scene) -> None:
    """Outcomes that cannot be written are kept and written once the database takes them."""
    scene.add_phones_at_once(300)
    switch = _Pragma("query_only = 0")

    async def scenario() -> None:
        system = scene.another()
        async with scene.running(system) as engine:
            acceptance = await scene.accept(engine, EVERYBODY)
            await scene.until(None, lambda: scene.twin.accepted > 20)
            switch.text = "query_only = 1"
            await asyncio.sleep(0.3)
            with pytest.raises(ReadOnlyError):
                await scene.accept(engine, MAIL)
            switch.text = "query_only = 0"
            await scene.until(engine, lambda: scene.states(acceptance) == {"sent": 300})

    with switch:
        asyncio.run(scenario())
    assert scene.twin.accepted == 300


def test_a_stop_does_not_wait_for_a_database_for_ever(scene: Scene) -> None:
    """A process can end while nothing can be written; the next one finishes what it had."""
    phones = scene.add_phones_at_once(200)
    switch = _Pragma("query_only = 0")
    loop_times: list[float] = []

    async def scenario() -> None:
        system = scene.another()
        engine = system.engine
        await engine.start()
        engine.worker.storage_retry.seconds = 0.5
        acceptance = await scene.accept(engine, EVERYBODY)
        await scene.until(None, lambda: scene.twin.accepted > 20)
        switch.text = "query_only = 1"
        began = asyncio.get_running_loop().time()
        await system.close_gateways()
        loop_times.append(asyncio.get_running_loop().time() - began)
        switch.text = "query_only = 0"
        scene.clock.move(LEASE_SECONDS + 1)
        async with scene.running() as later:
            await scene.until(later, lambda: scene.states(acceptance) == {"sent": 200})

    with switch:
        asyncio.run(scenario())
    assert loop_times[0] < 4
    for phone in phones:
        assert len(scene.accepted(phone)) == 1  # one apns-id, however often


def test_a_full_disk_is_told_and_loses_nothing(scene: Scene) -> None:
    """While there is no space, accepting fails clearly; what was accepted is finished later."""
    scene.add_phones_at_once(2000)
    limit = _Pragma("max_page_count = 1073741823")

    async def scenario() -> None:
        system = scene.another()
        async with scene.running(system) as engine:
            limit.text = "max_page_count = 1"  # which SQLite takes for the pages there are
            with pytest.raises(DatabaseFullError, match="no space left"):
                await _fill_up(scene, engine)
            limit.text = "max_page_count = 1073741823"
            acceptance = await scene.accept(engine, EVERYBODY)
            limit.text = "max_page_count = 1"
            await scene.until(None, lambda: scene.twin.accepted > 1500)
            limit.text = "max_page_count = 1073741823"
            await scene.until(engine, lambda: scene.states(acceptance) == {"sent": 2000}, 20)
            assert _open(scene) == 0

    with limit:
        asyncio.run(scenario())


def test_a_disk_that_fails_a_process_harms_no_other(scene: Scene) -> None:
    """A sender whose every write fails keeps its work until writes succeed, and loses none."""
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("this system cannot limit another process")
    phones = scene.add_phones_at_once(3000)
    orders = [{"content": {"title": "Hello"}, "to": EVERYBODY}]
    with scene.sender(orders=orders) as sender:
        asyncio.run(scene.until(None, lambda: scene.twin.accepted > 200))
        _, most = resource.prlimit(sender.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(sender.pid, resource.RLIMIT_FSIZE, (0, most))
        asyncio.run(asyncio.sleep(0.8))
        resource.prlimit(sender.pid, resource.RLIMIT_FSIZE, (most, most))
        _until_settled(sender)
    assert [sum(scene.accepted(phone).values()) for phone in phones] == [1] * 3000
    assert _open(scene) == 0


def test_a_notification_that_is_gone_does_not_stop_the_writing(scene: Scene) -> None:
    """Outcomes of a notification deleted meanwhile are dropped, and the others are written."""
    phones = scene.add_phones(2)
    scene.twin.add_fault("slow", token=phones[0].token, seconds=0.5)

    async def scenario() -> None:
        async with scene.running() as engine:
            gone = await scene.accept(engine, phones[0].mail)
            with scene.system.database.write() as connection:
                connection.exec_driver_sql("DELETE FROM notifications WHERE id = ?", (gone.row,))
            await asyncio.sleep(0.6)
            sent = await asyncio.wait_for(scene.send(engine, phones[1].mail), 5)
            assert sent.success

    asyncio.run(scenario())


def test_what_is_written_or_asked_at_once_may_be_of_any_size(scene: Scene) -> None:
    """A batch that names more sessions than one statement may is written all the same."""
    numbers = range(300_000)
    scene.system.recorder.record(Batch(accepted_sessions=list(numbers)))
    asked = CapQuestion(1, frozenset(numbers), 1, 0.0)
    assert CapClaims(scene.system.database).sent_to(asked) == {}


class _Pragma:
    """A pragma that holds for every connection that is taken from a pool while it is entered."""

    def __init__(self, text: str) -> None:
        self.text = text

    def _apply(self, connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(f"PRAGMA {self.text}").close()

    def __enter__(self) -> None:
        event.listen(Pool, "checkout", self._apply)

    def __exit__(self, *_: object) -> None:
        event.remove(Pool, "checkout", self._apply)


async def _fill_up(scene: Scene, engine: Engine) -> None:
    for _ in range(50):
        await scene.accept(engine, MAIL, body="x" * 3000)


def _impatient(scene: Scene, wait: float = 0.3) -> System:
    """Return a system that waits only so long for its turn to write."""
    system = scene.another()
    system.__dict__["database"] = Database.open(scene.task.settings().database_url, wait=wait)
    return system


@contextlib.contextmanager
def _locked(scene: Scene) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(scene.home / DATABASE_FILE)) as raw:
        raw.isolation_level = None
        raw.execute("BEGIN EXCLUSIVE")
        yield
        raw.execute("ROLLBACK")


def _lock_now_and_then(scene: Scene, stop: asyncio.Event) -> None:
    while not stop.is_set():
        with _locked(scene):
            time.sleep(0.05)
        time.sleep(0.01)


def _until_settled(sender: Any) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    while not told or "settled" not in told[-1]:
        told.append(json.loads(sender.stdout.readline()))
    return told


def _count(scene: Scene, table: str) -> int:
    with scene.system.database.read() as connection:
        return connection.scalar(select(func.count()).select_from(metadata.tables[table])) or 0


def _open(scene: Scene) -> int:
    """Return how many deliveries and shards have no end yet."""
    with scene.system.database.read() as connection:
        text = (
            "SELECT (SELECT count(*) FROM deliveries WHERE state IN ('queued', 'sending'))"
            " + (SELECT count(*) FROM shards)"
        )
        return int(connection.exec_driver_sql(text).scalar() or 0)
