"""The circuit of an app: what a refused key stops, how a probe heals it, and what waits for it."""

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise

import pytest
from tests.scene import Scene

from handbell.apps.app import App
from handbell.apps.sample_keys import make_key
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.engine import Acceptance, Engine

MAIL = "user0@example.com"
HOUR = 3600
EVERYBODY = {"everybody": True}


def test_a_refused_key_stops_the_app_and_heals_by_itself(scene: Scene) -> None:
    """A key that Apple refuses stops the app; once it is mended, everything goes out by itself."""
    phones = scene.add_phones(120)
    key = _revoke(scene)

    async def scenario() -> None:
        async with scene.running() as engine:
            acceptance = await scene.accept(engine, [phone.mail for phone in phones])
            await scene.until(engine, lambda: scene.states(acceptance) == {"held": 120})
            assert _stop(scene) == "InvalidProviderToken"
            assert 0 < len(scene.twin.requests) <= 50
            _allow(scene, key)
            scene.clock.move(80)
            await scene.until(engine, lambda: scene.twin.accepted >= 1)
            await scene.until(engine, lambda: _stop(scene) is None)
            scene.clock.move(5)
            await scene.until(engine, lambda: scene.states(acceptance) == {"sent": 120})

    asyncio.run(scenario())
    assert scene.statuses() == {"active": 120}


@pytest.mark.parametrize("others", [0, 2])
def test_an_open_circuit_lets_one_push_through_at_a_time(scene: Scene, others: int) -> None:
    """While the key stays refused, each probe costs one push of all workers, later each time."""
    phones = scene.add_phones(60 + 40 * others)
    _revoke(scene)

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            systems = [scene.system, *(scene.another() for _ in range(others))]
            engines = [await stack.enter_async_context(scene.running(system)) for system in systems]
            engine = engines[0]
            for each in engines:
                each.worker.app_states.window = 100  # so that each takes a part of what is due
            acceptance = await scene.accept(engine, [phone.mail for phone in phones])
            await scene.until(engine, lambda: scene.states(acceptance) == {"held": len(phones)})
            probes = [_probe_at(scene)]
            scene.twin.add_fault("slow", seconds=0.3, count=1000)
            waking = asyncio.create_task(_keep_awake(engines))
            stack.callback(waking.cancel)
            for _ in range(3):
                before = len(scene.twin.requests)
                scene.clock.move(probes[-1] - scene.clock() + 0.01)
                await scene.until(engine, partial(_is_later, scene, probes[-1]))
                await asyncio.sleep(0.1)
                assert len(scene.twin.requests) == before + 1
                probes.append(_probe_at(scene))
        waits = [later - earlier for earlier, later in pairwise(probes)]
        assert 120 <= waits[0] <= 160
        assert 240 <= waits[1] <= 310
        assert 480 <= waits[2] <= 610

    asyncio.run(scenario())
    assert scene.statuses() == {"active": len(phones)}


@pytest.mark.databases
def test_an_open_circuit_outlives_a_restart(scene: Scene) -> None:
    """The next process knows that the app is stopped, and does not try before it is time."""
    phones = scene.add_phones(30)
    key = _revoke(scene)

    async def scenario() -> None:
        async with scene.running() as engine:
            acceptance = await scene.accept(engine, [phone.mail for phone in phones])
            await scene.until(engine, lambda: _stop(scene) is not None)
        before = len(scene.twin.requests)
        async with scene.running(scene.another()) as engine:
            later = await scene.accept(engine, MAIL)
            await scene.until(engine, lambda: scene.states(later) == {"held": 1})
            assert len(scene.twin.requests) == before
            assert scene.deliveries(later)[0].reason == "CircuitOpen"
            _allow(scene, key)
            scene.clock.move(80)
            await scene.until(engine, lambda: _stop(scene) is None)
            scene.clock.move(5)
            await scene.until(engine, lambda: scene.states(later) == {"sent": 1})
            await scene.until(engine, lambda: scene.states(acceptance) == {"sent": 30})

    asyncio.run(scenario())


def test_a_stopped_broadcast_returns_to_its_caller_and_goes_on_by_itself(scene: Scene) -> None:
    """A send to all of a stopped app says so at once; mended, it reaches everybody."""
    scene.add_phones_at_once(200)
    key = _revoke(scene)

    async def scenario() -> None:
        async with scene.running() as engine:
            response = await asyncio.wait_for(scene.send(engine, EVERYBODY), 5)
            assert not response.success
            assert "InvalidProviderToken" in response.errors[0]
            _allow(scene, key)
            scene.clock.move(80)
            await scene.until(engine, lambda: _stop(scene) is None)
            scene.clock.move(5)
            await scene.until(engine, lambda: scene.states(response) == {"sent": 200})

    asyncio.run(scenario())
    assert scene.statuses() == {"active": 200}


@pytest.mark.parametrize("ending", ["BadDeviceToken", "Unregistered", "BadMessageId"])
def test_a_probe_that_meets_a_bad_token_does_not_keep_the_app_stopped(
    scene: Scene, ending: str
) -> None:
    """One bad token, first in line, is not every probe: the next one is another's."""
    phones = scene.add_phones(40)
    key = _revoke(scene)

    async def scenario() -> None:
        async with scene.running() as engine:
            acceptance = await scene.accept(engine, [phone.mail for phone in phones])
            await scene.until(engine, lambda: scene.states(acceptance) == {"held": 40})
            _allow(scene, key)
            scene.twin.add_fault("answer", token=phones[0].token, reason=ending, count=20)
            for _ in range(3):
                scene.clock.move(max(_probe_at(scene) - scene.clock(), 0) + 1)
                await asyncio.sleep(0.3)
                engine.worker.wake()
                await asyncio.sleep(0.3)
                if _stop(scene) is None:
                    break
            scene.clock.move(5)
            await scene.until(engine, lambda: scene.states(acceptance)["sent"] == 39)

    asyncio.run(scenario())


def test_the_circuit_of_one_app_is_not_anothers(scene: Scene) -> None:
    """While one app is stopped, another one of the same database sends."""
    scene.add_phones(30)
    _revoke(scene)
    second = scene.second_app()

    async def scenario() -> None:
        async with scene.running() as engine:
            stopped = await scene.accept(engine, EVERYBODY)
            await scene.until(engine, lambda: _stop(scene) is not None)
            response = await second.send(engine, "second@example.com")
            assert response.success
            assert scene.states(stopped)["sent"] == 0

    asyncio.run(scenario())


def test_the_circuit_of_an_app_outside_the_registry_stays_open(scene: Scene) -> None:
    """A sender with a key of its own does not run into the refusal again every few seconds."""
    app = App(team_id="TEAM777777", bundle_id="com.sample.unknown")
    key = make_key(app.apple.team_id)  # which the twin does not know
    tokens = [f"{number:064x}" for number in range(60)]

    async def scenario() -> None:
        async with scene.running() as engine:
            acceptance, _ = await engine.accept(
                app, _notification(), Recipients.read(tokens), key=key
            )
            await scene.until(engine, lambda: scene.states(acceptance) == {"held": 60})
            before = len(scene.twin.requests)
            for _ in range(3):
                scene.clock.move(6)
                later, _ = await engine.accept(
                    app, _notification(), Recipients.read(tokens[:1]), key=key
                )
                await scene.until(engine, partial(scene.states, later))
                await engine.worker.settled(later.row)
                assert scene.deliveries(later)[0].reason == "CircuitOpen"
            assert len(scene.twin.requests) == before

    asyncio.run(scenario())


@pytest.mark.parametrize("is_broadcast", [False, True])
def test_what_waits_for_an_open_circuit_ends_after_a_day(
    scene: Scene,
    is_broadcast: bool,  # noqa: FBT001
) -> None:
    """Nobody gets the news of the day before yesterday because the key was mended only today."""
    phones = scene.add_phones(60)
    key = _revoke(scene)

    async def scenario() -> None:
        async with scene.running() as engine:
            to = EVERYBODY if is_broadcast else [phone.mail for phone in phones]
            acceptance = await scene.accept(engine, to)
            await scene.until(engine, lambda: _stop(scene) is not None)
            scene.clock.move(23 * HOUR)
            engine.worker.wake()
            await asyncio.sleep(0.3)
            assert scene.states(acceptance)["held"] > 0
            scene.clock.move(HOUR + 1)
            await scene.until(engine, lambda: scene.states(acceptance) == {"failed": 60})
            _allow(scene, key)
            scene.clock.move(HOUR)
            engine.worker.wake()
            await asyncio.sleep(0.2)

    asyncio.run(scenario())
    assert scene.twin.accepted == 0
    assert scene.statuses() == {"active": 60}


def test_a_long_hold_leaves_the_retries_their_day(scene: Scene) -> None:
    """A delivery that quiet hours held almost for a day is still tried again after a 503."""
    (phone,) = scene.add_phones(1)
    scene.twin.add_fault("answer", token=phone.token, reason="ServiceUnavailable", count=2)
    now = datetime.fromtimestamp(scene.clock(), UTC)
    start, end = now + timedelta(minutes=10), now + timedelta(hours=23, minutes=50)

    async def scenario() -> None:
        async with scene.running() as engine:
            acceptance = await scene.accept(engine, MAIL)
            await scene.until(engine, lambda: _attempts(scene, acceptance) == 1)
            scene.set_rules(quiet_hours=f"{start:%H:%M}-{end:%H:%M}")
            scene.clock.move(20 * 60)
            await scene.until(engine, lambda: _reason(scene, acceptance) == "QuietHours")
            scene.clock.move(end.timestamp() - scene.clock() + 1)
            await scene.until(engine, lambda: _attempts(scene, acceptance) == 2)
            assert scene.states(acceptance) == {"held": 1}
            scene.set_rules(quiet_hours=None)
            scene.clock.move(40 * 60)
            await scene.until(engine, lambda: scene.states(acceptance) == {"sent": 1})

    asyncio.run(scenario())


def _attempts(scene: Scene, acceptance: Acceptance) -> int:
    (delivery,) = scene.deliveries(acceptance)
    return 0 if delivery.state == "sending" else delivery.attempts


def _reason(scene: Scene, acceptance: Acceptance) -> str | None:
    (delivery,) = scene.deliveries(acceptance)
    return delivery.reason


def _notification(title: str = "Hello") -> Notification:
    return Notification(title=title)


def _revoke(scene: Scene) -> str:
    """Make the twin refuse the app's key; return the key's id."""
    (stored,) = scene.system.apps.credentials(scene.app)
    scene.twin.remove_key(scene.app.apple.team_id, stored.key_id)
    return stored.key_id


def _allow(scene: Scene, key_id: str) -> None:
    key = scene.system.apps.auth_key(scene.app.apple.team_id, key_id)
    assert key is not None
    scene.twin.add_key(key.team_id, key.key_id, key.public_key_pem)


def _stop(scene: Scene) -> str | None:
    stop = scene.system.rules_store.rules_of(scene.app.id).stop
    return None if stop is None else stop.reason


async def _keep_awake(engines: list[Engine]) -> None:
    while True:
        for engine in engines:
            engine.worker.wake()
        await asyncio.sleep(0.02)


def _probe_at(scene: Scene) -> float:
    stop = scene.system.rules_store.rules_of(scene.app.id).stop
    return 0.0 if stop is None else stop.probe_at


def _is_later(scene: Scene, probe_at: float) -> bool:
    return _probe_at(scene) > probe_at
