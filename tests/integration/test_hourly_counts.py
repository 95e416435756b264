"""What the chart counts is what the ledger says, hour by hour."""

import asyncio

import pytest
from tests.reported import report
from tests.scene import Scene

from handbell.delivery.record.hourly_counts import HOUR, HourCount
from handbell.delivery.record.outcome_batch import Batch, Ending
from handbell.delivery.response import Response

pytestmark = pytest.mark.databases


def _send(scene: Scene, to: object) -> Response:
    async def send() -> Response:
        async with scene.running() as engine:
            return await scene.send(engine, to)

    return asyncio.run(send())


def _total(buckets: list[HourCount]) -> tuple[int, int, int, int]:
    return (
        sum(one.sent for one in buckets),
        sum(one.failed for one in buckets),
        sum(one.displayed for one in buckets),
        sum(one.opened for one in buckets),
    )


def test_a_broadcast_and_a_named_send_are_counted_in_their_hour(scene: Scene) -> None:
    """Each delivery that ended counts once, where it ended, under its own app."""
    scene.add_phones(5)
    scene.register("gone@example.com", "ab" * 32)
    _send(scene, {"everybody": True})
    scene.clock.ahead += 3600
    _send(scene, "user1@example.com")
    reports = scene.system.reports
    by_hour = reports.trend(scene.app, hours=1, buckets=24)
    assert [(one.sent, one.failed) for one in by_hour[-2:]] == [(5, 1), (1, 0)]
    assert by_hour[-1].start % HOUR == 0
    assert len(by_hour) == 24
    assert reports.trend(None, hours=1, buckets=24) == by_hour
    assert _total(reports.trend(scene.second_app().app, hours=1, buckets=24)) == (0, 0, 0, 0)


def test_days_add_their_hours_up(scene: Scene) -> None:
    """A chart of days holds what its hours hold; what is older is not in it."""
    scene.add_phones(2)
    _send(scene, {"everybody": True})
    scene.clock.ahead += 2 * 24 * 3600
    _send(scene, "user0@example.com")
    days = scene.system.reports.trend(scene.app, hours=24, buckets=30)
    assert [one.sent for one in days[-3:]] == [2, 0, 1]
    assert [one.sent for one in scene.system.reports.trend(scene.app, hours=24, buckets=2)] == [
        0,
        1,
    ]


def test_a_report_is_counted_once(scene: Scene) -> None:
    """What a phone reports twice is one displayed and one opened."""
    scene.add_phones(1)
    (delivery,) = scene.deliveries(_send(scene, "user0@example.com"))
    for _ in range(3):
        assert report(scene.system, "displayed", delivery.apns_id)
        assert report(scene.system, "opened", delivery.apns_id)
    assert not report(scene.system, "opened", "00000000-0000-0000-0000-000000000000")
    assert _total(scene.system.reports.trend(scene.app, hours=1, buckets=1)) == (1, 0, 1, 1)


@pytest.mark.databases("sqlite")
def test_a_batch_that_is_not_written_is_not_counted(scene: Scene) -> None:
    """Rows and their count are one transaction."""
    ending = Ending(
        notification_id=404,
        number=1,
        gateway="apns",
        environment="production",
        urgency=5,
        state="sent",
        attempts=1,
    )
    with pytest.raises(Exception, match="FOREIGN KEY"):
        scene.system.recorder.record(Batch(endings=[ending]))
    assert _total(scene.system.reports.trend(None, hours=1, buckets=24)) == (0, 0, 0, 0)


def test_old_hours_are_forgotten_with_the_ledger(scene: Scene) -> None:
    """The pruner takes away the hours that are older than what is kept."""
    scene.add_phones(1)
    _send(scene, "user0@example.com")
    scene.clock.ahead += (scene.system.settings.keep_days + 1) * 24 * 3600
    while scene.system.pruner.step():
        pass
    buckets = int(scene.system.settings.keep_days + 5)
    assert _total(scene.system.reports.trend(None, hours=24, buckets=buckets)) == (0, 0, 0, 0)


def test_what_was_opened_was_displayed(scene: Scene) -> None:
    """A phone that only reports the opening is counted as having shown it, too."""
    scene.add_phones(1)
    (delivery,) = scene.deliveries(_send(scene, "user0@example.com"))
    assert report(scene.system, "opened", delivery.apns_id)
    assert _total(scene.system.reports.trend(scene.app, hours=1, buckets=1)) == (1, 0, 1, 1)
    (delivery,) = scene.deliveries(delivery.notification_id)
    assert delivery.displayed_at == delivery.opened_at
