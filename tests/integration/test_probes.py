"""The permission to probe an open circuit comes back, however the probe ends."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tests.scripted import BAD_KEY, EVERYBODY, OUTCOMES, Play, open_play

from handbell.delivery.events import CircuitClosed, Event

MAIL = "user0@example.com"
PROBE_SECONDS = 100
SOON_SECONDS = 10


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    """Give a system with an app of two people, and a gateway that answers when it is told."""
    with open_play(tmp_path, people=2) as play:
        yield play


async def credential_missing(play: Play) -> None:
    """Remove the key when the probe is to go."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    play.system.is_missing = True
    play.system.on_find = lambda: loop.call_soon_threadsafe(asked.set)
    play.clock.move(PROBE_SECONDS)
    await play.until(asked.is_set)
    await play.until(lambda: not play.engine.worker.in_flight.load.all)
    play.system.on_find = lambda: None
    play.system.is_missing = False


async def gateway_raises(play: Play) -> None:
    """Let the gateway break off with a mistake of its own."""
    play.clock.move(PROBE_SECONDS)
    await play.until(lambda: play.gateway.calls)
    play.gateway.calls[0].end(RuntimeError("a mistake"))


async def gateway_says_nothing(play: Play) -> None:
    """Let the gateway return without an answer."""
    play.clock.move(PROBE_SECONDS)
    await play.until(lambda: play.gateway.calls)
    play.gateway.calls[0].end()


async def session_released(play: Play) -> None:
    """Log the person out between the look at the database and the gateway."""
    session = play.system.registry.sessions_of(play.app, MAIL)[0].id
    loop = asyncio.get_running_loop()
    released = asyncio.Event()

    def release() -> None:
        play.system.registry.close(session, "logout")
        asyncio.run_coroutine_threadsafe(play.engine.release([session]), loop).result(5)
        loop.call_soon_threadsafe(released.set)

    play.system.on_find = release
    play.clock.move(PROBE_SECONDS)
    await play.until(released.is_set)
    play.system.on_find = lambda: None
    play.system.registry.register(play.app, MAIL, f"{1:064x}")


async def answer_is_unclear(play: Play) -> None:
    """Answer neither yes nor no."""
    play.clock.move(PROBE_SECONDS)
    await play.until(lambda: play.gateway.calls)
    play.gateway.calls[0].answer(1, OUTCOMES["later"])


async def token_is_gone(play: Play) -> None:
    """Answer what says nothing of the configuration."""
    play.clock.move(PROBE_SECONDS)
    await play.until(lambda: play.gateway.calls)
    play.gateway.calls[0].answer(1, OUTCOMES["gone"])
    await play.until(lambda: not play.engine.worker.in_flight.load.all)
    play.system.registry.register(play.app, MAIL, f"{1:064x}")


async def no_room_in_the_rate(play: Play) -> None:
    """Leave no room for it in the app's rate."""
    play.system.app_control.set_rules(play.app, {"rate_limit": "1/week"})
    play.clock.move(SOON_SECONDS)
    await play.engine.worker.app_states.read_rules(play.app_state)
    assert (await play.engine.worker.app_states.grant(play.app_state, 1)).number == 1
    play.clock.move(PROBE_SECONDS)
    late = await play.accept("user1@example.com")
    await play.until(lambda: play.states(late) == {"held": 1})
    play.system.app_control.set_rules(play.app, {"rate_limit": "none"})


async def sender_stops(play: Play) -> None:
    """Stop the process while the probe is out."""
    play.clock.move(PROBE_SECONDS)
    await play.until(lambda: play.gateway.calls)
    await play.stop(within=0.01)
    hooks = play.system.hooks
    play.again()
    play.system.__dict__["hooks"] = hooks
    await play.start()


ENDS = [
    credential_missing,
    gateway_raises,
    gateway_says_nothing,
    session_released,
    answer_is_unclear,
    token_is_gone,
    no_room_in_the_rate,
    sender_stops,
]


@pytest.mark.parametrize("by_hand", [False, True], ids=["in its time", "resumed by hand"])
@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_a_circuit_closes_whatever_became_of_a_probe(
    play: Play,
    end: Callable[[Play], Awaitable[None]],
    by_hand: bool,  # noqa: FBT001
) -> None:
    """The next push that may go closes it, in its time or as soon as it is resumed by hand."""
    events: list[Event] = []
    play.system.hooks.add(events.append)

    async def scenario() -> None:
        await play.start()
        first = await play.accept(MAIL)
        await play.until(lambda: play.gateway.calls)
        play.gateway.calls[0].answer(1, BAD_KEY)
        await play.until(lambda: play.states(first) == {"held": 1})
        await end(play)
        play.gateway.answers = "accepted"
        await play.until(lambda: not play.engine.worker.in_flight.load.all)
        if by_hand:
            assert play.system.app_control.resume(play.app)
            play.clock.move(SOON_SECONDS)
        else:
            play.clock.move(3 * PROBE_SECONDS)
        last = await play.accept(EVERYBODY)
        await play.until(lambda: play.states(last)["sent"] == 2 or _moved(play, by_hand=by_hand))
        await play.stop()

    asyncio.run(scenario())
    assert by_hand or any(isinstance(one, CircuitClosed) for one in events)


def _moved(play: Play, *, by_hand: bool) -> bool:
    """Let time pass while a circuit waits for its next probe; one that was resumed need not."""
    if not by_hand:
        play.clock.move(SOON_SECONDS)
    return False


def test_a_probe_is_one_push_of_many(play: Play) -> None:
    """While one push probes, no other goes; its answer is waited for."""

    async def scenario() -> None:
        await play.start()
        first = await play.accept(MAIL)
        await play.until(lambda: play.gateway.calls)
        play.gateway.calls[0].answer(1, BAD_KEY)
        await play.until(lambda: play.states(first) == {"held": 1})
        more = await play.accept(EVERYBODY)
        await play.until(lambda: not play.engine.worker.in_flight.load.all)
        play.clock.move(PROBE_SECONDS)
        await play.until(lambda: play.gateway.calls)
        others = [await play.accept(mail) for mail in play.mails]
        await play.until(lambda: all(play.states(one) == {"held": 1} for one in others))
        (probe,) = play.gateway.calls
        assert len(probe.all) == 1
        play.gateway.answers = "accepted"
        probe.answer(1, None)
        await play.until(lambda: play.states(more)["sent"] == 2 or _moved(play, by_hand=False))
        await play.stop()

    asyncio.run(scenario())
