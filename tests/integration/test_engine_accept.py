"""Accepting sends: many in one transaction, and what an idempotency key answers."""

import asyncio
import sqlite3
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import event
from tests.scene import Scene

from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.accept.store import ASK_KEYS
from handbell.delivery.engine import Acceptance, Engine, Entry, Options
from handbell.errors import HandbellError, IdempotencyError, PayloadTooLargeError, TwinError
from handbell.system import System

MAIL = "user0@example.com"


def test_many_sends_are_stored_in_one_transaction_and_all_arrive(scene: Scene) -> None:
    """A hundred notifications to a hundred people are one commit, and each person gets theirs."""
    phones = scene.add_phones(100)
    statements: list[str] = []

    def listen(connection: sqlite3.Connection, *_more: object) -> None:
        connection.set_trace_callback(statements.append)

    async def scenario() -> None:
        async with scene.running() as engine:
            entries = [_entry(scene, phone.mail, title=f"For {phone.mail}") for phone in phones]
            database = scene.system.database._engine  # noqa: SLF001 - to see its statements
            event.listen(database, "checkout", listen)
            accepted = await _accept(engine, entries)
            stored = [one for one in statements if "INSERT INTO notifications" in one]
            assert len(stored) == 1
            assert len({one.id for one in accepted}) == 100
            for one in accepted:
                await engine.worker.settled(one.row)
            assert all(scene.states(one) == {"sent": 1} for one in accepted)

    asyncio.run(scenario())
    for phone in phones:
        (card,) = scene.twin.phone(phone.id).cards
        assert card.title == f"For {phone.mail}"


@pytest.mark.databases
def test_each_of_many_has_its_own_outcome(scene: Scene) -> None:
    """What is wrong with one send is its own error; the others are stored, with their warnings."""
    scene.add_phones(1)
    too_large = _entry(scene, MAIL, body="x" * 5000)
    nobody = _entry(scene, "nobody@example.com")
    everybody = _entry(scene, {"everybody": True})

    async def scenario() -> None:
        async with scene.running() as engine:
            found = await engine.accept_many([_entry(scene, MAIL), too_large, nobody, everybody])
            good, bad, empty, broad = found
            assert isinstance(bad, PayloadTooLargeError)
            assert isinstance(good, Acceptance)
            assert isinstance(empty, Acceptance)
            assert isinstance(broad, Acceptance)
            assert good.warnings == broad.warnings == ()
            assert "nobody@example.com has no device" in empty.warnings[0]
            await engine.worker.settled(good.row)
            await engine.worker.settled(broad.row)

    asyncio.run(scenario())
    assert scene.twin.accepted == 2


@pytest.mark.databases
def test_keys_among_many_are_honoured_one_by_one(scene: Scene) -> None:
    """A key twice in one call is one notification; with other content it is that entry's error."""
    scene.add_phones(1)

    def keyed(title: str) -> Entry:
        return _entry(scene, MAIL, Options(idempotency_key="a"), title=title)

    async def scenario() -> None:
        async with scene.running() as engine:
            found = await engine.accept_many(
                [keyed("One"), keyed("One"), keyed("Two"), _entry(scene, MAIL)]
            )
            first, again, other, plain = found
            assert isinstance(first, Acceptance)
            assert isinstance(again, Acceptance)
            assert isinstance(plain, Acceptance)
            assert isinstance(other, IdempotencyError)
            assert (first.is_former, again.is_former, plain.is_former) == (False, True, False)
            assert first.id == again.id != plain.id
            (later,) = await engine.accept_many([keyed("One")])
            assert isinstance(later, Acceptance)
            assert (later.id, later.is_former) == (first.id, True)
            for one in (first, plain):
                await engine.worker.settled(one.row)

    asyncio.run(scenario())
    assert scene.twin.accepted == 2


def test_idempotency_keys_are_looked_up_one_by_one(scene: Scene) -> None:
    """SQLite goes through the keys that are asked for, and not through all of the app's."""
    with scene.system.database.read() as connection:
        steps = ASK_KEYS.explain(connection, app=scene.app.id, keys=["a"])
    assert [step for step in steps if step.startswith("SCAN")] == [steps[0]]
    assert "PRIMARY KEY (app=? AND key=?)" in steps[1]


@pytest.mark.databases
def test_a_known_key_is_answered_before_anything_else_is_looked_at(scene: Scene) -> None:
    """A repeat gets the first answer also while the way there is gone; new content is its error."""
    phone = scene.add_phones(1)[0]
    scene.system.registry.register(scene.app, "twin@example.com", "ab" * 32, environment="twin")
    recipients = [phone.mail, "twin@example.com"]
    how = {"idempotency_key": "a"}

    async def scenario() -> None:
        async with scene.running() as engine:
            first = await scene.accept(engine, recipients, how)
            await engine.worker.settled(first.row)
            scene.system.registry.close(scene.register(phone.mail or "", phone.token), "gone")
            # Only the session on the twin is left, and no twin of this home runs.
            with pytest.raises(TwinError):
                await scene.accept(engine, recipients)
            again = await scene.accept(engine, recipients, how)
            assert (again.id, again.is_former) == (first.id, True)
            with pytest.raises(IdempotencyError):
                await scene.accept(engine, recipients, how, body="Other")

    asyncio.run(scenario())


def test_many_go_with_one_question_to_the_registry(scene: Scene) -> None:
    """However many entries there are, the statements that read for them do not grow with them."""
    phones = scene.add_phones(40)
    statements: list[str] = []

    def listen(connection: sqlite3.Connection, *_more: object) -> None:
        connection.set_trace_callback(statements.append)

    async def scenario() -> None:
        async with scene.running() as engine:
            database = scene.system.database._engine  # noqa: SLF001 - to count its statements
            counts = []
            for some in (phones[:2], phones):
                event.listen(database, "checkout", listen)
                await _accept(engine, [_entry(scene, phone.mail) for phone in some])
                event.remove(database, "checkout", listen)
                counts.append(sum("JOIN users" in one for one in statements))
                statements.clear()
            assert counts == [1, 1]

    asyncio.run(scenario())


def test_threads_that_ask_at_once_share_one_gateway(scene: Scene) -> None:
    """However many threads look for the way at once, there is one pool of connections."""
    credential = scene.system.apps.credential_for(scene.app, "production")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            system, start = scene.another(), Barrier(8)

            def ask(system: System = system, start: Barrier = start) -> int:
                start.wait()
                return id(system.gateways.gateway(credential, "production"))

            with ThreadPoolExecutor(8) as threads:
                found = [threads.submit(ask) for _ in range(8)]
            assert len({one.result() for one in found}) == 1
    finally:
        sys.setswitchinterval(interval)


def _entry(scene: Scene, to: Any, options: Options | None = None, **content: Any) -> Entry:
    return Entry(
        app=scene.app,
        notification=Notification.read({"title": "Hello", **content}),
        recipients=Recipients.read(to),
        options=options or Options(),
    )


async def _accept(engine: Engine, entries: Sequence[Entry]) -> list[Acceptance]:
    found: list[Acceptance | HandbellError] = await engine.accept_many(entries)
    accepted = [one for one in found if isinstance(one, Acceptance)]
    assert len(accepted) == len(entries)
    return accepted
