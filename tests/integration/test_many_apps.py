"""Many small apps cost as little as one large one: what is asked for one is asked for all."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event
from tests.scripted import EVERYBODY, Play, open_play

from handbell.apps.app import App
from handbell.apps.sample_keys import make_key
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.accept.store import Acceptance
from handbell.delivery.engine import Entry, Options

APPS = 40
DEVICES = 3
MAIL = "user0@example.com"


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    """Give a play whose gateway accepts everything at once."""
    with open_play(tmp_path) as play:
        play.gateway.answers = "accepted"
        yield play


def add_apps(play: Play, number: int = APPS, devices: int = DEVICES) -> list[App]:
    """Add apps of one team with one key, each with some people."""
    system, key = play.system, make_key("TEAM123456")
    apps = [system.apps.add("TEAM123456", f"com.sample.app{one}") for one in range(number)]
    for place, app in enumerate(apps):
        system.apps.add_credential(app, key)
        for one in range(devices):
            token = f"{(place + 1) * 1000 + one:064x}"
            system.registry.register(app, f"user{one}@example.com", token)
    return apps


async def accept(play: Play, apps: list[App], to: object) -> list[Acceptance]:
    """Accept one send for each app, in one step."""
    entries = [
        Entry(
            app=app,
            notification=Notification(title="Hello"),
            recipients=Recipients.read(to),
            options=Options(),
        )
        for app in apps
    ]
    accepted = await play.engine.accept_many(entries)
    assert all(isinstance(one, Acceptance) for one in accepted)
    return [one for one in accepted if isinstance(one, Acceptance)]


@pytest.mark.parametrize(("to", "number", "most"), [(EVERYBODY, DEVICES, 8), (MAIL, 1, 3)])
def test_what_is_asked_for_one_app_is_asked_for_all(
    play: Play, to: object, number: int, most: int
) -> None:
    """Forty apps are sent for by few statements, and by none that lists all apps."""
    apps = add_apps(play)
    asked: Counter[str] = Counter()

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked["statements"] += 1
        asked["lists of all apps"] += "FROM apps ORDER BY" in statement.replace("\n", "")

    async def scenario() -> None:
        accepted = await accept(play, apps, to)
        counted = (play.system.database._engine, "before_cursor_execute", note)  # noqa: SLF001
        event.listen(*counted)
        await play.start()
        await play.engine.worker.idle()
        event.remove(*counted)
        for one in accepted:
            assert play.states(one) == {"sent": number}
        await play.stop()

    asyncio.run(scenario())
    assert asked["lists of all apps"] == 0
    # A page of its own, and how far that is written; all else is common to the apps.
    assert asked["statements"] < most * APPS
    assert play.gateway.pushed.total() == APPS * number
    assert set(play.gateway.pushed.values()) == {1}


def test_apps_of_one_team_with_one_key_share_their_connections(play: Play) -> None:
    """Two hundred apps of a team are one pool, not two hundred."""
    apps = add_apps(play, 5, 1)
    find = super(type(play.system), play.system).find_gateway
    gateways = {find(app, None, "apns", "production") for app in apps}
    assert len(gateways) == 1


def test_a_large_broadcast_is_left_to_other_workers(play: Play) -> None:
    """One claim takes small shards of many notifications, and of each notification only one."""
    apps = add_apps(play)

    async def scenario() -> None:
        await accept(play, apps, EVERYBODY)
        await accept(play, apps[:1], EVERYBODY)

    asyncio.run(scenario())
    worker = play.system.known_workers.enlist()
    with play.system.database.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO shards (notification_id, urgency, position, last, due_at) "
            "SELECT notification_id, urgency, last, last + 10, due_at FROM shards "
            "ORDER BY id LIMIT 1"
        )
    taken = play.system.queue.claim_shards(worker)
    assert len(taken) == APPS + 1
    assert len({one.notification for one in taken}) == APPS + 1
    (left,) = play.system.queue.claim_shards(worker)
    assert left.notification == taken[0].notification
