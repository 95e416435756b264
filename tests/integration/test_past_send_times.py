"""A time in the past is refused by the one place that every way in leads through."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tests.scene import Scene

from handbell.creation.recipients import EVERYBODY, Recipients
from handbell.delivery.engine import Options
from handbell.errors import NotificationError

MAIL, OTHER = "user0@example.com", "user1@example.com"
HOUR = 3600


def test_a_repeat_gets_its_first_answer_after_its_time_has_come(scene: Scene) -> None:
    """The key is looked at before the time: a retry that comes late is no mistake."""
    scene.add_phones(1)

    async def scenario() -> None:
        async with scene.running() as engine:
            how = {"send_at": scene.clock() + HOUR, "idempotency_key": "one"}
            first = await scene.accept(engine, MAIL, how)
            scene.clock.move(2 * HOUR)
            again = await scene.accept(engine, MAIL, how)
            assert (again.id, again.is_former) == (first.id, True)
            with pytest.raises(NotificationError, match="in the past"):
                await scene.accept(engine, MAIL, {**how, "idempotency_key": "two"})

    asyncio.run(scenario())


@pytest.mark.parametrize("to", [[MAIL, OTHER], EVERYBODY], ids=["named", "everybody"])
def test_a_local_time_goes_at_once_where_it_has_passed(scene: Scene, to: object) -> None:
    """Tokyo is late already, Honolulu waits; the warning names the zone that is late."""
    for place, zone in enumerate(["Asia/Tokyo", "Pacific/Honolulu"]):
        scene.add_phones(1, zone=zone, first=place)
    here = datetime.fromtimestamp(scene.clock(), UTC)
    wall = (here + timedelta(hours=1)).replace(tzinfo=None, microsecond=0)
    assert wall.replace(tzinfo=ZoneInfo("Asia/Tokyo")).timestamp() < scene.clock()

    async def scenario() -> None:
        async with scene.running() as engine:
            how = {"send_at": wall.isoformat()}
            accepted = await scene.accept(engine, to, how)
            (warning,) = accepted.warnings
            assert "has passed in Asia/Tokyo: devices there get it at once" in warning
            gone: dict[str, Any] = {"send_at": (wall - timedelta(hours=14)).isoformat()}
            with pytest.raises(NotificationError, match="in the past"):
                await scene.accept(engine, to, gone)
            with pytest.raises(NotificationError, match="in the past"):
                engine.check_send_time(scene.app, Recipients.read(to), Options.read(**gone))

    asyncio.run(scenario())


def test_named_recipients_wait_for_their_own_time_from_the_start(scene: Scene) -> None:
    """No worker looks at them before: Tokyo is due, Honolulu is held until its clock says so."""
    for place, zone in enumerate(["Asia/Tokyo", "Pacific/Honolulu"]):
        scene.add_phones(1, zone=zone, first=place)
    here = datetime.fromtimestamp(scene.clock(), UTC)
    wall = (here + timedelta(hours=1)).replace(tzinfo=None, microsecond=0)
    due_at = int(wall.replace(tzinfo=ZoneInfo("Pacific/Honolulu")).timestamp() * 1000)

    async def scenario() -> None:
        how = {"send_at": wall.isoformat()}
        accepted = await scene.accept(scene.system.engine, [MAIL, OTHER], how)
        tokyo, honolulu = scene.system.ledger.deliveries_of(accepted.id)
        assert (tokyo.state, tokyo.reason) == ("queued", None)
        assert (honolulu.state, honolulu.reason) == ("held", "Scheduled")
        assert honolulu.due_at == due_at

    asyncio.run(scenario())
