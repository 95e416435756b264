"""From stored sessions to stored outcomes by FCM: the whole engine against the twin."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.chaos import Clock
from bench.sender import Task
from tests.scene import Scene, clocked

from handbell.services.fcm.credential import ServiceAccount
from handbell.settings import DATABASE_FILE, Settings
from handbell.twin.phone import Phone
from handbell.twin.threaded import start_twin

PROJECT = "shop-4711"
EVERYBODY = {"everybody": True}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Give a system with an Android app and its service account, and a twin that knows it."""
    clock = Clock()
    home = tmp_path / "home"
    with start_twin(tmp_path / "twin", now=clock) as twin:
        settings = Settings.load(
            home=home,
            database_url=f"sqlite:///{home / DATABASE_FILE}",
            fcm_url=twin.fcm_url,
            apns_ca_file=twin.ca_file,
            request_timeout=5.0,
        )
        system = clocked(settings, clock)
        app = system.apps.add(android_package="com.sample.shop", name="Shop")
        key_file = twin.make_service_account(PROJECT, is_direct=True)
        system.apps.add_credential(app, ServiceAccount.read(key_file))
        twin.add_app(app.id, app.name)
        task = Task(home=str(home), production_url="", development_url="", ca_file="", app=app.id)
        yield Scene(system, twin, app, clock, task, home)
        system.database.close()


def add_phones(scene: Scene, count: int, *, project: str = PROJECT, first: int = 0) -> list[Phone]:
    """Make phones of user0@example.com and so on, each registered."""
    phones = [
        scene.twin.add_phone(
            mail=f"user{one}@example.com", app=scene.app.id, platform="android", project=project
        )
        for one in range(first, first + count)
    ]
    for phone in phones:
        scene.system.registry.register(scene.app, phone.mail or "", phone.token, platform="android")
    return phones


def cards(scene: Scene, phone: Phone) -> list[str]:
    """Return the titles that a phone shows."""
    return [card.title or "" for card in scene.twin.phone(phone.id).cards]


@pytest.mark.parametrize(
    "to", [EVERYBODY, [f"user{one}@example.com" for one in range(5)]], ids=["everybody", "named"]
)
def test_everybody_is_reached_once(scene: Scene, to: object) -> None:
    """Each phone shows it, and the ledger says so."""
    phones = add_phones(scene, 5)

    async def story() -> None:
        async with scene.running() as engine:
            response = await scene.send(engine, to, title="Hello")
            assert response.success
            assert scene.states(response) == {"sent": 5}

    asyncio.run(story())
    assert [cards(scene, phone) for phone in phones] == [["Hello"]] * 5


def test_a_removed_app_closes_its_session(scene: Scene) -> None:
    """The next send finds nobody there; the others are reached."""
    gone, *others = add_phones(scene, 3)
    scene.twin.remove_phone(gone)

    async def story() -> None:
        async with scene.running() as engine:
            response = await scene.send(engine, EVERYBODY)
            assert scene.states(response) == {"sent": 2, "failed": 1}
            (failed,) = [one for one in scene.deliveries(response) if one.state == "failed"]
            assert (failed.reason, failed.status) == ("UNREGISTERED", 404)
            assert scene.statuses() == {"active": 2, "closed": 1}
            again = await scene.send(engine, EVERYBODY)
            assert scene.states(again) == {"sent": 2}

    asyncio.run(story())
    assert [len(cards(scene, phone)) for phone in others] == [2, 2]


def test_a_device_that_registered_since_is_kept(scene: Scene) -> None:
    """FCM gives no instant: the answer says nothing of what was registered after the send."""
    (phone,) = add_phones(scene, 1)
    scene.twin.add_fault("answer", reason="UNREGISTERED", token=phone.token)
    later = int((scene.clock() + 5) * 1000)
    scene.system.registry.register(
        scene.app, phone.mail or "", phone.token, platform="android", registered_at=later
    )

    async def story() -> None:
        async with scene.running() as engine:
            response = await scene.send(engine, EVERYBODY)
            assert scene.states(response) == {"failed": 1}
            assert scene.statuses() == {"active": 1}

    asyncio.run(story())


@pytest.mark.parametrize("kind", ["no role", "other project"])
def test_a_wrong_project_stops_the_app_and_keeps_every_token(scene: Scene, kind: str) -> None:
    """Whether the account may not send or the tokens are another project's: none is lost."""
    project = PROJECT if kind == "no role" else "other-1"
    add_phones(scene, 12, project=project)
    if kind == "no role":
        scene.twin.add_fault("answer", reason="PERMISSION_DENIED", count=100)

    async def story() -> None:
        async with scene.running() as engine:
            response = await scene.send(engine, EVERYBODY)
            assert not response.success
            await scene.until(engine, scene.system.rules_store.stopped_apps, 5)
            later = await scene.send(engine, "user0@example.com")
            assert [one.reason for one in scene.deliveries(later)] == ["CircuitOpen"]
            assert scene.statuses() == {"active": 12}

    asyncio.run(story())


@pytest.mark.parametrize(
    ("fault", "least", "in_time"),
    [
        ({"reason": "UNAVAILABLE"}, 10, 13),
        ({"reason": "INTERNAL"}, 10, 13),
        ({"reason": "UNAVAILABLE", "retry_after": 40}, 40, 44),
        ({"reason": "QUOTA_EXCEEDED"}, 60, 76),
        ({"reason": "QUOTA_EXCEEDED", "retry_after": 90}, 90, 106),
        ({"status": 502, "reason": "<html>"}, 10, 13),
        ({"status": 403, "reason": "<html>"}, 10, 13),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_nothing_is_sent_again_sooner_than_google_wants(
    scene: Scene, fault: dict[str, object], least: float, in_time: float
) -> None:
    """Ten seconds at least, a minute for a used quota, and what FCM asks for."""
    add_phones(scene, 1)
    scene.twin.add_fault("answer", side="fcm", **fault)

    async def story() -> None:
        async with scene.running() as engine:
            began = scene.clock()
            response = await scene.send(engine, EVERYBODY)
            assert scene.states(response) == {"held": 1}
            (held,) = scene.deliveries(response)
            assert (held.due_at or 0) / 1000 >= began + least
            scene.clock.move(in_time)
            await scene.until(engine, lambda: scene.states(response) == {"sent": 1})

    asyncio.run(story())


def test_a_lost_answer_is_shown_once(scene: Scene) -> None:
    """The repeat has the same tag, and no collapse key, which would count against the quota."""
    (phone,) = add_phones(scene, 1)
    scene.twin.add_fault("reset", token=phone.token, delivers=True)

    async def story() -> None:
        async with scene.running() as engine:
            response = await scene.send(engine, EVERYBODY, title="Once")
            assert scene.states(response) == {"held": 1}
            scene.clock.move(60)
            await scene.until(engine, lambda: scene.states(response) == {"sent": 1})

    asyncio.run(story())
    assert cards(scene, phone) == ["Once"]
    bodies = [one.payload or "" for one in scene.twin.requests if one.side == "fcm"]
    assert len(bodies) == 2
    assert bodies[0] == bodies[1]
    assert "collapse_key" not in bodies[0]


def test_a_deleted_service_account_stops_the_app(scene: Scene) -> None:
    """No push is sent, no token is lost, and the reason is OAuth's own."""
    add_phones(scene, 3)
    for account in scene.twin.call(lambda twin: twin.service_accounts):
        scene.twin.remove_service_account(account.client_email)

    async def story() -> None:
        async with scene.running() as engine:
            response = await scene.send(engine, EVERYBODY)
            assert not response.success
            assert scene.statuses() == {"active": 3}

    asyncio.run(story())
    assert scene.twin.accepted == 0
