"""What virtual phones say reaches the ledger, however much it is and however early."""

import asyncio
import time

import pytest
from sqlalchemy import text
from tests.conftest import Stage

from handbell._device_reports import DeviceReports
from handbell.apps.app import App
from handbell.delivery.ledger.receipts import Receipt, ReceiptKind
from handbell.delivery.record.hourly_counts import HOUR

pytestmark = pytest.mark.databases

MAIL = "test@4d.com"


def test_many_reports_are_written_at_once_and_each_counts_once(stage: Stage) -> None:
    """Two phones, two notifications, repeats and strangers among them."""
    stage.add_phone(MAIL)
    stage.add_phone("user1@example.com")
    everybody = [MAIL, "user1@example.com"]
    both = [asyncio.run(stage.send(everybody)).deliveries for _ in range(2)]
    (a, b), (c, _) = both
    now = int(stage.system.now() * 1000)
    said = [
        _receipt("displayed", a.apns_id, now - 3),
        _receipt("opened", a.apns_id, now - 2),
        _receipt("displayed", a.apns_id, now - 1),
        _receipt("opened", c.apns_id, now),
        _receipt("opened", "00000000-0000-4000-8000-000000000000", now),
        _receipt("opened", "", now),
    ]
    book = stage.system.receipts
    assert book.note(said) == [True, True, True, True, False, False]
    assert book.note([*said, _receipt("displayed", b.apns_id, now)])[-1]
    assert book.note([]) == []
    first, second = (_instants(stage, one[0].notification_id) for one in both)
    sent = a.sent_at or 0
    assert first == [(max(now - 3, sent), max(now - 2, sent)), (now, None)]
    assert second == [(now, now), (None, None)]
    with stage.system.database.read() as database:
        counted = database.execute(text("SELECT sum(displayed), sum(opened) FROM tallies")).one()
    assert tuple(counted) == (3, 2)


def test_an_instant_that_cannot_be_is_put_right_and_counted_in_its_hour(stage: Stage) -> None:
    """A phone's clock may be wrong: nothing is seen before it was sent, or in the future."""
    stage.add_phone(MAIL)
    ends = [asyncio.run(stage.send(MAIL)).deliveries[0] for _ in range(2)]
    book = stage.system.receipts
    assert book.note([_receipt("displayed", ends[0].apns_id, 5_000)]) == [True]
    assert book.note([_receipt("opened", ends[1].apns_id, 2**52)]) == [True]
    ((displayed, _),) = _instants(stage, ends[0].notification_id)
    assert displayed == ends[0].sent_at
    ((displayed, opened),) = _instants(stage, ends[1].notification_id)
    assert displayed == opened
    assert (ends[1].sent_at or 0) <= (opened or 0) <= stage.system.now() * 1000
    with stage.system.database.read() as database:
        hours = database.scalars(text("SELECT hour FROM tallies WHERE displayed > 0")).all()
    noted = ends[0].sent_at or 0, opened or 0
    assert set(hours) <= {one // HOUR * HOUR for one in noted}


def test_a_session_reports_on_what_it_got_alone(stage: Stage) -> None:
    """Whose report names a session, or comes from one, writes that delivery or none."""
    stage.add_phone(MAIL)
    stage.add_phone("user1@example.com")
    mine, other = asyncio.run(stage.send([MAIL, "user1@example.com"])).deliveries
    whole = Receipt.read(event="opened", notification_id=mine.notification_id)
    said = [
        _receipt("opened", other.apns_id, 0),
        _receipt("opened", mine.apns_id, 0),
        Receipt.read(event="opened", notification_id="nothing"),
    ]
    book = stage.system.receipts
    assert book.note([whole]) == [False]
    assert book.note(said, stage.app, mine.number) == [False, True, False]
    assert book.note([whole], stage.app, mine.number) == [True]
    another = App(team_id=stage.app.team_id, bundle_id="com.else")
    assert book.note([whole], another, mine.number) == [False]
    assert _opened(stage, mine.notification_id) == [mine.apns_id]


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
    _renumber(stage, early.number, -1)
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
    _renumber(stage, -1, early.number)
    reporter.close()
    assert len(_opened(stage, other.notification_id)) == 2


def _renumber(stage: Stage, number: int, to: int) -> None:
    move = text("UPDATE deliveries SET number = :to WHERE number = :number")
    with stage.system.database.write() as connection:
        connection.execute(move, {"number": number, "to": to})


def _receipt(event: ReceiptKind, apns_id: str, at: int) -> Receipt:
    return Receipt.read(event=event, delivery_id=apns_id, at=at)


def _instants(stage: Stage, notification_id: str) -> list[tuple[int | None, int | None]]:
    told = stage.system.ledger.deliveries_of(notification_id)
    return [(one.displayed_at, one.opened_at) for one in told]


def _opened(stage: Stage, notification_id: str) -> list[str]:
    told = stage.system.ledger.deliveries_of(notification_id)
    return [one.apns_id for one in told if one.opened_at is not None]
