"""What lets a push go, wait or end: times, rules, and urgency."""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tests.scene import Scene, open_scene

MAIL = "user0@example.com"
HOUR = 3600
EVERYBODY = {"everybody": True}


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


def _waits(scene: Scene, sent: Any) -> list[tuple[str | None, float]]:
    """Return why and until when what was sent waits, as rows or in shards."""
    rows = [(one.reason, (one.due_at or 0) / 1000) for one in scene.deliveries(sent)]
    shards = scene.system.ledger.waits(sent.notification_id)
    assert len(shards) == len([one for one in sent.warnings if "wait" in one and not rows])
    return rows + [(one.reason, one.due_at / 1000) for one in shards]
