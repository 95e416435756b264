"""After a logout or an account switch nothing of the former user arrives."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scene import Scene, clocked, open_scene

from handbell.delivery.delivery import Delivery
from handbell.delivery.events import Event, SessionsReleased
from handbell.delivery.queue.workers import LEASE_SECONDS
from handbell.system import System

pytestmark = pytest.mark.databases

MAIL = "user0@example.com"
EVERYBODY = {"everybody": True}
HOUR = 3600


@pytest.fixture
def scene(tmp_path: Path, database_url: str) -> Iterator[Scene]:
    """Give a system with an app, its key, and a twin that knows the key."""
    with open_scene(tmp_path, database_url, request_timeout=30) as scene:
        yield scene


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda scene, session: scene.system.registry.close(session, "logout"), "SessionClosed"),
        (
            lambda scene, session: scene.system.registry.quarantine(session, reason="Refused"),
            "SessionQuarantined",
        ),
    ],
    ids=["closed", "quarantined"],
)
def test_what_was_held_is_not_sent_to_a_session_that_takes_nothing(
    scene: Scene, change: object, reason: str
) -> None:
    """A delivery that waited while its session was closed ends as cancelled, with the reason."""
    (phone,) = scene.add_phones(1)
    session = scene.system.registry.sessions_of(scene.app, MAIL)[0].id

    async def scenario() -> None:
        async with scene.running() as engine:
            later = await scene.accept(engine, MAIL, {"send_at": scene.clock() + HOUR})
            assert callable(change)
            change(scene, session)
            scene.clock.move(HOUR + 1)
            await scene.until(engine, lambda: scene.states(later) == {"cancelled": 1})
            assert _only(scene.deliveries(later)).reason == reason

    asyncio.run(scenario())
    assert not scene.accepted(phone)


def test_a_session_that_is_pending_again_gets_nothing_that_waited(scene: Scene) -> None:
    """Logged out and registered again without a proof: what was for before the logout is over."""
    (phone,) = scene.add_phones(1)
    session = scene.system.registry.sessions_of(scene.app, MAIL)[0].id

    async def scenario() -> None:
        async with scene.running() as engine:
            later = await scene.accept(engine, MAIL, {"send_at": scene.clock() + HOUR})
            scene.system.registry.close(session, "logout")
            scene.system.registry.register(scene.app, MAIL, phone.token, status="pending")
            scene.clock.move(HOUR + 1)
            await scene.until(engine, lambda: scene.states(later) == {"cancelled": 1})
            assert _only(scene.deliveries(later)).reason == "SessionPending"

    asyncio.run(scenario())
    assert not scene.accepted(phone)


@pytest.mark.parametrize("is_broadcast", [False, True])
def test_a_release_stops_what_is_in_hand(
    scene: Scene,
    is_broadcast: bool,  # noqa: FBT001
) -> None:
    """Of a release during a send, what is not on the wire is cancelled, and nothing comes later."""
    phones = scene.add_phones(120)
    ids = {
        phone.token: scene.system.registry.sessions_of(scene.app, phone.mail or "")[0].id
        for phone in phones
    }
    # The first fifty are the proof of the configuration; the others are in hand until then.
    scene.twin.add_fault("slow", seconds=3, count=50)
    last = phones[60:]

    async def scenario() -> None:
        async with scene.running() as engine:
            to = EVERYBODY if is_broadcast else [phone.mail for phone in phones]
            acceptance = await scene.accept(engine, to)
            await scene.until(None, lambda: scene.twin.accepted > 0)
            for phone in last:
                scene.system.registry.close(ids[phone.token], "logout")
            await engine.release([ids[phone.token] for phone in last])
            there = sum(bool(scene.accepted(phone)) for phone in last)
            await engine.worker.settled(acceptance.row)
            assert sum(bool(scene.accepted(phone)) for phone in last) == there == 0
            rows = {one.session_id: one for one in scene.deliveries(acceptance)}
            assert scene.states(acceptance)["sent"] == 60
            if not is_broadcast:
                assert {rows[ids[phone.token]].reason for phone in last} == {"SessionClosed"}

    asyncio.run(scenario())
    assert len(scene.system.engine.worker.release_log) == 0


def test_a_release_returns_once_the_push_on_the_wire_has_ended(scene: Scene) -> None:
    """Whoever is told that the session is released will see nothing of it afterwards."""
    phones = scene.add_phones(2)
    session = scene.system.registry.sessions_of(scene.app, MAIL)[0].id
    scene.twin.add_fault("slow", seconds=0.5, token=phones[0].token)
    scene.twin.add_fault("slow", seconds=5, token=phones[1].token)

    async def scenario() -> None:
        async with scene.running() as engine:
            loop = asyncio.get_running_loop()
            began = loop.time()
            acceptance = await scene.accept(engine, [phone.mail for phone in phones])
            await scene.until(None, lambda: all(scene.accepted(phone) for phone in phones))
            scene.system.registry.close(session, "logout")
            await engine.release([session])
            assert loop.time() - began > 0.4
            assert scene.states(acceptance)["sent"] < 2
            assert len(scene.accepted(phones[0])) == 1
            await engine.worker.settled(acceptance.row)
            assert scene.states(acceptance) == {"sent": 2}

    asyncio.run(scenario())


def test_a_session_that_came_back_is_served_again(scene: Scene) -> None:
    """A release concerns what was in hand, not the session for ever."""
    (phone,) = scene.add_phones(1)
    session = scene.system.registry.sessions_of(scene.app, MAIL)[0].id

    async def scenario() -> None:
        async with scene.running() as engine:
            scene.system.registry.close(session, "logout")
            await engine.release([session])
            scene.register(MAIL, phone.token)
            assert (await scene.send(engine, MAIL)).success
            assert (await scene.send(engine, EVERYBODY)).success

    asyncio.run(scenario())
    assert len(scene.accepted(phone)) == 2


def narrow(scene: Scene) -> System:
    """Return a system of its own with two requests on the wire, so that more wait in a gateway."""
    changes = {"connections": 1, "in_flight": 2}
    system = clocked(scene.task.settings().model_copy(update=changes), scene.clock)
    scene.opened.append(system)
    return system


def test_a_release_takes_back_what_waits_in_a_gateway(scene: Scene) -> None:
    """It waits for what is on the wire, and not for what would go there one after the other."""
    (phone,) = scene.add_phones(1)
    session = scene.system.registry.sessions_of(scene.app, MAIL)[0].id
    scene.twin.add_fault("slow", seconds=0.2, count=1000)

    async def scenario() -> None:
        async with scene.running(narrow(scene)) as engine:
            sends = [await scene.accept(engine, MAIL) for _ in range(40)]
            await scene.until(None, lambda: scene.twin.accepted > 4)
            scene.system.registry.close(session, "logout")
            await engine.release([session])
            there = len(scene.accepted(phone))
            for one in sends:
                await engine.worker.settled(one.row)
            assert len(scene.accepted(phone)) == there < 40
            ends = Counter(_only(scene.deliveries(one)).reason for one in sends)
            assert ends == {None: there, "SessionClosed": 40 - there}

    asyncio.run(scenario())


def test_whoever_asks_for_a_release_need_not_be_the_one_who_sends(scene: Scene) -> None:
    """A process that sends nothing is told when those that send have let go; so are the hooks."""
    (phone,) = scene.add_phones(1)
    session = scene.system.registry.sessions_of(scene.app, MAIL)[0].id
    scene.twin.add_fault("slow", seconds=0.2, count=1000)
    office, told = scene.another(), list[Event]()
    office.hooks.add(told.append)

    async def scenario() -> None:
        async with scene.running(narrow(scene)) as engine:
            sends = [await scene.accept(engine, MAIL) for _ in range(40)]
            await scene.until(None, lambda: scene.twin.accepted > 4)
            office.registry.close(session, "logout")
            await asyncio.gather(*(office.engine.release([session]) for _ in range(20)))
            there = len(scene.accepted(phone))
            for one in sends:
                await engine.worker.settled(one.row)
            assert len(scene.accepted(phone)) == there < 40

    asyncio.run(scenario())
    released = [one for one in told if isinstance(one, SessionsReleased)]
    assert [one.sessions for one in released] == [1] * 20
    assert all(one.waited > 0 for one in released)


@pytest.mark.databases("sqlite")
def test_a_worker_that_was_taken_for_dead_begins_nothing_of_what_it_had(scene: Scene) -> None:
    """What it had handed over and not sent is sent by whoever has it now, and not twice."""
    (phone,) = scene.add_phones(1)
    scene.twin.add_fault("slow", seconds=0.1, count=1000)
    system = narrow(scene)

    async def scenario() -> None:
        async with scene.running(system) as engine:
            former = engine.worker.id
            sends = [await scene.accept(engine, MAIL) for _ in range(40)]
            await scene.until(None, lambda: scene.twin.accepted > 4)
            scene.clock.move(LEASE_SECONDS + 1)
            assert scene.another().known_workers.reclaim() == 1
            await scene.until(
                engine, lambda: all(scene.states(one) == {"sent": 1} for one in sends)
            )
            assert engine.worker.id != former
            assert engine.worker.in_flight.faults(engine.worker.app_states.all()) == []

    asyncio.run(scenario())
    times = Counter(scene.accepted(phone).values())
    # Only what was on the wire when the lease ran out, or answered and not written, may go twice.
    assert times[2] <= 4
    assert sum(times.values()) == 40


def _only(deliveries: list[Delivery]) -> Delivery:
    (delivery,) = deliveries
    return delivery
