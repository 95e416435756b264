"""An app with two credentials of which one is refused: it is named, and the other one is used."""

import asyncio

import pytest
from tests.conftest import Stage
from tests.scene import Scene

from handbell.apps.sample_keys import make_key
from handbell.delivery.events import CircuitOpened, Event
from handbell.delivery.policy.circuit import CircuitStop
from handbell.services.apns.credential import AuthKey


def _add_unknown_key(scene: Scene, environment: str | None = None) -> AuthKey:
    """Add a newer key that the push service does not know, as after a revocation."""
    key = make_key(scene.app.apple.team_id)
    scene.system.apps.add_credential(scene.app, key, environment=environment)
    return key


@pytest.mark.parametrize("environment", [None, "production"])
def test_what_is_sent_goes_by_the_key_that_is_accepted(
    scene: Scene, environment: str | None
) -> None:
    """The newest key is refused: few pushes find that out, and all of them arrive by the other."""
    phones = scene.add_phones(120)
    refused = _add_unknown_key(scene, environment)
    events: list[Event] = []
    scene.system.hooks.add(events.append)

    async def scenario() -> None:
        async with scene.running() as engine:
            sent = await scene.accept(engine, [phone.mail for phone in phones])
            await scene.until(engine, lambda: scene.states(sent) == {"held": 120})
            scene.clock.move(5)
            await scene.until(engine, lambda: scene.states(sent) == {"sent": 120})
            assert len(scene.twin.requests) <= 120 + 50
        (opened,) = [one for one in events if isinstance(one, CircuitOpened)]
        assert opened.has_other
        _look(scene, refused)
        # The next process knows by itself which one to use.
        before = len(scene.twin.requests)
        async with scene.running(scene.another()) as engine:
            later = await scene.accept(engine, [phones[0].mail])
            await scene.until(engine, lambda: scene.states(later) == {"sent": 1})
        assert len(scene.twin.requests) == before + 1

    asyncio.run(scenario())
    assert scene.statuses() == {"active": 120}


def _look(scene: Scene, refused: AuthKey) -> None:
    """See that nothing says that sending was stopped, and that the key is named with its fix."""
    system, app = scene.system, scene.app
    rules = system.rules_store.rules_of(app.id)
    assert (rules.stops, system.rules_store.stopped_apps()) == ((), [])
    assert [one.kind for one in system.app_control.obstacles(app)] == ["no-worker"]
    (caution,) = system.app_control.cautions(app)
    assert refused.key_id in caution.headline
    story = system.why(app, "user0@example.com")
    assert "has been stopped" not in str(story)
    assert any(f"handbell key remove {refused.key_id}" in one for one in story.to_do)
    assert refused.key_id in " ".join(story.cautions)


def test_a_key_that_is_removed_takes_its_circuit_along(scene: Scene) -> None:
    """Nothing is left that says that sending has stopped, and no caution."""
    phones = scene.add_phones(1)
    refused = _add_unknown_key(scene)

    async def scenario() -> None:
        async with scene.running() as engine:
            sent = await scene.accept(engine, [phones[0].mail])
            await scene.until(engine, lambda: scene.states(sent) == {"held": 1})

    asyncio.run(scenario())
    assert scene.system.app_control.cautions(scene.app)
    scene.system.apps.remove_credential(scene.app, refused.key_id)
    assert not scene.system.app_control.cautions(scene.app)
    assert not scene.system.rules_store.rules_of(scene.app.id).circuits


def test_with_both_keys_refused_the_app_is_stopped(scene: Scene) -> None:
    """Once no key is left that is accepted, every surface says so."""
    phones = scene.add_phones(1)
    (good,) = scene.system.apps.credentials(scene.app)
    _add_unknown_key(scene)
    _add_unknown_key(scene)
    scene.system.apps.remove_credential(scene.app, good.key_id)

    async def scenario() -> None:
        async with scene.running() as engine:
            sent = await scene.accept(engine, [phones[0].mail])
            is_held = {"held": 1}
            await scene.until(
                engine,
                lambda: (len(_stops(scene)) == 2 and scene.states(sent) == is_held) or _tick(scene),
            )

    asyncio.run(scenario())
    assert scene.system.rules_store.stopped_apps() == [scene.app.id]
    assert not scene.system.app_control.cautions(scene.app)
    assert next(iter(scene.system.app_control.obstacles(scene.app))).kind == "stopped"


def _stops(scene: Scene) -> tuple[CircuitStop, ...]:
    return scene.system.rules_store.rules_of(scene.app.id).stops


def _tick(scene: Scene) -> bool:
    scene.clock.move(1)
    return False


def test_the_check_up_names_the_key_that_is_refused(stage: Stage) -> None:
    """Each key is probed; of two the refused one is named with how it is removed."""
    (good,) = stage.system.apps.credentials(stage.app)
    bad = make_key(stage.app.apple.team_id)
    stage.system.apps.add_credential(stage.app, bad)

    async def run() -> dict[tuple[str, str], str]:
        try:
            found = await stage.system.doctor.check_up(stage.app)
        finally:
            await stage.system.close_gateways()
        assert not [one for one in found if one.check == "clock"]
        for one in found:
            if bad.key_id in one.sentence and one.check in ("production", "development"):
                assert "InvalidProviderToken" in one.sentence
                assert f"handbell key remove {bad.key_id}" in one.fix
        return {
            (one.check, key): one.verdict
            for one in found
            for key in (good.key_id, bad.key_id)
            if key in one.sentence and one.check != "key"
        }

    assert asyncio.run(run()) == {
        ("production", good.key_id): "right",
        ("production", bad.key_id): "doubtful",
        ("development", good.key_id): "right",
        ("development", bad.key_id): "doubtful",
    }
