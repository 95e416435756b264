"""A stop ends in time, whatever is on its way, and nobody waits for what has stopped."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tests.scripted import EVERYBODY, OUTCOMES, Failing, Play, ScriptedGateway, open_play

from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.send.worker import Worker
from handbell.errors import StoppedError
from handbell.gateways.gateway import Push
from handbell.gateways.outcomes import Withdrawn

MAIL = "user0@example.com"


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    """Give a system with an app of eight people, and a gateway that answers when it is told."""
    with open_play(tmp_path) as play:
        yield play


@pytest.mark.parametrize("to", [MAIL, EVERYBODY], ids=["a person", "everybody"])
@pytest.mark.parametrize("within", [None, 0.01])
def test_a_stop_does_not_wait_for_a_silent_gateway(
    play: Play, to: object, within: float | None
) -> None:
    """What was answered is written, the rest is given back, and the next start sends it again."""

    async def scenario() -> None:
        await play.start()
        acceptance = await play.accept(to)
        await play.until(lambda: play.gateway.calls)
        total = len(play.gateway.calls[0].all)
        answered = total // 2
        play.gateway.calls[0].answer(answered, None)
        play.engine.worker.answer_seconds = 0.05
        async with asyncio.timeout(10):
            await play.stop(within=within)
        assert play.states(acceptance)["sent"] == answered
        first = play.gateway.pushed.copy()
        play.again()
        play.gateway.answers = "accepted"
        await play.start()
        await play.until(lambda: play.states(acceptance) == {"sent": total})
        assert first.keys() == play.gateway.pushed.keys()
        assert sum(play.gateway.pushed.values()) == 2 * total - answered
        await play.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("is_node", "is_broadcast"),
    [(True, True), (True, False), (False, True)],
    ids=["a node's broadcast", "a node's sends", "a program's broadcast"],
)
def test_what_is_not_on_the_wire_is_handed_back_by_a_node(
    play: Play, *, is_node: bool, is_broadcast: bool
) -> None:
    """It waits for the one push that has gone out, and others send the rest, each person once.

    A program that sends by the library may be alone: it sends all of it.
    """

    class Slow(ScriptedGateway):
        """Has one push on the wire until the test answers, and gives back the others."""

        is_asked = False

        def withdraw(self, is_meant: Callable[[Push], bool]) -> None:
            self.is_asked = True
            for call in self.calls:
                for push in [push for push in call.pushes[1:] if is_meant(push)]:
                    call.pushes.remove(push)
                    call.report(push, Withdrawn())

    async def scenario() -> None:
        if is_node:
            play.system.run_as("worker")
        gateway = play.gateway = play.system.gateway = Slow()
        worker = play.engine.worker
        assert (worker.hand_back_seconds is not None) == is_node
        if is_node:
            worker.hand_back_seconds = 0.05
        await play.start()
        acceptance = await play.accept(EVERYBODY if is_broadcast else play.mails)
        await play.until(lambda: gateway.calls)
        (call,) = gateway.calls
        total = len(call.all)
        stopping = asyncio.create_task(play.stop())
        if is_node:
            await play.until(lambda: gateway.is_asked)
        call.answer(total, None)
        async with asyncio.timeout(10):
            await stopping
        assert play.states(acceptance)["sent"] == (1 if is_node else total)
        play.again()
        gateway.answers = "accepted"
        await play.start()
        await play.until(lambda: play.states(acceptance) == {"sent": total})
        await play.stop()
        assert gateway.pushed[call.all[0].id] == 1
        assert sum(gateway.pushed.values()) == (2 * total - 1 if is_node else total)

    asyncio.run(scenario())


def test_a_gateway_that_ignores_its_end_does_not_hold_a_stop(play: Play) -> None:
    """A task that stays although it was cancelled is left behind, and the log says so."""
    let_go = asyncio.Event()

    class Stubborn(type(play.gateway)):  # type: ignore[misc]
        async def send(self, *_: object) -> None:
            while not let_go.is_set():
                try:
                    await let_go.wait()
                except asyncio.CancelledError:
                    continue

    play.system.gateway = Stubborn()

    async def scenario() -> None:
        await play.start()
        acceptance = await play.accept(MAIL)
        await play.until(lambda: play.engine.worker.in_flight.load.handed)
        async with asyncio.timeout(10):
            await play.stop(within=0.01)
        assert play.states(acceptance) == {"queued": 1}
        let_go.set()
        await asyncio.sleep(0)

    asyncio.run(scenario())


def test_a_stop_after_its_loops_were_cancelled_writes_what_ended(play: Play) -> None:
    """``asyncio.run`` cancels all tasks before anything can be closed; no answer is lost by it."""

    async def scenario() -> None:
        await play.start()
        acceptance = await play.accept(EVERYBODY)
        await play.until(lambda: play.gateway.calls)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            if "Worker._" in repr(task.get_coro()) or "Heartbeat" in repr(task.get_coro()):
                task.cancel()
        await asyncio.sleep(0.01)
        play.gateway.calls[0].answer(8, None)
        await play.stop(within=1)
        assert play.states(acceptance) == {"sent": 8}

    asyncio.run(scenario())


async def _settled(worker: Worker) -> None:
    await worker.settled(1)


async def _idle(worker: Worker) -> None:
    await worker.idle()


async def _read_rules(worker: Worker) -> None:
    await worker.storage_retry.call(worker.app_states.all)
    await worker.settled(1)


@pytest.mark.parametrize("wait", [_settled, _idle, _read_rules], ids=lambda one: one.__name__)
@pytest.mark.parametrize("is_failing", [False, True], ids=["", "a failing database"])
def test_whoever_waits_for_a_worker_that_stops_is_told(
    play: Play,
    wait: Callable[[Worker], Awaitable[None]],
    is_failing: bool,  # noqa: FBT001
) -> None:
    """Who waits is told when it stops, and who comes later at once."""

    async def scenario() -> None:
        with Failing() as failing:
            await play.start()
            await play.accept(EVERYBODY)
            await play.until(lambda: play.gateway.calls)
            worker = play.engine.worker
            waiting = asyncio.ensure_future(wait(worker))
            await asyncio.sleep(0.01)
            failing.is_failing = is_failing
            async with asyncio.timeout(10):
                await worker.stop(within=0.01)
                with pytest.raises(StoppedError, match="Nothing is lost"):
                    await waiting
                with pytest.raises(StoppedError):
                    await worker.settled(1)
                with pytest.raises(StoppedError):
                    await worker.start()
                await worker.stop()
            failing.is_failing = False
        await play.system.close_gateways()

    asyncio.run(scenario())


@pytest.mark.parametrize("to", [MAIL, EVERYBODY], ids=["send", "send_all"])
def test_one_closes_while_another_sends(play: Play, to: object) -> None:
    """Two senders on one database: the one that closes is told, the other's send goes on."""

    async def scenario() -> None:
        await play.start()
        notification, recipients = Notification.read({"title": "Hi"}), Recipients.read(to)
        mine = asyncio.ensure_future(play.engine.send(play.app, notification, recipients))
        await play.until(lambda: play.gateway.calls)
        closed = play.system
        async with asyncio.timeout(10):
            await closed.engine.worker.stop(within=0.01)
            with pytest.raises(StoppedError):
                await mine
        await closed.close_gateways()
        play.again()
        play.gateway.answers = "accepted"
        async with asyncio.timeout(10):
            response = await play.engine.send(play.app, notification, recipients)
        assert response.success
        await play.until(lambda: not play.engine.worker.in_flight.load.all)
        await play.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize("outcome", ["later", "wrong app", "unknown", "bad token"])
def test_first_answers_that_prove_nothing_stop_nobody(play: Play, outcome: str) -> None:
    """With a cap, deliveries that fall due together each have their turn, and a stop ends."""
    play.system.app_control.set_rules(play.app, {"cap": "9/day"})
    later = {"send_at": play.clock() + 60}

    async def scenario() -> None:
        await play.start()
        accepted = [await play.accept(mail, later) for mail in play.mails]
        play.clock.move(61)
        await play.until(lambda: play.gateway.calls)
        play.gateway.answers = outcome
        while play.gateway.calls:
            call = play.gateway.calls[0]
            call.answer(len(call.all), OUTCOMES[outcome])
            await asyncio.sleep(0)
        await play.until(lambda: not play.engine.worker.in_flight.load.all)
        assert all("sending" not in play.states(one) for one in accepted)
        await play.stop()

    asyncio.run(scenario())


def test_who_gives_up_waiting_for_a_release_ends_no_others_wait(play: Play) -> None:
    """Two wait for the same push to end; one of them leaves, and the other hears of the end."""
    session = play.system.registry.sessions_of(play.app, MAIL)[0].id

    async def scenario() -> None:
        await play.start()
        await play.accept(MAIL)
        await play.until(lambda: play.gateway.calls)
        leaves = asyncio.ensure_future(play.engine.release([session]))
        stays = asyncio.ensure_future(play.engine.release([session]))
        await asyncio.sleep(0.01)
        leaves.cancel()
        await asyncio.sleep(0.01)
        assert not stays.done()
        play.gateway.calls[0].answer(1, None)
        async with asyncio.timeout(5):
            await stays
        await play.stop()

    asyncio.run(scenario())
