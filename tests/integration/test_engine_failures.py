"""A mistake in one place, ours or another's: it costs what it touches, and nothing hangs by it."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from typing import Any, cast

import pytest
from sqlalchemy import event, text
from tests.scene import Scene

from handbell._thread_pool import ThreadPool
from handbell.apps.app import App
from handbell.apps.credential_kinds import Credential
from handbell.apps.sample_keys import make_key
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.delivery import GatewayName
from handbell.delivery.queue.clock_jumps import ClockJumps
from handbell.delivery.queue.heartbeat import Heartbeat
from handbell.delivery.queue.sql_work_queue import SqlWorkQueue
from handbell.delivery.queue.workers import LEASE_SECONDS, Workers
from handbell.delivery.record.outcome_batch import Batch, Ending
from handbell.errors import ContradictionError, StorageError
from handbell.gateways.gateway import Gateway, Push, Report
from handbell.gateways.outcomes import Accepted
from handbell.settings import DATABASE_FILE
from handbell.storage.database import Database
from handbell.system import System

EVERYBODY = {"everybody": True}
GATEWAY_MISTAKE = "RuntimeError in handbell/delivery/send/sender.py"


class Broken:
    """A gateway that takes part of a batch and breaks off; what it says later comes too late."""

    def __init__(self, takes: int) -> None:
        self.takes = takes
        self.late: list[Callable[[], None]] = []

    async def send(self, batch: Sequence[Push], report: Report) -> None:
        """Accept the first pushes, and raise what no gateway should."""
        for push in batch[: self.takes]:
            report(push, Accepted(push.id))
        self.late += [lambda push=push: report(push, Accepted("")) for push in batch]  # type: ignore[misc]
        raise RuntimeError("a gateway's own mistake")

    def require(self, may_begin: Callable[[], bool]) -> None:
        """Take everything at once, so that nothing waits."""

    def withdraw(self, is_meant: Callable[[Push], bool]) -> None:
        """Have nothing to take back."""

    async def close(self) -> None:
        """Have nothing to close."""


class Rigged(System):
    """A system that sends through another ``gateway`` while there is one."""

    gateway: Gateway | None = None

    def find_gateway(
        self,
        app: App,
        key: Credential | None,
        name: GatewayName,
        environment: str,
        *,
        excluded: Collection[str] = (),
    ) -> Gateway:
        """Return the other gateway, or else the way to the twin."""
        return self.gateway or super().find_gateway(app, key, name, environment, excluded=excluded)


def rig(scene: Scene, gateway: Gateway) -> Rigged:
    """Return a system of its own on the scene's database, with another gateway."""
    clock = scene.clock
    settings = scene.task.settings()
    rigged = Rigged(settings, now=clock, clock=clock.steady, machine=clock.machine)
    rigged.gateway = gateway
    scene.opened.append(rigged)
    return rigged


def run_script(scene: Scene, script: str) -> None:
    """Run SQL on the scene's database, as somebody from outside."""
    with closing(sqlite3.connect(scene.home / DATABASE_FILE)) as raw:
        raw.executescript(script)


@pytest.mark.databases
@pytest.mark.parametrize("to", [EVERYBODY, [f"user{one}@example.com" for one in range(5)]])
def test_a_gateway_that_breaks_off_leaves_no_push_without_an_end(scene: Scene, to: object) -> None:
    """What it reported counts, the rest is sent again, and what it says later is not counted."""
    scene.add_phones(5)
    gateway = Broken(takes=2)
    system = rig(scene, gateway)

    async def scenario() -> None:
        async with scene.running(system) as engine:
            async with asyncio.timeout(5):
                response = await scene.send(engine, to)
            system.gateway = None
            await scene.until(None, lambda: engine.worker.app_states.in_flight == 0)
            for late in gateway.late:
                late()
            await scene.until(None, lambda: engine.worker.app_states.in_flight == 0)
            held = [one for one in scene.deliveries(response) if one.state == "held"]
            assert [one.reason for one in held] == ["Interrupted"] * 3
            assert all((one.detail or "").startswith(GATEWAY_MISTAKE) for one in held)
            scene.clock.move(60)
            await scene.until(engine, lambda: scene.states(response) == {"sent": 5})

    asyncio.run(scenario())
    assert scene.twin.accepted == 3


def test_an_answer_that_nobody_understands_is_one_push_sent_again(scene: Scene) -> None:
    """A gateway that reports what is no outcome does not take the others with it."""
    scene.add_phones(3)

    class Odd(Broken):
        async def send(self, batch: Sequence[Push], report: Report) -> None:
            for place, push in enumerate(batch):
                outcome = cast("Any", "yes") if place == 1 else Accepted(push.id)
                report(push, outcome)

    async def scenario() -> None:
        async with scene.running(rig(scene, Odd(0))) as engine:
            async with asyncio.timeout(5):
                response = await scene.send(engine, EVERYBODY)
            assert scene.states(response) == {"sent": 2, "held": 1}
            await scene.until(None, lambda: engine.worker.app_states.in_flight == 0)

    asyncio.run(scenario())


def test_rules_that_cannot_be_read_hold_what_needs_them(scene: Scene) -> None:
    """Nothing goes out without its app's rules; it goes once they can be read again."""
    (phone,) = scene.add_phones(1)
    run_script(scene, "UPDATE apps SET quiet_hours = 'at night'")

    async def scenario() -> None:
        async with scene.running() as engine:
            async with asyncio.timeout(5):
                response = await scene.send(engine, phone.mail)
            assert scene.states(response) == {"held": 1}
            assert scene.twin.accepted == 0
            await scene.until(None, lambda: engine.worker.app_states.in_flight == 0)
            run_script(scene, "UPDATE apps SET quiet_hours = NULL")
            scene.clock.move(16 * 60)
            await scene.until(engine, lambda: scene.states(response) == {"sent": 1})

    asyncio.run(scenario())


def test_an_end_that_cannot_be_written_leaves_the_others_theirs(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """The rest of its batch is written, the log says what was left out, and the worker goes on."""
    phones = scene.add_phones(4)
    odd = scene.system.registry.sessions_of(scene.app, phones[0].mail or "")[0].id
    run_script(
        scene,
        f"""
        CREATE TRIGGER odd BEFORE UPDATE ON deliveries
        WHEN NEW.number = {odd} AND NEW.state = 'failed'
        BEGIN SELECT RAISE(ABORT, 'the disk has a bad place'); END;
        """,
    )

    async def scenario() -> None:
        async with scene.running() as engine:
            scene.twin.add_fault("answer", token=phones[0].token, reason="BadMessageId")
            others = await scene.accept(engine, [phone.mail for phone in phones])
            await scene.until(engine, lambda: scene.states(others)["sent"] == 3)
            acceptance = await scene.accept(engine, EVERYBODY)
            await scene.until(engine, lambda: scene.states(acceptance) == {"sent": 4})
            await scene.until(engine, lambda: scene.states(others) == {"sent": 3, "dead_letter": 1})
            run_script(scene, "DROP TRIGGER odd")
            later = await scene.send(engine, phones[0].mail)
            assert later.success
            await scene.until(None, lambda: engine.worker.app_states.in_flight == 0)

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    assert "Could not record outcome; left out" in caplog.text
    assert f"number={odd}" in caplog.text


def test_what_contradicts_the_database_is_told_apart_from_a_database_in_trouble(
    scene: Scene,
) -> None:
    """The end of a notification that is gone is refused for good; other ends are written."""
    scene.add_phones(1)
    gone = Ending(
        notification_id=999,
        number=1,
        gateway="apns",
        environment="production",
        urgency=3,
        state="sent",
        attempts=1,
    )
    with pytest.raises(ContradictionError, match="refused what was to be written"):
        scene.system.recorder.record(Batch(endings=[gone]))
    with pytest.raises(ContradictionError), scene.system.database.write() as connection:
        connection.execute(text("INSERT INTO users (app_id, mail) VALUES (999, 'a@example.com')"))
    assert issubclass(ContradictionError, StorageError)

    async def scenario() -> None:
        async with scene.running() as engine:
            engine.worker._book.write_ending(gone)  # noqa: SLF001 - nothing else would make one
            assert (await scene.send(engine, EVERYBODY)).success

    asyncio.run(scenario())


class Stumbling(Workers):
    """A roster that fails at the first beat, as no database does."""

    beats = 0

    def beat(self, worker: int) -> bool:
        """Count the beats, and break off at the first."""
        self.beats += 1
        if self.beats == 1:
            raise RuntimeError("a mistake")
        return super().beat(worker)


def test_a_heart_that_stumbles_beats_on(scene: Scene) -> None:
    """A mistake in one beat does not end the beating, and so does not give the work to others."""
    known_workers = Stumbling(scene.system.database, now=scene.clock)
    jumps = ClockJumps(scene.system.database, known_workers.machine)

    async def scenario() -> None:
        threads = ThreadPool(2, "test")
        heartbeat = Heartbeat(
            SqlWorkQueue(scene.system.queue, known_workers),
            known_workers,
            threads=threads,
            jumps=jumps,
            on_loss=lambda: None,
            on_jump=lambda _: None,
            seconds=0.01,
        )
        await heartbeat.begin()
        beating = asyncio.create_task(heartbeat.run())
        await scene.until(None, lambda: known_workers.beats >= 3)
        assert not beating.done()
        beating.cancel()
        await heartbeat.end()

    asyncio.run(scenario())


def test_a_circuit_is_written_as_it_is_now_once_the_database_takes_it(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """A database in trouble delays what it says of the circuit, and does not lose it."""
    system = scene.another()
    system.__dict__["database"] = Database.open(system.settings.database_url, wait=0.05)
    app = system.apps.add("TEAM654321", "com.sample.second")
    system.apps.add_credential(app, make_key(app.apple.team_id))  # the twin does not know the key
    system.registry.register(app, "user@example.com", "ab" * 32)
    scene.twin.add_fault("slow", seconds=0.2)

    async def scenario() -> None:
        async with scene.running(system) as engine:
            hello = Notification.read({"title": "Hello"})
            await engine.accept(app, hello, Recipients.read("user@example.com"))
            with scene.system.database.write():
                await scene.until(None, lambda: "Database unavailable" in caplog.text)
                assert system.rules_store.rules_of(app.id).stop is None
            await scene.until(engine, lambda: system.rules_store.rules_of(app.id).stop is not None)

    asyncio.run(scenario())


def test_a_shard_that_was_given_to_others_is_not_handed_out_any_further(scene: Scene) -> None:
    """A worker that was taken for dead while it read a page does not send that page as well."""
    number = 50
    scene.add_phones_at_once(number)
    moved: list[bool] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with scene.running() as engine:

            def notice(statement: str) -> None:
                if moved or "group_concat" not in statement:
                    return
                moved.append(True)
                scene.clock.move(LEASE_SECONDS + 1)
                scene.another().known_workers.reclaim()
                # The heart finds out before the page is back.
                beating = engine.worker._heartbeat._beat()  # noqa: SLF001 - four seconds are long
                asyncio.run_coroutine_threadsafe(beating, loop).result(5)

            read = scene.system.database._engine  # noqa: SLF001 - to notice a statement

            def trace(connection: sqlite3.Connection, *_: object) -> None:
                connection.set_trace_callback(notice)

            await scene.send(engine, EVERYBODY)
            # Nothing of the page is written down before the next one to have it would read it.
            scene.twin.add_fault("slow", seconds=0.2, count=2 * number)
            event.listen(read, "checkout", trace)
            async with asyncio.timeout(10):
                response = await scene.send(engine, EVERYBODY)
            await scene.until(engine, lambda: scene.states(response) == {"sent": number})

    asyncio.run(scenario())
    assert moved
    assert scene.twin.accepted == 2 * number
