"""A time in the past: where it begins, and what of it depends on the recipients' zones."""

from datetime import UTC, datetime, timedelta

import pytest

from handbell.delivery.policy.schedule import LATE_SECONDS, is_near, read_send_at, refuse_past
from handbell.errors import NotificationError

NOW = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
AT = NOW.timestamp()


def wall(hours: float) -> str:
    """Return a local time that the clock in UTC reads so many hours from now."""
    return (NOW + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%S")


@pytest.mark.parametrize(
    "value",
    [
        AT - LATE_SECONDS - 1,
        NOW - timedelta(days=1),
        "2026-06-15T13:58:00+02:00",
        "2026-06-15T11:58:59Z",
        "1971-01-01T00:00Z",
        wall(-15),
    ],
)
def test_what_is_past_everywhere_is_refused(value: object) -> None:
    """Seconds, a datetime, text with an offset or without one: the error names the field."""
    zones = ["Asia/Tokyo", "America/Los_Angeles", None]
    with pytest.raises(NotificationError, match=r"`send_at` is .* in the past"):
        refuse_past(read_send_at(value), zones, AT)


@pytest.mark.parametrize(
    "value", [AT - LATE_SECONDS, NOW, "2026-06-15T14:00+02:00", AT + 1, wall(14.5), wall(24)]
)
def test_what_is_not_past_anywhere_passes_in_silence(value: object) -> None:
    """What was meant as now may be a minute late."""
    zones = ["Asia/Tokyo", "Pacific/Kiritimati", None]
    assert refuse_past(read_send_at(value), zones, AT) == []


@pytest.mark.parametrize(
    ("hours", "zones", "default", "told"),
    [
        (2, ["Asia/Tokyo", "Europe/Paris"], "UTC", ["Asia/Tokyo"]),
        (2, ["Australia/Perth", "America/Bogota"], "UTC", ["Australia/Perth"]),
        (-1, [None, "America/Halifax"], "UTC", ["UTC"]),
        (-1, [None, "Europe/Lisbon"], "America/Denver", ["Europe/Lisbon"]),
        (0.5, [None, "Pacific/Auckland"], "America/Lima", ["Pacific/Auckland"]),
    ],
)
def test_a_local_time_that_is_past_in_some_zones_says_where(
    hours: float, zones: list[str | None], default: str, told: list[str]
) -> None:
    """Who names no zone counts as being in the app's; only zones of recipients are told."""
    (warning,) = refuse_past(read_send_at(wall(hours)), zones, AT, default)
    assert f"has passed in {', '.join(told)}: " in warning


def test_many_zones_are_counted() -> None:
    """Of more zones than three the first are named."""
    zones = ["Asia/Tokyo", "Asia/Seoul", "Asia/Manila", "Asia/Dubai", "Asia/Kabul", "UTC"]
    (warning,) = refuse_past(read_send_at(wall(2)), zones, AT)
    assert "has passed in Asia/Dubai, Asia/Kabul, Asia/Manila and 2 more zones: " in warning


@pytest.mark.parametrize(
    ("hours", "is_it"), [(-13, False), (-11, True), (0, True), (13, True), (15, False)]
)
def test_only_within_the_span_of_the_world_s_clocks_zones_matter(
    hours: float,
    is_it: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """What is past, or to come, on every clock of the world needs nobody's zone."""
    assert is_near(read_send_at(wall(hours)), AT) is is_it
