"""What virtual phones say reaches the ledger, however much it is and however early."""

import asyncio
import sqlite3
import time
from contextlib import closing

from tests.conftest import Stage

from handbell._device_reports import DeviceReports
from handbell.delivery.ledger.device_reports import DeviceReport

MAIL = "test@4d.com"


def test_many_reports_are_written_at_once_and_each_counts_once(stage: Stage) -> None:
    """Two phones, two notifications, repeats and strangers among them."""
    stage.add_phone(MAIL)
    stage.add_phone("user1@example.com")
    everybody = [MAIL, "user1@example.com"]
    both = [asyncio.run(stage.send(everybody)).deliveries for _ in range(2)]
    (a, b), (c, _) = both
    said = [
        DeviceReport(a.apns_id, "displayed", 5_000),
        DeviceReport(a.apns_id, "opened", 6_000),
        DeviceReport(a.apns_id, "displayed", 7_000),
        DeviceReport(c.apns_id, "opened", 8_000),
        DeviceReport("00000000-0000-4000-8000-000000000000", "opened", 9_000),
        DeviceReport("", "opened", 9_000),
    ]
    ledger = stage.system.ledger
    assert ledger.note_reports(said) == {a.apns_id, c.apns_id}
    assert ledger.note_reports([*said, DeviceReport(b.apns_id, "displayed", 1)])
    assert ledger.note_reports([]) == set()
    first, second = (ledger.deliveries_of(one[0].notification_id) for one in both)
    assert [(one.displayed_at, one.opened_at) for one in (*first, *second)] == [
        (5_000, 6_000),
        (1, None),
        (8_000, 8_000),
        (None, None),
    ]
    with closing(sqlite3.connect(stage.system.settings.home / "handbell.db")) as database:
        counted = database.execute("SELECT sum(displayed), sum(opened) FROM tallies").fetchone()
    assert counted == (3, 2)


def test_thousands_of_reports_are_written_within_two_seconds(stage: Stage) -> None:
    """A stop waits for them, so each must not cost a transaction of its own."""
    stage.add_phone(MAIL)
    (delivery,) = asyncio.run(stage.send(MAIL)).deliveries
    reporter = DeviceReports(stage.system)
    for _ in range(2000):
        reporter.add(delivery.apns_id, "displayed")
    begun = time.monotonic()
    reporter.close()
    assert time.monotonic() - begun < 2
    (told,) = stage.system.ledger.deliveries_of(delivery.notification_id)
    assert told.displayed_at is not None


def test_a_report_that_comes_before_its_delivery_waits_for_it(stage: Stage) -> None:
    """And holds up no other; one that nobody ever sent is given up."""
    stage.add_phone(MAIL)
    stage.add_phone("user1@example.com")
    early, other = asyncio.run(stage.send([MAIL, "user1@example.com"])).deliveries
    home = stage.system.settings.home / "handbell.db"
    with closing(sqlite3.connect(home, isolation_level=None)) as database:
        own = (early.number,)
        database.execute("UPDATE deliveries SET number = -1 WHERE number = ?", own)
        reporter = DeviceReports(stage.system)
        reporter.add(early.apns_id, "opened")
        reporter.add("00000000-0000-4000-8000-000000000000", "opened")
        reporter.add(other.apns_id, "opened")
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if _opened(stage, other.notification_id) == [other.apns_id]:
                break
            time.sleep(0.01)
        assert _opened(stage, other.notification_id) == [other.apns_id]
        database.execute("UPDATE deliveries SET number = ? WHERE number = -1", own)
    reporter.close()
    assert len(_opened(stage, other.notification_id)) == 2


def _opened(stage: Stage, notification_id: str) -> list[str]:
    told = stage.system.ledger.deliveries_of(notification_id)
    return [one.apns_id for one in told if one.opened_at is not None]
