"""An outage of the push service costs little more than it lasts, however it shows."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.scene import Scene, open_scene

from handbell.delivery.events import Event, ProbeSent, ServiceDown, ServiceUp
from handbell.delivery.policy.circuit import CircuitStop
from handbell.delivery.policy.retry import SERVICE_DOWN
from handbell.system import System

EVERYBODY = {"everybody": True}
ALWAYS = 1_000_000
SOON = 45
"""No probe is further away than this, in seconds."""


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Give a system with an app, its key, and a twin that knows the key; silence is short."""
    with open_scene(tmp_path, request_timeout=1) as scene:
        yield scene


@dataclass
class Gate:
    """A port before the twin that takes connections, or refuses them."""

    target: tuple[str, int]
    port: int = 0
    server: asyncio.Server | None = None
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def open(self) -> None:
        """Take connections, on the same port as before."""
        self.server = await asyncio.start_server(self._relay, "127.0.0.1", self.port or None)
        self.port = self.server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuse connections, and break those that stand."""
        if self.server is not None:
            self.server.close()
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        further, beyond = await asyncio.open_connection(*self.target)
        self.writers += [writer, beyond]
        await asyncio.gather(_copy(reader, beyond), _copy(further, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


@contextlib.asynccontextmanager
async def gated(scene: Scene) -> AsyncIterator[tuple[System, Gate]]:
    """Give a system whose way to the twin leads through a gate."""
    parts = urlsplit(scene.twin.production_url)
    gate = Gate((parts.hostname or "", parts.port or 0))
    await gate.open()
    task = replace(scene.task, production_url=f"https://127.0.0.1:{gate.port}")
    system = System(task.settings(), now=scene.clock)
    scene.opened.append(system)
    try:
        yield system, gate
    finally:
        await gate.close()


def _outage(scene: Scene) -> CircuitStop | None:
    stops = scene.system.rules_store.rules_of(scene.app.id).outages(scene.clock())
    return next(iter(stops), None)


async def _probe(scene: Scene, engine: Any, is_over: Callable[[], object]) -> None:
    """Let time pass, a few seconds at a time, until something is so; never for long."""
    for _ in range(SOON // 3):
        scene.clock.move(3)
        engine.worker.wake()
        for _ in range(40):
            if await asyncio.to_thread(is_over):
                return
            await asyncio.sleep(0.025)
    raise AssertionError("the outage was not over soon")


FAULTS = {
    "documented 503": {"kind": "answer", "reason": "ServiceUnavailable"},
    "500": {"kind": "answer", "reason": "InternalServerError"},
    "a proxy's 502": {"kind": "answer", "status": 502},
    "shutdown": {"kind": "answer", "reason": "Shutdown"},
    "streams broken off": {"kind": "reset"},
    "silence": {"kind": "silence"},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_after_an_outage_everything_goes_out_soon(scene: Scene, fault: dict[str, Any]) -> None:
    """Whatever an outage looks like: few pushes meet it, and its end lets all go on at once."""
    scene.add_phones_at_once(400)
    scene.twin.add_fault(**fault, count=ALWAYS)

    async def scenario() -> None:
        async with scene.running() as engine:
            broadcast = await scene.accept(engine, EVERYBODY)
            await scene.until(engine, lambda: _outage(scene) is not None)
            met = len(scene.twin.requests)
            assert met <= 120
            single = await scene.accept(engine, "user7@example.com")
            await scene.until(engine, lambda: scene.states(single) == {"held": 1})
            assert scene.deliveries(single)[0].reason == SERVICE_DOWN
            # Those that it has not come to have no row.
            assert sum(scene.states(broadcast).values()) <= 120
            scene.twin.clear_faults()
            await _probe(scene, engine, lambda: scene.states(broadcast) == {"sent": 400})
            await scene.until(engine, lambda: scene.states(single) == {"sent": 1})
            assert _outage(scene) is None

    asyncio.run(scenario())
    assert scene.statuses() == {"active": 400}


def test_after_refused_connections_everything_goes_out_soon(scene: Scene) -> None:
    """A port that refuses is noticed by the first push, even a lone one, and probed in seconds."""
    scene.add_phones_at_once(300)

    async def scenario() -> None:
        async with gated(scene) as (system, gate), scene.running(system) as engine:
            await gate.close()
            single = await scene.accept(engine, "user7@example.com")
            await scene.until(engine, lambda: _outage(scene) is not None)
            broadcast = await scene.accept(engine, EVERYBODY)
            await scene.until(engine, lambda: scene.states(single) == {"held": 1})
            assert len(scene.twin.requests) == 0
            await gate.open()
            await _probe(scene, engine, lambda: scene.states(broadcast) == {"sent": 300})
            await scene.until(engine, lambda: scene.states(single) == {"sent": 1})

    asyncio.run(scenario())


def test_one_push_at_a_time_probes_and_everybody_is_told(scene: Scene) -> None:
    """While it lasts a probe costs one push, its waits grow to seconds; hooks hear of all of it."""
    scene.add_phones_at_once(100)
    scene.twin.add_fault("answer", reason="ServiceUnavailable", count=ALWAYS)
    told: list[Event] = []

    async def scenario() -> None:
        async with scene.running() as engine:
            engine.worker.hooks.add(told.append)
            await scene.accept(engine, EVERYBODY)
            await scene.until(engine, lambda: _outage(scene) is not None)
            probed = []
            for _ in range(4):
                stop = _outage(scene)
                assert stop is not None
                probed.append(stop.probe_at)
                await asyncio.sleep(0.05)
                before = len(scene.twin.requests)
                scene.clock.move(max(0.0, stop.probe_at - scene.clock()) + 0.01)
                await scene.until(engine, lambda: _is_later(scene, probed[-1]))
                await asyncio.sleep(0.05)
                assert len(scene.twin.requests) == before + 1
            waits = [later - earlier for earlier, later in pairwise(probed)]
            assert all(wait <= SOON for wait in waits)
            story = str(scene.system.why(scene.app, "user0@example.com"))
            assert "has been unavailable since" in story
            assert "ServiceUnavailable" in story
            scene.twin.clear_faults()
            await _probe(scene, engine, lambda: scene.twin.accepted == 100)

    asyncio.run(scenario())
    kinds = [type(one) for one in told]
    assert kinds.count(ServiceDown) == kinds.count(ServiceUp) == 1
    passed = [one.is_passed for one in told if isinstance(one, ProbeSent)]
    assert passed == [False] * 4 + [True]


def _is_later(scene: Scene, probe_at: float) -> bool:
    stop = _outage(scene)
    return stop is not None and stop.probe_at > probe_at


def test_what_an_outage_held_goes_on_the_urgent_first(scene: Scene) -> None:
    """Of hundreds that waited, those that somebody waits for are the first to be taken."""
    phones = scene.add_phones(200)
    scene.twin.add_fault("answer", status=503, count=ALWAYS)

    async def scenario() -> None:
        async with scene.running() as engine:
            mails = [phone.mail for phone in phones]
            normal = await scene.accept(engine, mails)
            await scene.until(engine, lambda: scene.states(normal) == {"held": 200})
            urgent = await scene.accept(engine, mails[-30:], {"urgency": "urgent"}, title="Now")
            await scene.until(engine, lambda: scene.states(urgent) == {"held": 30})
            before = len(scene.twin.requests)
            scene.twin.clear_faults()
            await _probe(scene, engine, lambda: scene.states(normal) == {"sent": 200})
            assert scene.states(urgent) == {"sent": 30}
            newest_first = scene.twin.requests
            after = newest_first[: len(newest_first) - before]
            order = [one.token for one in reversed(after)]
            late = {phone.token for phone in phones[-30:]}
            assert sum(token in late for token in order[:60]) >= 30

    asyncio.run(scenario())


@pytest.mark.parametrize("ends", ["while nobody works", "after the restart"])
def test_an_outage_outlives_a_restart(scene: Scene, ends: str) -> None:
    """The next process knows of it, sends one push to try, and lets go what the former one held."""
    phones = scene.add_phones(60)
    scene.twin.add_fault("answer", reason="ServiceUnavailable", count=ALWAYS)

    async def scenario() -> None:
        async with scene.running() as engine:
            held = await scene.accept(engine, [phone.mail for phone in phones])
            await scene.until(engine, lambda: scene.states(held) == {"held": 60})
        if ends == "while nobody works":
            scene.twin.clear_faults()
        before = len(scene.twin.requests)
        async with scene.running(scene.another()) as engine:
            if ends == "after the restart":
                await _probe(scene, engine, lambda: len(scene.twin.requests) > before)
                assert len(scene.twin.requests) <= before + 2
                scene.twin.clear_faults()
            await _probe(scene, engine, lambda: scene.states(held) == {"sent": 60})

    asyncio.run(scenario())


def test_the_end_of_an_outage_is_known_to_other_processes(scene: Scene) -> None:
    """What one worker's probe finds lets the other's deliveries go on within seconds."""
    phones = scene.add_phones(40)
    scene.twin.add_fault("answer", reason="ServiceUnavailable", count=ALWAYS)

    async def scenario() -> None:
        other = scene.another()
        async with scene.running() as first, scene.running(other) as second:
            held = await scene.accept(first, [phone.mail for phone in phones])
            await scene.until(first, lambda: scene.states(held) == {"held": 40})
            also = await scene.accept(second, "user1@example.com")
            await scene.until(second, lambda: scene.states(also) == {"held": 1})
            scene.twin.clear_faults()
            await _probe(scene, first, lambda: scene.states(held) == {"sent": 40})
            await _probe(scene, second, lambda: scene.states(also) == {"sent": 1})

    asyncio.run(scenario())


def test_an_outage_that_shows_slowly_holds_what_met_it_first(scene: Scene) -> None:
    """With one send now and then the third tells; the two before do not wait for longer."""
    phones = scene.add_phones(4)
    scene.twin.add_fault("answer", reason="ServiceUnavailable", count=ALWAYS)

    async def scenario() -> None:
        async with scene.running() as engine:
            sent = []
            for phone in phones[:3]:
                assert _outage(scene) is None
                sent.append(await scene.accept(engine, phone.mail))
                await scene.until(engine, lambda: scene.states(sent[-1]) == {"held": 1})
            await scene.until(engine, lambda: _outage(scene) is not None)
            await scene.until(
                engine,
                lambda: {scene.deliveries(one)[0].reason for one in sent} == {SERVICE_DOWN},
            )
            scene.twin.clear_faults()
            everything = lambda: all(scene.states(one) == {"sent": 1} for one in sent)  # noqa: E731
            await _probe(scene, engine, everything)

    asyncio.run(scenario())


def test_half_of_the_answers_is_no_outage(scene: Scene) -> None:
    """While others are taken, a documented 503 waits its fifteen minutes, and nothing stops."""
    phones = scene.add_phones(120)
    for phone in phones[::2]:
        scene.twin.add_fault("answer", token=phone.token, reason="ServiceUnavailable", count=9)

    async def scenario() -> None:
        async with scene.running() as engine:
            sent = await scene.accept(engine, [phone.mail for phone in phones])
            await scene.until(engine, lambda: scene.states(sent) == {"sent": 60, "held": 60})
            held = [one for one in scene.deliveries(sent) if one.state == "held"]
            assert {one.reason for one in held} == {"ServiceUnavailable"}
            assert all((one.due_at or 0) / 1000 > scene.clock() + 14 * 60 for one in held)
            assert _outage(scene) is None

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_proxys_error_among_many_is_tried_again_within_seconds(scene: Scene, status: int) -> None:
    """A server error without a reason of Apple's is no reason to wait for a quarter of an hour."""
    phones = scene.add_phones(10)
    scene.twin.add_fault("answer", token=phones[3].token, status=status)

    async def scenario() -> None:
        async with scene.running() as engine:
            sent = await scene.accept(engine, [phone.mail for phone in phones])
            await scene.until(engine, lambda: scene.states(sent) == {"sent": 9, "held": 1})
            scene.clock.move(8)
            await scene.until(engine, lambda: scene.states(sent) == {"sent": 10})

    asyncio.run(scenario())


def test_an_outage_of_one_environment_stops_no_other(scene: Scene) -> None:
    """What lives in development goes out while production is down, also of the same broadcast."""
    scene.add_phones(20)
    scene.add_phones(20, first=20, side="development")
    scene.twin.add_fault("answer", side="production", status=503, count=ALWAYS)

    async def scenario() -> None:
        async with scene.running() as engine:
            mails = [f"user{one}@example.com" for one in range(40)]
            sent = await scene.accept(engine, mails)
            await scene.until(engine, lambda: scene.states(sent) == {"sent": 20, "held": 20})
            again = await scene.accept(engine, mails[15:25])
            await scene.until(engine, lambda: scene.states(again) == {"sent": 5, "held": 5})

    asyncio.run(scenario())


def test_what_expires_during_an_outage_is_not_sent_after_it(scene: Scene) -> None:
    """An outage holds nothing beyond its time, and gives up nothing before it."""
    phones = scene.add_phones(20)
    scene.twin.add_fault("answer", reason="ServiceUnavailable", count=ALWAYS)

    async def scenario() -> None:
        async with scene.running() as engine:
            mails = [phone.mail for phone in phones]
            short = await scene.accept(engine, mails, ttl=600)
            await scene.until(engine, lambda: scene.states(short) == {"held": 20})
            lasting = await scene.accept(engine, mails[:1])
            scene.clock.move(700)
            await scene.until(engine, lambda: scene.states(short) == {"expired": 20})
            scene.twin.clear_faults()
            await _probe(scene, engine, lambda: scene.states(lasting) == {"sent": 1})

    asyncio.run(scenario())
    assert scene.twin.accepted == 1


def test_a_closed_port_is_what_the_test_takes_it_for() -> None:
    """A port that was just closed refuses, so the gate's tests test what they say."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1)
