import dataclasses
import io
import json
import logging

import pytest

from handbell.delivery.events import (
    CircuitOpened,
    DeliveryFailed,
    DeliveryHeld,
    Event,
    NotificationAccepted,
    NotificationsAccepted,
    PushesSent,
    SessionClosed,
    name_of,
)
from handbell.delivery.observe.log_lines import LOGGER, LoggedEvents
from handbell.delivery.observe.logs import Logs

APP = "TEAM123456.com.sample.myapp"
TOKEN = "ab12" * 16
NOON = 1_700_000_000.25

FAILED = DeliveryFailed(
    app=APP,
    at=NOON,
    notification_id="3f9c2a71b04e5d8",
    number=7,
    mail="test@4d.com",
    state="failed",
    reason="PayloadTooLarge",
    status=413,
    attempts=1,
)

HELD = DeliveryHeld(
    app=APP, at=NOON, notification_id="a", number=1, reason="QuietHours", until=NOON, attempts=0
)


def written(event: Event, *, is_terminal: bool = False, level: str = "info") -> str:
    """Return what a log writes for an event."""
    stream = io.StringIO()
    Logs(stream, is_terminal=is_terminal, level=level)(event)
    return stream.getvalue()


def test_a_line_in_a_pipe_is_one_json_object() -> None:
    """Whatever is not a terminal gets JSON with time, level, name and the event's own fields."""
    assert json.loads(written(FAILED)) == {
        "timestamp": "2023-11-14T22:13:20.250+00:00",
        "level": "warning",
        "event": "delivery.failed",
        "app": APP,
        "notification_id": "3f9c2a71b04e5d8",
        "number": 7,
        "mail": "test@4d.com",
        "state": "failed",
        "reason": "PayloadTooLarge",
        "status": 413,
        "attempts": 1,
        "service": "apns",
    }


def test_a_line_on_a_terminal_is_key_and_value() -> None:
    """People get one line with the name and key=value, not JSON."""
    line = written(FAILED, is_terminal=True)
    assert "delivery.failed" in line
    assert "PayloadTooLarge" in line
    assert "{" not in line
    assert line.count("\n") == 1


def test_the_stream_itself_says_whether_it_is_a_terminal() -> None:
    """Without being told, a log to something that is no terminal writes JSON."""
    stream = io.StringIO()
    Logs(stream)(FAILED)
    assert json.loads(stream.getvalue())["event"] == "delivery.failed"


@pytest.mark.parametrize("place", ["terminal", "pipe"])
def test_a_token_is_shortened_and_a_text_stays_on_its_line(place: str) -> None:
    """A text from outside shows no whole token, and has no line or colour of its own."""
    event = CircuitOpened(
        app=APP,
        at=NOON,
        reason="BadDeviceToken",
        detail=f"said {TOKEN}\nERROR forged\x1b[31m",
        probe_at=NOON + 60,
    )
    line = written(event, is_terminal=place == "terminal")
    assert TOKEN not in line
    assert "ab12ab12ab12…" in line
    assert "ERROR forged?[31m" in line
    assert line.count("\n") == 1


def test_many_pushes_are_one_line() -> None:
    """A round of pushes is told with its number, its median and its longest time."""
    event = PushesSent(
        app=APP, at=NOON, notification_ids=("a",), environment="twin", seconds=(0.1, 0.2, 0.9)
    )
    line = json.loads(written(event))
    assert (line["pushes"], line["median_seconds"], line["longest_seconds"]) == (3, 0.2, 0.9)
    assert (event.notification_id, line["notification_id"]) == ("a", "a")
    of_several = dataclasses.replace(event, notification_ids=("a", "b"))
    line = json.loads(written(of_several))
    assert (of_several.notification_id, line["notifications"], line["pushes"]) == (None, 2, 3)
    assert "notification_id" not in line


def test_a_stream_is_told_by_its_number() -> None:
    """A thousand notifications that were stored in one step are one line, without their ids."""
    ids = tuple(f"{number:015x}" for number in range(1000))
    line = json.loads(
        written(NotificationsAccepted(app=APP, at=NOON, notification_ids=ids, targets=900))
    )
    assert (line["event"], line["notifications"], line["targets"]) == (
        "notifications.accepted",
        1000,
        900,
    )
    assert "notification_ids" not in line


def test_a_delivery_that_waits_is_told_for_debugging_only() -> None:
    """What may happen to a million deliveries at once is not written unless it is asked for."""
    assert written(HELD) == ""
    assert json.loads(written(HELD, level="debug"))["until"] == "2023-11-14T22:13:20.250+00:00"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (NotificationAccepted, "notification.accepted"),
        (NotificationsAccepted, "notifications.accepted"),
        (PushesSent, "pushes.sent"),
        (DeliveryFailed, "delivery.failed"),
        (SessionClosed, "session.closed"),
    ],
)
def test_an_event_has_one_name_outside(kind: type[Event], name: str) -> None:
    """Logs and webhooks call an event by the words of its class, with dots."""
    assert name_of(kind) == name


def test_without_the_extra_an_event_is_one_line_of_logging(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It has the same level, name and fields, and a text stays on its line there, too."""
    caplog.set_level(logging.INFO, LOGGER)
    tell = LoggedEvents()
    tell(FAILED)
    tell(dataclasses.replace(FAILED, reason=f"a b=\n{TOKEN}"))
    first, second = (record.getMessage() for record in caplog.records)
    assert first == (
        f"delivery.failed app={APP} notification_id=3f9c2a71b04e5d8 number=7 mail=test@4d.com "
        "state=failed reason=PayloadTooLarge status=413 attempts=1 service=apns"
    )
    assert "\n" not in second
    assert TOKEN not in second
    assert 'reason="a b=?' in second
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_without_the_extra_a_delivery_that_waits_is_told_for_debugging_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As in the structured logs."""
    caplog.set_level(logging.INFO, LOGGER)
    LoggedEvents()(HELD)
    assert not caplog.records
    caplog.set_level(logging.DEBUG, LOGGER)
    LoggedEvents()(HELD)
    assert len(caplog.records) == 1
