"""Refused tokens: one person stops nobody, a wrong set-up throws nothing away and is noticed."""

import asyncio
from typing import Any

import pytest
from tests.scene import Scene

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.engine import Engine
from handbell.delivery.policy.circuit import SEVERAL_PERSONS, CircuitStop

ALWAYS = 1_000_000
MALLORY = "mallory@example.com"
EVERYBODY = {"everybody": True}


def _stops(scene: Scene) -> tuple[CircuitStop, ...]:
    return scene.system.rules_store.rules_of(scene.app.id).stops


def _invent(scene: Scene, number: int = 100, *, side: str = "production") -> None:
    for one in range(number):
        scene.register(MALLORY, f"{one + 1:064x}", side=side)


async def _settle(scene: Scene, engine: Engine, to: object, **content: Any) -> dict[str, int]:
    response = await scene.send(engine, to, **content)
    return dict(scene.states(response))


# One person


@pytest.mark.parametrize("side", ["production", "development"])
@pytest.mark.parametrize("is_established", [False, True])
def test_one_user_with_a_hundred_invented_tokens_stops_nobody(
    scene: Scene,
    side: str,
    is_established: bool,  # noqa: FBT001
) -> None:
    """Whatever a person registers and sends to themselves, others are reached as before."""
    scene.add_phones(3)
    _invent(scene, side=side)

    async def scenario() -> None:
        async with scene.running() as engine:
            if is_established:
                assert await _settle(scene, engine, "user0@example.com") == {"sent": 1}
            for _ in range(2):
                await _settle(scene, engine, MALLORY)
                assert _stops(scene) == ()
            assert await _settle(scene, engine, "user1@example.com") == {"sent": 1}
            await _settle(scene, engine, EVERYBODY)
            assert await _settle(scene, engine, "user2@example.com") == {"sent": 1}

    asyncio.run(scenario())
    assert _stops(scene) == ()


def test_a_hundred_raw_tokens_of_a_back_end_stop_nobody(scene: Scene) -> None:
    """Tokens that no session holds count as one person together: the back end that gave them."""
    scene.add_phones(1)

    async def scenario() -> None:
        async with scene.running() as engine:
            for _ in range(2):
                tokens = [f"{one + 1:064x}" for one in range(100)]
                assert await _settle(scene, engine, tokens) == {"failed": 100}
            assert await _settle(scene, engine, "user0@example.com") == {"sent": 1}

    asyncio.run(scenario())
    assert _stops(scene) == ()


def test_tokens_of_another_app_stop_nobody(scene: Scene) -> None:
    """A person who registers real tokens of other apps is refused, and nobody else is."""
    scene.add_phones(2)
    other = "TEAM654321.com.sample.other"
    scene.twin.add_app(other, "Other")
    for _ in range(30):
        scene.register(MALLORY, scene.twin.add_phone(mail=None, app=other).token)

    async def scenario() -> None:
        async with scene.running() as engine:
            await _settle(scene, engine, MALLORY)
            assert await _settle(scene, engine, "user0@example.com") == {"sent": 1}
            await _settle(scene, engine, MALLORY)
            assert await _settle(scene, engine, "user1@example.com") == {"sent": 1}

    asyncio.run(scenario())
    assert _stops(scene) == ()


def test_a_key_for_production_alone_is_no_reason_to_stop_production(scene: Scene) -> None:
    """A person who says to live in development, where the key is refused, stops no production."""
    scene.add_phones(2)
    _invent(scene, 10, side="development")
    scene.twin.add_fault(
        "answer", side="development", reason="BadEnvironmentKeyInToken", count=ALWAYS
    )

    async def scenario() -> None:
        async with scene.running() as engine:
            await _settle(scene, engine, MALLORY)
            assert [one.environment for one in _stops(scene)] == ["development"]
            assert await _settle(scene, engine, "user0@example.com") == {"sent": 1}
            assert await _settle(scene, engine, EVERYBODY) == {"sent": 2, "held": 10}

    asyncio.run(scenario())
    assert scene.statuses() == {"active": 12}


# A wrong configuration


@pytest.mark.parametrize("reason", ["BadDeviceToken", "DeviceTokenNotForTopic"])
@pytest.mark.parametrize("to", ["names", "everybody"])
def test_a_wrong_first_set_up_stops_once_several_persons_were_refused(
    scene: Scene, reason: str, to: str
) -> None:
    """Fewer persons open nothing; several do, and no token is blamed, before or after."""
    phones = scene.add_phones(60)
    scene.twin.add_fault("answer", reason=reason, count=ALWAYS)
    mails = [phone.mail for phone in phones]

    async def scenario() -> None:
        async with scene.running() as engine:
            for mail in mails[: SEVERAL_PERSONS - 1]:
                assert await _settle(scene, engine, mail) == {"failed": 1}
            assert _stops(scene) == ()
            sent = await scene.accept(engine, EVERYBODY if to == "everybody" else mails)
            await scene.until(engine, lambda: _stops(scene))
            assert scene.statuses() == {"active": 60}
            scene.twin.clear_faults()
            scene.clock.move(80)
            await scene.until(engine, lambda: not _stops(scene))
            scene.clock.move(16 * 60)
            await scene.until(engine, lambda: scene.states(sent) == {"sent": 60})

    asyncio.run(scenario())
    assert scene.statuses() == {"active": 60}


@pytest.mark.parametrize("reason", ["BadDeviceToken", "DeviceTokenNotForTopic"])
@pytest.mark.parametrize("number", [3, 60])
def test_a_configuration_that_breaks_later_costs_no_token(
    scene: Scene, reason: str, number: int
) -> None:
    """Tokens that were accepted before are kept, few or many, and the new ones with them."""
    known = [phone.mail for phone in scene.add_phones(number)]

    async def scenario() -> None:
        async with scene.running() as engine:
            assert await _settle(scene, engine, known) == {"sent": number}
            fresh = [phone.mail for phone in scene.add_phones(5, first=number)]
            scene.twin.add_fault("answer", reason=reason, count=ALWAYS)
            sent = await scene.accept(engine, [*known, *fresh])
            await scene.until(engine, lambda: scene.states(sent)["sending"] == 0)
            if number > SEVERAL_PERSONS:
                await scene.until(engine, lambda: _stops(scene))
            assert bool(_stops(scene)) is (number > SEVERAL_PERSONS)
            assert scene.statuses() == {"active": number + 5}
            scene.twin.clear_faults()
            scene.clock.move(80)
            await scene.until(engine, lambda: not _stops(scene))
            assert await _settle(scene, engine, known[0]) == {"sent": 1}

    asyncio.run(scenario())
    assert scene.statuses() == {"active": number + 5}


def test_a_refused_key_still_stops_at_once(scene: Scene) -> None:
    """A 403 needs no second person: it speaks of the key, whoever's token it was sent to."""
    scene.add_phones(1)
    scene.twin.add_fault("answer", reason="InvalidProviderToken", count=ALWAYS)

    async def scenario() -> None:
        async with scene.running() as engine:
            assert await _settle(scene, engine, "user0@example.com") == {"held": 1}
            assert [one.reason for one in _stops(scene)] == ["InvalidProviderToken"]

    asyncio.run(scenario())


@pytest.mark.parametrize("to", ["names", "everybody"])
def test_the_probe_goes_to_a_token_that_was_accepted_before(scene: Scene, to: str) -> None:
    """Invented tokens in front of all others do not keep a mended app stopped."""
    _invent(scene, 15)
    phones = scene.add_phones(3)
    mails = [phone.mail for phone in phones]

    async def scenario() -> None:
        async with scene.running() as engine:
            assert await _settle(scene, engine, mails) == {"sent": 3}
            fault = scene.twin.add_fault("answer", reason="TopicDisallowed", count=ALWAYS)
            sent = await scene.accept(engine, EVERYBODY if to == "everybody" else [MALLORY, *mails])
            await scene.until(engine, lambda: _stops(scene))
            scene.twin.remove_fault(fault.id)
            scene.clock.move(80)
            await scene.until(engine, lambda: not _stops(scene))
            scene.clock.move(5)
            await scene.until(engine, lambda: scene.states(sent)["sent"] == 3)

    asyncio.run(scenario())


def test_a_token_that_is_really_dead_is_put_in_quarantine(scene: Scene) -> None:
    """Among others that are accepted a refused token is judged, known or new, many or one."""
    phones = scene.add_phones(6)
    mails = [phone.mail for phone in phones]

    async def scenario() -> None:
        async with scene.running() as engine:
            assert await _settle(scene, engine, mails) == {"sent": 6}
            _invent(scene, 20)
            for side in ("production", "development"):
                scene.twin.add_fault(
                    "answer", token=phones[0].token, side=side, reason="BadDeviceToken", count=9
                )
            await _settle(scene, engine, [*mails, MALLORY])
            await scene.until(engine, lambda: scene.statuses() == {"active": 5, "quarantined": 21})

    asyncio.run(scenario())


def test_the_circuit_of_one_topic_is_not_anothers(scene: Scene) -> None:
    """A key that may not push to a VoIP topic stops VoIP pushes, and no alert."""
    phones = scene.add_phones(3)
    mails = [phone.mail for phone in phones]

    async def scenario() -> None:
        async with scene.running() as engine:
            fault = scene.twin.add_fault("answer", reason="TopicDisallowed", count=ALWAYS)
            await scene.send(engine, mails, push_type="voip", user_info={"call": 1}, title=None)
            assert [one.topic for one in _stops(scene)] == ["com.sample.myapp.voip"]
            scene.twin.remove_fault(fault.id)
            assert await _settle(scene, engine, mails) == {"sent": 3}

    asyncio.run(scenario())


# Another kind of push


@pytest.mark.parametrize(
    ("push_type", "reason"),
    [
        ("voip", "DeviceTokenNotForTopic"),
        ("complication", "DeviceTokenNotForTopic"),
        ("fileprovider", "BadDeviceToken"),
        ("location", "Unregistered"),
        ("widgets", "ExpiredToken"),
        ("controls", "BadDeviceToken"),
        ("pushtotalk", "Unregistered"),
    ],
)
def test_a_push_of_another_kind_says_nothing_about_the_session(
    scene: Scene, push_type: str, reason: str
) -> None:
    """It fails by itself; the token for alerts is neither judged, moved nor closed by it."""
    scene.add_phones(2)

    async def scenario() -> None:
        async with scene.running() as engine:
            assert await _settle(scene, engine, ["user0@example.com"]) == {"sent": 1}
            scene.twin.add_fault("answer", reason=reason, count=4)
            mails = ["user0@example.com", "user1@example.com"]
            response = await scene.send(engine, mails, push_type=push_type, title=None)
            assert scene.states(response) == {"failed": 2}
            scene.twin.clear_faults()
            assert await _settle(scene, engine, mails) == {"sent": 2}

    asyncio.run(scenario())
    assert scene.statuses() == {"active": 2}


def test_an_app_outside_the_registry_is_stopped_and_goes_on(scene: Scene) -> None:
    """Its circuit is noted as well, so that another process does not run into the same wall."""
    app = App(team_id=scene.app.team_id, bundle_id="com.sample.unregistered")
    (stored,) = scene.system.apps.credentials(scene.app)
    key = scene.system.apps.auth_key(scene.app.apple.team_id, stored.key_id)
    scene.twin.add_fault("answer", reason="TopicDisallowed", count=ALWAYS)

    async def scenario() -> None:
        for system in (scene.system, scene.another()):
            before = len(scene.twin.requests)
            async with scene.running(system) as engine:
                recipients = Recipients.read(["ab" * 32])
                sent, _ = await engine.accept(app, Notification(title="Hi"), recipients, key=key)
                await engine.worker.settled(sent.row)
                assert scene.states(sent) == {"held": 1}
            assert len(scene.twin.requests) == (1 if system is scene.system else before)

    asyncio.run(scenario())
