"""A mistake in one place, ours or another's: it costs what it touches, and nothing hangs by it."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import text
from tests.scene import Scene, open_scene

from handbell.delivery.batch import Batch, Ending
from handbell.delivery.queue import Queue
from handbell.delivery.recording import write_batch
from handbell.delivery.roster import LEASE_SECONDS, Roster
from handbell.delivery.rulebook import RuleBook
from handbell.delivery.sending import Sender
from handbell.errors import ContradictionError, StorageError
from handbell.gateways.gateway import Accepted, Gateway, Push, Report

EVERYBODY = {"everybody": True}
GATEWAY_MISTAKE = "a mistake of Handbell's or of a gateway's: RuntimeError"


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Give a system with an app, its key, and a twin that knows the key."""
    with open_scene(tmp_path) as scene:
        yield scene


class Broken:
    """A gateway that takes part of a batch and breaks off; what it says later comes too late."""

    def __init__(self, takes: int) -> None:
        self.takes = takes
        self.late: list[Callable[[], None]] = []

    async def send(self, batch: Sequence[Push], report: Report) -> None:
        """Accept the first pushes, and raise what no gateway should."""
        for push in batch[: self.takes]:
            report(push, Accepted(push.apns_id))
        self.late += [lambda push=push: report(push, Accepted("")) for push in batch]  # type: ignore[misc]
        raise RuntimeError("a gateway's own mistake")

    async def close(self) -> None:
        """Have nothing to close."""


def use(monkeypatch: pytest.MonkeyPatch, gateway: Gateway) -> None:
    """Let every push go through a gateway."""

    async def found(*_: object) -> Gateway:
        return gateway

    monkeypatch.setattr(Sender, "_gateway", found)


@pytest.mark.parametrize("to", [EVERYBODY, [f"user{one}@example.com" for one in range(5)]])
def test_a_gateway_that_breaks_off_leaves_no_push_without_an_end(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, to: object
) -> None:
    """What it reported counts, the rest is sent again, and what it says later is not counted."""
    scene.add_phones(5)
    gateway = Broken(takes=2)

    async def scenario() -> None:
        async with scene.running() as engine:
            with monkeypatch.context() as patch:
                use(patch, gateway)
                async with asyncio.timeout(5):
                    response = await scene.send(engine, to)
            assert engine.worker.lanes.in_flight == 0
            for late in gateway.late:
                late()
            assert engine.worker.lanes.in_flight == 0
            held = [one for one in scene.deliveries(response) if one.state == "held"]
            assert [one.reason for one in held] == ["Interrupted"] * 3
            assert {one.detail for one in held} == {GATEWAY_MISTAKE}
            scene.clock.move(60)
            await scene.until(engine, lambda: scene.states(response) == {"sent": 5})

    asyncio.run(scenario())
    assert scene.twin.accepted == 3


def test_an_answer_that_nobody_understands_is_one_push_sent_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that reports what is no outcome does not take the others with it."""
    scene.add_phones(3)

    class Odd(Broken):
        async def send(self, batch: Sequence[Push], report: Report) -> None:
            for place, push in enumerate(batch):
                outcome = cast("Any", "yes") if place == 1 else Accepted(push.apns_id)
                report(push, outcome)

    async def scenario() -> None:
        async with scene.running() as engine:
            with monkeypatch.context() as patch:
                use(patch, Odd(0))
                async with asyncio.timeout(5):
                    response = await scene.send(engine, EVERYBODY)
            assert scene.states(response) == {"sent": 2, "held": 1}
            assert engine.worker.lanes.in_flight == 0

    asyncio.run(scenario())


def test_rules_that_cannot_be_read_hold_what_needs_them(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing goes out without its app's rules; it goes once they can be read again."""
    (phone,) = scene.add_phones(1)

    async def scenario() -> None:
        async with scene.running() as engine:
            with monkeypatch.context() as patch:
                patch.setattr(RuleBook, "rules_of", _fail)
                async with asyncio.timeout(5):
                    response = await scene.send(engine, phone.mail)
            assert scene.states(response) == {"held": 1}
            assert scene.twin.accepted == engine.worker.lanes.in_flight == 0
            scene.clock.move(16 * 60)
            await scene.until(engine, lambda: scene.states(response) == {"sent": 1})

    asyncio.run(scenario())


def test_an_end_that_cannot_be_written_leaves_the_others_theirs(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The rest of its batch is written, the log says what was left out, and the worker goes on."""
    phones = scene.add_phones(4)
    odd = 0

    def write(connection: Any, batch: Batch, *, now: int) -> None:
        if any(ending.number == odd for ending in batch.endings):
            raise OverflowError("int too big to convert")
        write_batch(connection, batch, now=now)

    async def scenario() -> None:
        nonlocal odd
        async with scene.running() as engine:
            first = await scene.accept(engine, phones[0].mail)
            await scene.until(engine, lambda: scene.states(first) == {"sent": 1})
            with monkeypatch.context() as patch:
                patch.setattr("handbell.delivery.store.write_batch", write)
                odd = scene.deliveries(first)[0].session_id or 0
                scene.twin.add_fault("answer", token=phones[0].token, reason="BadMessageId")
                others = await scene.accept(engine, [phone.mail for phone in phones])
                await scene.until(engine, lambda: scene.states(others)["sent"] == 3)
                acceptance = await scene.accept(engine, EVERYBODY)
                await scene.until(engine, lambda: scene.states(acceptance) == {"sent": 4})
            assert scene.states(others) == {"sent": 3, "sending": 1}
            later = await scene.send(engine, phones[0].mail)
            assert later.success
            assert engine.worker.lanes.in_flight == 0

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    assert "This cannot be written, and is left out" in caplog.text
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
        scene.system.ledger.record(Batch(endings=[gone]))
    with pytest.raises(ContradictionError), scene.system.database.write() as connection:
        connection.execute(text("INSERT INTO users (app_id, mail) VALUES (999, 'a@example.com')"))
    assert issubclass(ContradictionError, StorageError)

    async def scenario() -> None:
        async with scene.running() as engine:
            engine.worker._book.write_ending(gone)  # noqa: SLF001 - nothing else would make one
            assert (await scene.send(engine, EVERYBODY)).success

    asyncio.run(scenario())


def test_a_heart_that_stumbles_beats_on(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in one beat does not end the beating, and so does not give the work to others."""
    monkeypatch.setattr("handbell.delivery.heart.BEAT_SECONDS", 0.01)
    beats = 0

    def beat(roster: Roster, worker: int) -> bool:
        nonlocal beats
        beats += 1
        if beats == 1:
            raise RuntimeError("a mistake")
        return former(roster, worker)

    former = Roster.beat
    monkeypatch.setattr(Roster, "beat", beat)

    async def scenario() -> None:
        async with scene.running() as engine:
            await scene.until(engine, lambda: beats >= 3)

    asyncio.run(scenario())


def test_a_circuit_is_written_as_it_is_now_once_the_database_takes_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database in trouble delays what it says of the circuit, and does not lose it."""
    (phone,) = scene.add_phones(1)
    monkeypatch.setattr("handbell.delivery.patience.STORAGE_PAUSE", 0.01)
    former = RuleBook.write_stop
    failures = 3

    def write_stop(rulebook: RuleBook, app_id: str, stop: Any) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise StorageError("The disk is busy")
        former(rulebook, app_id, stop)

    monkeypatch.setattr(RuleBook, "write_stop", write_stop)
    scene.twin.add_fault("answer", status=403, reason="InvalidProviderToken")

    async def scenario() -> None:
        async with scene.running() as engine:
            await scene.accept(engine, phone.mail)
            await scene.until(
                engine, lambda: scene.system.rulebook.rules_of(scene.app.id).stop is not None
            )

    asyncio.run(scenario())
    assert failures == 0


def test_a_shard_that_was_given_to_others_is_not_handed_out_any_further(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was taken for dead while it read a page does not send that page as well."""
    number = 50
    scene.add_phones_at_once(number)
    former = Queue.page

    async def scenario() -> None:
        async with scene.running() as engine:

            def page(queue: Queue, *arguments: Any, **named: Any) -> Any:
                listeners = former(queue, *arguments, **named)
                if not moved:
                    moved.append(True)
                    scene.clock.move(LEASE_SECONDS + 1)
                    scene.another().roster.reclaim()
                    # The heart finds out before the page is back.
                    asyncio.run_coroutine_threadsafe(
                        engine.worker._heart._beat(),  # noqa: SLF001
                        loop,
                    ).result(5)
                return listeners

            moved: list[bool] = []
            loop = asyncio.get_running_loop()
            monkeypatch.setattr(Queue, "page", page)
            async with asyncio.timeout(10):
                response = await scene.send(engine, EVERYBODY)
            await scene.until(engine, lambda: scene.states(response) == {"sent": number})

    asyncio.run(scenario())
    assert scene.twin.accepted == number


def _fail(*_: object) -> Any:
    raise RuntimeError("a mistake")
