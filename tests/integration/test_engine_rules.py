"""What lets a push go, wait or end: the circuit, times, rules, urgency, cancel and replace."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tests.scene import Scene, open_scene

from handbell.apps.app import App
from handbell.apps.sample_keys import make_key
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.engine import Acceptance, Engine
from handbell.errors import NotificationError

MAIL = "user0@example.com"
EVERYBODY = {"everybody": True}
HOUR = 3600


@pytest.fixture
def scene(tmp_path: Path, database_url: str) -> Iterator[Scene]:
    """Give a system with an app, its key, and a twin that knows the key."""
    with open_scene(tmp_path, database_url) as scene:
        yield scene


# The circuit


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


# Times


@pytest.mark.parametrize("to", [[MAIL, "user1@example.com"], EVERYBODY])
def test_a_send_for_later_returns_at_once_and_goes_at_its_time(scene: Scene, to: object) -> None:
    """Nothing goes before the instant; the caller does not wait for it."""
    scene.add_phones(2)

    async def scenario() -> None:
        async with scene.running() as engine:
            at = scene.clock() + HOUR
            response = await asyncio.wait_for(scene.send(engine, to, {"send_at": at}), 5)
            assert response.errors == ()
            scene.clock.move(HOUR - 5)
            engine.worker.wake()
            await asyncio.sleep(0.1)
            assert scene.twin.accepted == 0
            scene.clock.move(6)
            await scene.until(engine, lambda: scene.states(response) == {"sent": 2})

    asyncio.run(scenario())


@pytest.mark.databases
@pytest.mark.parametrize("to", [[MAIL, "user1@example.com", "user2@example.com"], EVERYBODY])
def test_a_local_time_comes_in_each_zone_at_its_own_moment(scene: Scene, to: object) -> None:
    """Six hours lie between Tokyo and Karachi or so: each gets it when their own clock says."""
    zones = ["Asia/Tokyo", "Europe/Paris", "America/New_York"]
    phones = [scene.add_phones(1, zone=zone, first=place)[0] for place, zone in enumerate(zones)]
    wall = (datetime.now(UTC) + timedelta(days=3)).replace(tzinfo=None, microsecond=0)
    moments = [wall.replace(tzinfo=ZoneInfo(zone)).timestamp() for zone in zones]

    async def scenario() -> None:
        async with scene.running() as engine:
            how = {"send_at": wall.isoformat()}
            response = await asyncio.wait_for(scene.send(engine, to, how), 5)
            assert {reason for reason, _ in _waits(scene, response)} == {"Scheduled"}
            assert min(at for _, at in _waits(scene, response)) == moments[0]
            for number, moment in enumerate(moments):
                scene.clock.move(moment - 2 - scene.clock())
                engine.worker.wake()
                await asyncio.sleep(0.1)
                assert [bool(scene.accepted(phone)) for phone in phones].count(True) == number
                scene.clock.move(3)
                await scene.until(engine, partial(scene.accepted, phones[number]))

    asyncio.run(scenario())


@pytest.mark.databases
@pytest.mark.parametrize("to", [MAIL, EVERYBODY])
def test_quiet_hours_hold_until_they_end_and_the_ledger_says_so(scene: Scene, to: object) -> None:
    """What is written at night waits for the morning; what cannot wait goes through."""
    scene.add_phones(1, zone="Europe/Paris")
    local = datetime.fromtimestamp(scene.clock(), ZoneInfo("Europe/Paris"))
    end = local.replace(second=0, microsecond=0) + timedelta(minutes=90)
    start = local - timedelta(minutes=30)
    scene.set_rules(quiet_hours=f"{start:%H:%M}-{end:%H:%M}")

    async def scenario() -> None:
        async with scene.running() as engine:
            response = await scene.send(engine, to)
            assert _waits(scene, response) == [("QuietHours", end.timestamp())]
            assert response.errors == ()
            loud = await scene.send(engine, to, interruption_level="time-sensitive")
            assert loud.success
            scene.clock.move(end.timestamp() - scene.clock() + 1)
            await scene.until(engine, lambda: scene.states(response) == {"sent": 1})

    asyncio.run(scenario())


@pytest.mark.databases
@pytest.mark.parametrize("to", [MAIL, EVERYBODY])
def test_what_is_over_a_cap_is_cancelled_as_capped(scene: Scene, to: object) -> None:
    """A person gets so many a day; the next is recorded as capped, the day after it goes."""
    scene.add_phones(1)
    scene.set_rules(cap="2/day")

    async def scenario() -> None:
        async with scene.running() as engine:
            sent = [await scene.send(engine, to) for _ in range(3)]
            states = [scene.states(response) for response in sent]
            assert states == [{"sent": 1}, {"sent": 1}, {"cancelled": 1}]
            assert scene.deliveries(sent[2])[0].reason == "Capped"
            assert sent[2].errors == ()
            scene.clock.move(25 * HOUR)
            assert (await scene.send(engine, to)).success

    asyncio.run(scenario())
    assert scene.twin.accepted == 3


@pytest.mark.parametrize("urgencies", [("bulk", "bulk"), ("normal", "urgent"), ("bulk", "urgent")])
def test_a_cap_holds_for_what_was_accepted_at_the_same_moment(
    scene: Scene, urgencies: tuple[str, str]
) -> None:
    """Of two broadcasts that run at once, each person gets one, also while no end is written."""
    phones = scene.add_phones(60)
    scene.set_rules(cap="1/day")
    scene.twin.add_fault("slow", seconds=0.6, count=120)

    async def scenario() -> None:
        async with scene.running() as engine:
            accepted = await asyncio.gather(
                *(scene.accept(engine, EVERYBODY, {"urgency": one}) for one in urgencies)
            )
            both = {"sent": 60, "cancelled": 60}
            await scene.until(
                engine, lambda: scene.states(accepted[0]) + scene.states(accepted[1]) == both
            )
            capped = [one for send in accepted for one in scene.deliveries(send) if not one.sent_at]
            assert {one.reason for one in capped} == {"Capped"}
            assert not engine.worker.app_states.of(scene.app).cap_in_flight

    asyncio.run(scenario())
    assert [sum(scene.accepted(phone).values()) for phone in phones] == [1] * 60


@pytest.mark.databases
def test_a_cap_holds_between_a_broadcast_and_a_person(scene: Scene) -> None:
    """While a broadcast is on its way to somebody, what names them counts it, and it that."""
    (phone,) = scene.add_phones(1)
    scene.set_rules(cap="1/day")
    scene.twin.add_fault("slow", seconds=0.6, count=2)

    async def scenario() -> None:
        async with scene.running() as engine:
            broadcast = await scene.accept(engine, EVERYBODY)
            await scene.until(None, lambda: scene.twin.requests)
            named = await scene.accept(engine, MAIL, {"urgency": "urgent"})
            await scene.until(engine, lambda: scene.states(named) == {"cancelled": 1})
            await scene.until(engine, lambda: scene.states(broadcast) == {"sent": 1})

    asyncio.run(scenario())
    assert sum(scene.accepted(phone).values()) == 1


@pytest.mark.parametrize(
    "content",
    [
        {"interruption_level": "time-sensitive"},
        {"title": None, "silent": True, "user_info": {"refresh": 1}},
    ],
    ids=["time-sensitive", "background"],
)
def test_what_a_cap_does_not_count_leaves_it_untouched(
    scene: Scene, content: dict[str, Any]
) -> None:
    """Pushes that show nothing, or that cannot wait, use up nothing of a person's cap."""
    scene.add_phones(1)
    scene.set_rules(cap="1/day")

    async def scenario() -> None:
        async with scene.running() as engine:
            for _ in range(3):
                assert (await scene.send(engine, MAIL, **content)).success
            assert (await scene.send(engine, MAIL)).success
            assert scene.states(await scene.send(engine, MAIL)) == {"cancelled": 1}
            assert (await scene.send(engine, MAIL, **content)).success

    asyncio.run(scenario())


@pytest.mark.databases
def test_of_two_that_waited_for_the_morning_the_cap_lets_the_first_through(scene: Scene) -> None:
    """Two held notifications that fall due together do not cap each other: one arrives."""
    scene.add_phones(1)
    now = datetime.fromtimestamp(scene.clock(), UTC)
    end = now + timedelta(minutes=30)
    scene.set_rules(cap="1/day", quiet_hours=f"{now - timedelta(hours=1):%H:%M}-{end:%H:%M}")

    async def scenario() -> None:
        async with scene.running() as engine:
            first, second = [await scene.send(engine, MAIL) for _ in range(2)]
            assert scene.states(second) == {"held": 1}
            scene.clock.move(31 * 60)
            ended = {"sent": 1, "cancelled": 1}
            await scene.until(engine, lambda: scene.states(first) + scene.states(second) == ended)

    asyncio.run(scenario())
    assert scene.twin.accepted == 1


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("is_broadcast", [False, True])
def test_a_rate_limit_is_kept(scene: Scene, is_broadcast: bool) -> None:  # noqa: FBT001
    """Over any stretch of the clock no more goes out than the rate and the burst allow."""
    phones = scene.add_phones(40)
    scene.set_rules(rate_limit="60/minute burst 5")

    async def scenario() -> None:
        async with scene.running() as engine:
            began = scene.clock()
            to = EVERYBODY if is_broadcast else [phone.mail for phone in phones]
            acceptance = await scene.accept(engine, to)
            while scene.states(acceptance)["sent"] < 40:
                allowed = 5 + (scene.clock() - began)
                engine.worker.wake()
                await asyncio.sleep(0.05)
                assert scene.twin.accepted <= allowed + 1
                scene.clock.move(1.5)
                assert scene.clock() - began < 120
            assert scene.clock() - began >= 34

    asyncio.run(scenario())


@pytest.mark.databases
def test_a_disabled_app_holds_and_goes_on_when_enabled(scene: Scene) -> None:
    """Nothing is sent for an app that is switched off, and nothing of it is lost."""
    scene.add_phones(3)
    scene.system.apps.set_enabled(scene.app, False)

    async def scenario() -> None:
        async with scene.running() as engine:
            named = await scene.send(engine, MAIL)
            everybody = await asyncio.wait_for(scene.send(engine, EVERYBODY), 5)
            assert scene.deliveries(named)[0].reason == "AppDisabled"
            assert scene.twin.accepted == 0
            assert named.errors
            scene.system.apps.set_enabled(scene.app, True)
            scene.clock.move(16 * 60)
            await scene.until(engine, lambda: scene.states(named) == {"sent": 1})
            await scene.until(engine, lambda: scene.states(everybody) == {"sent": 3})

    asyncio.run(scenario())


# Who goes first, and what is taken back


@pytest.mark.databases
def test_an_urgent_push_overtakes_a_broadcast(scene: Scene) -> None:
    """An urgent send from another process does not wait for the broadcast in progress."""
    number = 4000
    phones = scene.add_phones_at_once(number)
    last = phones[-1]

    async def scenario() -> None:
        async with scene.running() as engine:
            engine.worker.app_states.window = 1500
            broadcast = await scene.accept(engine, EVERYBODY)
            await scene.until(None, lambda: scene.twin.accepted > 500)
            urgent = await scene.accept(scene.another().engine, last.mail, {"urgency": "urgent"})
            await scene.until(None, lambda: scene.states(urgent) == {"sent": 1})
            assert scene.states(broadcast)["sent"] < number
            await scene.until(None, lambda: scene.states(broadcast) == {"sent": number}, 30)

    asyncio.run(scenario())


def test_a_silent_app_delays_no_other(tmp_path: Path) -> None:
    """While thousands of one app's pushes get no answer, another app's go out at once."""
    with open_scene(tmp_path, request_timeout=6) as scene:
        scene.add_phones_at_once(4000)
        second = scene.second_app()
        # On the twin's other side, which goes on answering.
        phone = scene.twin.add_phone(mail=MAIL, app=second.app.id, side="development")
        second.register(MAIL, phone.token, side="development")

        async def scenario() -> None:
            async with scene.running() as engine:
                engine.worker.app_states.window = 2400
                broadcast = await scene.accept(engine, EVERYBODY)
                await scene.until(None, lambda: scene.twin.accepted > 200)
                silence = scene.twin.add_fault("silence", count=100_000, side="production")
                await scene.until(None, lambda: engine.worker.app_states.in_flight > 1000)
                assert (await second.send(engine, MAIL)).success
                assert (await second.send(engine, MAIL, {"urgency": "bulk"})).success
                # Not one of the silent app's pushes was given up meanwhile.
                assert set(scene.states(broadcast)) <= {"sent"}
                assert engine.worker.app_states.in_flight > 1000
                scene.twin.remove_fault(silence.id)
                await engine.cancel(scene.app, broadcast.id)

        asyncio.run(scenario())


def test_a_first_batch_without_an_answer_does_not_hold_the_rest(tmp_path: Path) -> None:
    """Once the first fifty were given up on, the others have their turn, and do not block."""
    with open_scene(tmp_path, request_timeout=1) as scene:
        phones = scene.add_phones(120)
        scene.twin.add_fault("silence", count=50)

        async def scenario() -> None:
            async with scene.running() as engine:
                acceptance = await scene.accept(engine, [phone.mail for phone in phones])
                on_its_way = {"queued", "sending"}
                await scene.until(None, lambda: not on_its_way & {*scene.states(acceptance)})
                assert sum(scene.states(acceptance).values()) == 120
                await engine.cancel(scene.app, acceptance.id)

        asyncio.run(scenario())


@pytest.mark.databases
def test_cancel_in_the_middle_of_a_broadcast_catches_the_rest(scene: Scene) -> None:
    """Cancel says how many it caught: exactly those that nothing was sent to."""
    number = 4500
    phones = scene.add_phones_at_once(number)

    async def scenario() -> None:
        async with scene.running() as engine:
            engine.worker.app_states.window = 1500
            acceptance = await scene.accept(engine, EVERYBODY)
            await scene.until(None, lambda: scene.twin.accepted > 300)
            caught = await engine.cancel(scene.app, acceptance.id)
            await engine.worker.settled(acceptance.row)
            await scene.until(None, lambda: engine.worker.app_states.in_flight == 0)
            reached = sum(bool(scene.accepted(phone)) for phone in phones)
            states = scene.states(acceptance)
            assert 0 < caught < number
            # Only what was sent has a row. On a busy machine some may get no answer.
            assert caught == number - states.total()
            assert states["sent"] <= reached <= states.total()

    asyncio.run(scenario())


@pytest.mark.databases
def test_cancel_does_not_claim_what_may_have_arrived(tmp_path: Path, database_url: str) -> None:
    """Who was sent a push without an answer is sent no other, is not counted, and hears of more."""
    with open_scene(tmp_path, database_url, request_timeout=0.5) as scene:
        (first, answered, refused) = scene.add_phones(3)
        scene.twin.add_fault("silence", token=first.token, delivers=True, count=1)
        scene.twin.add_fault("answer", token=refused.token, reason="ServiceUnavailable", count=1)

        async def scenario() -> None:
            async with scene.running() as engine:
                response = await scene.send(engine, EVERYBODY, collapse_id="score")
                assert scene.states(response) == {"sent": 1, "held": 2}
                content = _notification(title="Corrected")
                second = await engine.replace(scene.app, response.notification_id or "", content)
                assert (second.reached, second.total) == (2, 2)
                details = {one.mail: one.detail for one in scene.deliveries(response)}
                assert "may have arrived" in (details[first.mail] or "")
                assert details[refused.mail] is None

        asyncio.run(scenario())
        shown = [
            [card.title for card in scene.twin.phone(one.id).cards] for one in (first, answered)
        ]
        assert shown == [["Corrected"], ["Corrected"]]
        assert not scene.twin.phone(refused.id).cards


@pytest.mark.databases
def test_cancel_counts_what_was_not_tried(tmp_path: Path, database_url: str) -> None:
    """Of what is held, only what certainly did not arrive was caught."""
    with open_scene(tmp_path, database_url, request_timeout=0.5) as scene:
        unanswered, refused = scene.add_phones(2)
        scene.twin.add_fault("silence", token=unanswered.token, delivers=True)
        scene.twin.add_fault("answer", token=refused.token, reason="ServiceUnavailable")

        async def scenario() -> None:
            async with scene.running() as engine:
                mails = [unanswered.mail, refused.mail]
                response = await scene.send(engine, mails)
                assert scene.states(response) == {"held": 2}
                assert await engine.cancel(scene.app, response.notification_id or "") == 1
                assert scene.states(response) == {"cancelled": 2}

        asyncio.run(scenario())


@pytest.mark.databases
def test_what_gets_no_answer_after_a_cancel_is_not_sent_again(
    tmp_path: Path, database_url: str
) -> None:
    """Its retry ends as cancelled, and says that it may have arrived."""
    with open_scene(tmp_path, database_url, request_timeout=0.5) as scene:
        (phone,) = scene.add_phones(1)
        scene.twin.add_fault("silence", token=phone.token, delivers=True)

        async def scenario() -> None:
            async with scene.running() as engine:
                acceptance = await scene.accept(engine, phone.mail)
                await scene.until(None, lambda: scene.accepted(phone))
                assert await engine.cancel(scene.app, acceptance.id) == 0
                await engine.worker.settled(acceptance.row)
                assert scene.states(acceptance) == {"held": 1}
                scene.clock.move(HOUR)
                await scene.until(engine, lambda: scene.states(acceptance)["cancelled"])
                (delivery,) = scene.deliveries(acceptance)
                assert "may have arrived" in (delivery.detail or "")

        asyncio.run(scenario())
        assert [*scene.accepted(phone).values()] == [1]


@pytest.mark.databases
def test_cancel_catches_what_is_held(scene: Scene) -> None:
    """What waits for its time is cancelled, what was sent is not."""
    phones = scene.add_phones(3)
    scene.twin.add_fault("answer", token=phones[1].token, reason="ServiceUnavailable")

    async def scenario() -> None:
        async with scene.running() as engine:
            response = await scene.send(engine, [phone.mail for phone in phones])
            assert await engine.cancel(scene.app, response.notification_id or "") == 1
            assert await engine.cancel(scene.app, response.notification_id or "") == 0
            scene.clock.move(HOUR)
            engine.worker.wake()
            await asyncio.sleep(0.1)
            assert scene.states(response) == {"sent": 2, "cancelled": 1}

    asyncio.run(scenario())


@pytest.mark.databases
def test_cancel_of_a_scheduled_broadcast_catches_everybody(scene: Scene) -> None:
    """A broadcast that has not begun is caught as a whole."""
    scene.add_phones_at_once(50)

    async def scenario() -> None:
        async with scene.running() as engine:
            acceptance = await scene.accept(engine, EVERYBODY, {"send_at": scene.clock() + HOUR})
            assert await engine.cancel(scene.app, acceptance.id) == 50
            scene.clock.move(2 * HOUR)
            engine.worker.wake()
            await asyncio.sleep(0.1)

    asyncio.run(scenario())
    assert scene.twin.accepted == 0


@pytest.mark.databases
def test_replace_goes_to_those_who_got_the_first(scene: Scene) -> None:
    """The new content takes the place of the old on the phones that show it, and on no other."""
    phones = scene.add_phones(4)
    scene.twin.add_fault("answer", token=phones[3].token, reason="ServiceUnavailable")

    async def scenario() -> None:
        async with scene.running() as engine:
            first = await scene.send(
                engine, [phone.mail for phone in phones[1:]], collapse_id="score"
            )
            assert scene.states(first) == {"sent": 2, "held": 1}
            content = _notification(title="Corrected")
            second = await engine.replace(scene.app, first.notification_id or "", content)
            assert (second.reached, second.total) == (2, 2)
            assert scene.states(first) == {"sent": 2, "cancelled": 1}

    asyncio.run(scenario())
    shown = [[card.title for card in scene.twin.phone(phone.id).cards] for phone in phones]
    assert shown == [[], ["Corrected"], ["Corrected"], []]


@pytest.mark.databases
def test_replace_reaches_those_who_were_about_to_get_the_first(scene: Scene) -> None:
    """A push that was on its way when its notification was replaced is followed by the new one."""
    phones = scene.add_phones(20)
    scene.twin.add_fault("slow", seconds=0.5, count=20)

    async def scenario() -> None:
        async with scene.running() as engine:
            first = await scene.accept(engine, EVERYBODY, collapse_id="score")
            await scene.until(None, lambda: scene.twin.accepted > 0)
            await engine.replace(scene.app, first.id, _notification(title="Corrected"))

    asyncio.run(scenario())
    for phone in phones:
        titles = [card.title for card in scene.twin.phone(phone.id).cards]
        assert titles in ([], ["Corrected"])


@pytest.mark.databases
def test_replace_reaches_bare_device_tokens(scene: Scene) -> None:
    """Tokens without a session that got the first get the new content; no others."""
    phones = [scene.twin.add_phone(mail=None, app=scene.app.id) for _ in range(3)]
    scene.twin.add_fault("answer", token=phones[2].token, reason="ServiceUnavailable")

    async def scenario() -> None:
        async with scene.running() as engine:
            tokens = [phone.token for phone in phones[1:]]
            first = await scene.send(engine, tokens, collapse_id="score")
            content = _notification(title="Corrected")
            second = await engine.replace(scene.app, first.notification_id or "", content)
            assert (second.reached, second.total) == (1, 1)

    asyncio.run(scenario())
    shown = [[card.title for card in scene.twin.phone(phone.id).cards] for phone in phones]
    assert shown == [[], ["Corrected"], []]


def test_what_has_no_collapse_id_cannot_be_replaced(scene: Scene) -> None:
    """Replacing what the phone would show twice is an error, and nothing is sent."""
    scene.add_phones(1)

    async def scenario() -> None:
        async with scene.running() as engine:
            first = await scene.send(engine, MAIL)
            with pytest.raises(NotificationError, match="collapse"):
                await engine.replace(scene.app, first.notification_id or "", _notification())

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


def _waits(scene: Scene, sent: Any) -> list[tuple[str | None, float]]:
    """Return why and until when what was sent waits, as rows or in shards."""
    rows = [(one.reason, (one.due_at or 0) / 1000) for one in scene.deliveries(sent)]
    shards = scene.system.ledger.waits(sent.notification_id)
    assert len(shards) == len([one for one in sent.warnings if "wait" in one and not rows])
    return rows + [(one.reason, one.due_at / 1000) for one in shards]
