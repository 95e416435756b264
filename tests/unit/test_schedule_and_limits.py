"""Times of the sender's, quiet hours, caps and rates, over years and changes of the clocks."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handbell._token_bucket import TokenBucket
from handbell.delivery.policy.cap import LONGEST_PERIOD_SECONDS, Cap, read_cap
from handbell.delivery.policy.quiet_hours import QuietHours, disturbs, held_until, read_quiet_hours
from handbell.delivery.policy.rate_limit import (
    FASTEST_PER_SECOND,
    RateLimit,
    read_rate_limit,
)
from handbell.delivery.policy.schedule import Instant, LocalTime, SendAt, due_at, read_send_at
from handbell.errors import AppError, NotificationError

PARIS, NEW_YORK, LORD_HOWE = "Europe/Paris", "America/New_York", "Australia/Lord_Howe"
KATHMANDU = "Asia/Kathmandu"
ZONES = (PARIS, NEW_YORK, LORD_HOWE, KATHMANDU, "UTC")
CHRISTMAS_EVE = datetime(2026, 12, 24, 18)  # noqa: DTZ001 - a local time has no zone
NOW = 1_800_000_000.0
DAY = 24 * 3600


def _utc(text: str) -> float:
    return datetime.fromisoformat(f"{text}+00:00").timestamp()


# -- a time of the sender's ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1_798_131_600, Instant(1_798_131_600)),
        (1_798_131_600.9, Instant(1_798_131_600)),
        ("2026-12-24T18:00+01:00", Instant(1_798_131_600)),
        ("2026-12-24T17:00:00Z", Instant(1_798_131_600)),
        ("2026-12-24t17:00:00z", Instant(1_798_131_600)),
        ("2026-12-24t18:00", LocalTime(CHRISTMAS_EVE)),
        (" 20261224T170000Z ", Instant(1_798_131_600)),
        (datetime(2026, 12, 24, 17, tzinfo=UTC), Instant(1_798_131_600)),
        (CHRISTMAS_EVE.replace(tzinfo=timezone(timedelta(hours=1))), Instant(1_798_131_600)),
        ("2026-12-24T18:00", LocalTime(CHRISTMAS_EVE)),
        ("2026-12-24 18:00:00", LocalTime(CHRISTMAS_EVE)),
        (CHRISTMAS_EVE, LocalTime(CHRISTMAS_EVE)),
        (CHRISTMAS_EVE.replace(fold=1), LocalTime(CHRISTMAS_EVE)),
        (Instant(5), Instant(5)),
        (LocalTime(CHRISTMAS_EVE), LocalTime(CHRISTMAS_EVE)),
    ],
)
def test_a_time_with_a_zone_is_an_instant_and_one_without_is_local(
    value: object, expected: SendAt
) -> None:
    """The offset decides; a number is UNIX seconds."""
    read = read_send_at(value)
    assert read == expected
    assert isinstance(read, LocalTime) is isinstance(expected, LocalTime)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("tomorrow", r"`send_at` is the text 'tomorrow'. Write 2026-12-24T18:00 for that time"),
        ("2026-13-01T00:00", "is the text '2026-13-01T00:00'"),
        ("2026-12-24T25:00", "is the text '2026-12-24T25:00'"),
        ("", "is the text ''"),
        ("2026-12-24", "names no time of day. Add one, such as 2026-12-24T18:00"),
        ("20261224", "names no time of day"),
        (date(2026, 12, 24), "is a Python date"),
        (None, "is null"),
        (True, "is true"),
        (float("nan"), "is the number nan"),
        (1_798_131_600_000, "in seconds; this looks like milliseconds"),
        (-1, "after 1970"),
        ("0001-01-01T00:00", "is in the year 1. It must be between 1971 and 9998"),
        ("9999-12-31T23:59", "is in the year 9999"),
        ("0001-01-01T00:00+05:00", "1970"),
        ([], "is a list"),
    ],
)
def test_what_is_no_time_is_refused_with_a_fix(value: object, text: str) -> None:
    """Each error names the field, what was given and what to write."""
    with pytest.raises(NotificationError, match=text) as caught:
        read_send_at(value)
    assert caught.value.fix


@settings(deadline=None)  # the first use of a zone reads its file
@given(
    st.text()
    | st.floats()
    | st.integers()
    | st.datetimes()
    | st.datetimes(timezones=st.timezones())
)
def test_any_value_is_read_or_refused(value: object) -> None:
    """Whatever is given, it is read or refused with our own error; and what is read can be due."""
    try:
        read = read_send_at(value)
    except NotificationError:
        return
    assert read_send_at(str(read)) == read
    assert all(isinstance(due_at(read, zone), float) for zone in ZONES)


@pytest.mark.parametrize(
    ("local", "zone", "expected"),
    [
        ("2026-12-24T18:00", PARIS, "2026-12-24T17:00"),
        ("2026-06-24T18:00", PARIS, "2026-06-24T16:00"),
        ("2026-12-24T18:00", NEW_YORK, "2026-12-24T23:00"),
        ("2026-12-24T18:00", KATHMANDU, "2026-12-24T12:15"),
        ("2026-12-24T18:00", "UTC", "2026-12-24T18:00"),
        # Spring: 02:00 becomes 03:00, so what lies between falls due at the jump.
        ("2026-03-29T01:59:59", PARIS, "2026-03-29T00:59:59"),
        ("2026-03-29T02:00", PARIS, "2026-03-29T01:00"),
        ("2026-03-29T02:30", PARIS, "2026-03-29T01:00"),
        ("2026-03-29T02:59:59.999999", PARIS, "2026-03-29T01:00"),
        ("2026-03-29T03:00", PARIS, "2026-03-29T01:00"),
        ("2026-03-29T03:00:01", PARIS, "2026-03-29T01:00:01"),
        ("2026-03-08T02:30", NEW_YORK, "2026-03-08T07:00"),
        ("2026-10-04T02:10", LORD_HOWE, "2026-10-03T15:30"),
        ("2026-10-04T02:30", LORD_HOWE, "2026-10-03T15:30"),
        # Autumn: 02:00 to 03:00 comes twice, and the first one counts.
        ("2026-10-25T02:00", PARIS, "2026-10-25T00:00"),
        ("2026-10-25T02:30", PARIS, "2026-10-25T00:30"),
        ("2026-10-25T03:00", PARIS, "2026-10-25T02:00"),
        ("2026-11-01T01:30", NEW_YORK, "2026-11-01T05:30"),
        ("2026-04-05T01:45", LORD_HOWE, "2026-04-04T14:45"),
        # Samoa left out a whole day when it crossed the date line.
        ("2011-12-30T18:00", "Pacific/Apia", "2011-12-30T10:00"),
        ("2011-12-31T00:00", "Pacific/Apia", "2011-12-30T10:00"),
    ],
)
def test_a_local_time_falls_due_by_the_clock_on_the_wall(
    local: str, zone: str, expected: str
) -> None:
    """A time that is jumped over falls due at the jump, one that comes twice the first time."""
    assert due_at(read_send_at(local), zone) == _utc(expected)


@pytest.mark.parametrize("zone", [PARIS, None, "Mars/Olympus", "../etc/passwd", "", "\0"])
def test_an_instant_is_the_same_in_every_zone(zone: str | None) -> None:
    """The zone of a session does not matter to an instant."""
    assert due_at(Instant(1_798_131_600), zone) == 1_798_131_600


@pytest.mark.parametrize(
    "zone", [None, "", "Mars/Olympus", "../../etc/passwd", "/etc/passwd", "\0"]
)
def test_a_session_without_a_usable_zone_is_in_the_default_zone(zone: str | None) -> None:
    """The app's zone counts, UTC without one, and UTC again where the data knows neither."""
    send_at, quiet = LocalTime(CHRISTMAS_EVE), QuietHours(time(17), time(19))
    assert due_at(send_at, zone, PARIS) == _utc("2026-12-24T17:00")
    assert (
        due_at(send_at, zone) == due_at(send_at, zone, "Mars/Olympus") == _utc("2026-12-24T18:00")
    )
    assert held_until(quiet, zone, _utc("2026-12-24T16:30"), PARIS) == _utc("2026-12-24T18:00")
    assert held_until(quiet, zone, _utc("2026-12-24T16:30")) is None


@pytest.mark.parametrize("zone", ZONES)
def test_local_times_are_right_over_a_year(zone: str) -> None:
    """Each quarter of an hour falls due when the clock first shows it, or at the jump over it."""
    there, wall = ZoneInfo(zone), datetime(2026, 1, 1)  # noqa: DTZ001
    previous = due_at(LocalTime(wall), zone) - 900
    while wall.year == 2026:
        due = due_at(LocalTime(wall), zone)
        shown = datetime.fromtimestamp(due, there)
        assert shown.fold == 0
        if shown.replace(tzinfo=None) != wall:
            assert shown.replace(tzinfo=None) > wall
            just_before = datetime.fromtimestamp(due - 1, there).replace(tzinfo=None)
            assert just_before < wall
        # Never back, and over the second of two equal hours in one step.
        assert 0 <= due - previous <= 900 + 3600
        previous, wall = due, wall + timedelta(minutes=15)


# -- quiet hours --------------------------------------------------------------------------------

QUIET = (
    read_quiet_hours("22:00-07:00"),
    read_quiet_hours("00:30-02:15"),
    read_quiet_hours("02:15-06:00"),
    read_quiet_hours("12:00-14:00"),
    read_quiet_hours("02:45-02:15"),
)


def _expected_ends(quiet: QuietHours, zone: str, instants: range) -> dict[int, int | None]:
    """Return for each instant when it is loud again, found by looking at every later one."""
    there, loud_from, ends = ZoneInfo(zone), None, {}
    start = quiet.start.hour * 60 + quiet.start.minute
    end = quiet.end.hour * 60 + quiet.end.minute
    for at in reversed(instants):
        wall = datetime.fromtimestamp(at, there)
        is_quiet = (wall.hour * 60 + wall.minute - start) % 1440 < (end - start) % 1440
        if not is_quiet:
            loud_from = at
        if loud_from is not None:
            ends[at] = loud_from if is_quiet else None
    return ends


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("quiet", QUIET, ids=str)
def test_quiet_hours_are_right_over_a_year(quiet: QuietHours, zone: str) -> None:
    """Over a year by quarters of an hour: None when it is loud, else the first loud instant."""
    first = int(_utc("2026-01-01T00:00"))
    expected = _expected_ends(quiet, zone, range(first, first + 368 * DAY, 900))
    found = {at: held_until(quiet, zone, at) for at in expected}
    assert len(expected) > 366 * 96
    assert found == expected
    # In Paris and New York the jump leaves out the only loud half hour of one day.
    longest = 2 * DAY if str(quiet) == "02:45-02:15" else DAY + 3600
    assert all(until - at <= longest for at, until in found.items() if until is not None)


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        (PARIS, "2026-03-28"),
        (PARIS, "2026-10-24"),
        (NEW_YORK, "2026-03-07"),
        (NEW_YORK, "2026-10-31"),
        (LORD_HOWE, "2026-04-04"),
        (LORD_HOWE, "2026-10-03"),
        ("Pacific/Apia", "2011-12-29"),
    ],
)
@pytest.mark.parametrize("hours", ["21:53-07:11", "01:47-02:13", "02:07-02:53", "02:07-01:59"])
def test_quiet_hours_are_right_to_the_minute_when_clocks_change(
    hours: str, zone: str, day: str
) -> None:
    """Around each change of the clocks every minute has the first loud instant after it."""
    first = int(_utc(f"{day}T00:00"))
    expected = _expected_ends(read_quiet_hours(hours), zone, range(first, first + 4 * DAY, 60))
    assert expected == {at: held_until(read_quiet_hours(hours), zone, at) for at in expected}


@pytest.mark.parametrize(
    ("hours", "now", "expected"),
    [
        ("22:00-07:00", "2026-12-24T20:59:59.999", None),
        ("22:00-07:00", "2026-12-24T21:00", "2026-12-25T06:00"),
        ("22:00-07:00", "2026-12-25T05:59:59.999", "2026-12-25T06:00"),
        ("22:00-07:00", "2026-12-25T06:00", None),
        # Hours that end within the jump are over at the jump.
        ("22:00-02:30", "2026-03-29T00:30", "2026-03-29T01:00"),
        # Hours that end within the hour that comes twice end twice.
        ("22:00-02:30", "2026-10-24T23:00", "2026-10-25T00:30"),
        ("22:00-02:30", "2026-10-25T00:45", None),
        ("22:00-02:30", "2026-10-25T01:15", "2026-10-25T01:30"),
        # Hours that begin within it are left once more when the clocks go back.
        ("02:15-06:00", "2026-10-25T00:45", "2026-10-25T01:00"),
    ],
)
def test_quiet_hours_end_when_the_clock_says_so(hours: str, now: str, expected: str | None) -> None:
    """In Paris: the start is quiet, the end is not, and changes of the clocks count."""
    until = held_until(read_quiet_hours(hours), PARIS, _utc(now))
    assert until == (None if expected is None else _utc(expected))


times = st.times().map(lambda moment: moment.replace(second=0, microsecond=0))
instants = st.floats(_utc("1975-01-01T00:00"), _utc("2060-01-01T00:00"))


@settings(deadline=None)  # the first use of a zone reads its file
@given(times, times, st.timezone_keys(), instants)
def test_quiet_hours_hold_until_a_loud_instant(
    start: time, end: time, zone: str, now: float
) -> None:
    """For any zone and time: loud now, or held until the first loud second, which is not far."""
    if start == end:
        return
    quiet, there = QuietHours(start, end), ZoneInfo(zone)
    until = held_until(quiet, zone, now)
    assert quiet.cover(datetime.fromtimestamp(now, there).time()) is (until is not None)
    if until is not None:
        assert now < until <= now + 2 * DAY
        assert not quiet.cover(datetime.fromtimestamp(until, there).time())
        assert quiet.cover(datetime.fromtimestamp(until - 1, there).time())


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("22:00-07:00", time(22), time(7)),
        (" 9:05 - 17:30 ", time(9, 5), time(17, 30)),
        ("22:00\u201307:00", time(22), time(7)),
        ("22:00 to 00:00", time(22), time(0)),
    ],
)
def test_quiet_hours_are_read(text: str, start: time, end: time) -> None:
    """Two times of the 24-hour clock, and the text of a value reads back as it."""
    quiet = read_quiet_hours(text)
    assert quiet == QuietHours(start, end)
    assert read_quiet_hours(str(quiet)) == read_quiet_hours(quiet) == quiet


@pytest.mark.parametrize(
    "value", ["", "22-7", "22:00", "24:00-07:00", "22:60-07:00", "10pm-7am", None, 22, ["22:00"]]
)
def test_other_quiet_hours_are_refused(value: object) -> None:
    """The error shows how to write them."""
    with pytest.raises(AppError, match="Write two times of the 24-hour clock, such as 22:00-07:00"):
        read_quiet_hours(value)


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [
        (time(7), time(7), "start and end at 07:00"),
        (time(7, 0, 1), time(8), "without a zone"),
        (time(7), time(8, tzinfo=UTC), "without a zone"),
    ],
)
def test_quiet_hours_are_valid_by_construction(start: time, end: time, text: str) -> None:
    """Never is neither all day nor no time at all, and the zone is each recipient's."""
    with pytest.raises(AppError, match=text):
        QuietHours(start, end)


@pytest.mark.parametrize(
    ("push_type", "level", "expected"),
    [
        ("alert", None, True),
        ("alert", "active", True),
        ("alert", "passive", True),
        ("alert", "time-sensitive", False),
        ("alert", "critical", False),
        ("background", None, False),
        ("voip", None, False),
        ("liveactivity", None, False),
        ("pushtotalk", None, False),
        ("mdm", None, False),
    ],
)
def test_only_what_disturbs_is_held_and_counted(
    push_type: str, level: str | None, *, expected: bool
) -> None:
    """An alert disturbs, unless it is urgent; nothing else is shown unasked."""
    assert disturbs(push_type=push_type, interruption_level=level) is expected


# -- a cap per person ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "most", "seconds"),
    [
        ("5/day", 5, DAY),
        ("5 per day", 5, DAY),
        ("3/2 hours", 3, 7200),
        ("3/2h", 3, 7200),
        ("1/30min", 1, 1800),
        ("1/5 mins", 1, 300),
        ("10/week", 10, 7 * DAY),
        ("2/90 s", 2, 90),
        ("7/31 Days", 7, LONGEST_PERIOD_SECONDS),
    ],
)
def test_a_cap_is_read(text: str, most: int, seconds: int) -> None:
    """A number and a period, and the text of a value reads back as it."""
    cap = read_cap(text)
    assert cap == Cap(most, seconds)
    assert read_cap(str(cap)) == read_cap(cap) == cap


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", "A cap is the text ''. Write it so: 5/day or 3/2 hours"),
        ("five a day", "Write it so"),
        (5, "Write it so"),
        ("-5/day", "Write it so"),
        ("5/dya", "Did you mean day"),
        ("5/fortnight", "Use one of: second, minute, hour, day, week"),
        ("2.5/day", "Write a whole number"),
        ("5/day burst 3", "Write a whole number"),
        ("0/day", "Switch the app off instead"),
        ("5/0 days", "between one second and 31 days"),
        ("5/32 days", "between one second and 31 days"),
    ],
)
def test_other_caps_are_refused(value: object, text: str) -> None:
    """The error says what to write instead."""
    with pytest.raises(AppError, match=text):
        read_cap(value)


@pytest.mark.parametrize(("count", "expected"), [(0, True), (4, True), (5, False), (6, False)])
def test_a_cap_allows_so_many_in_its_period(count: int, *, expected: bool) -> None:
    """The fifth goes out, the sixth does not; what is older than the period does not count."""
    cap = Cap(5, DAY)
    assert cap.allows(count) is expected
    assert cap.since(NOW) == NOW - DAY


# -- a rate per app -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "per_second", "burst"),
    [
        (200, 200, 200),
        (0.5, 0.5, 1),
        ("200/s", 200, 200),
        ("200/sec", 200, 200),
        ("6000 per minute", 100, 100),
        ("1/10 seconds", 0.1, 1),
        ("200/s burst 500", 200, 500),
        ("200/s, burst 1", 200, 1),
        ("1/day", 1 / DAY, 1),
    ],
)
def test_a_rate_limit_is_read(value: object, per_second: float, burst: int) -> None:
    """A number and a period; the burst is a second's worth unless it is given."""
    limit = read_rate_limit(value)
    assert limit == RateLimit(per_second, burst)
    assert read_rate_limit(str(limit)) == read_rate_limit(limit) == limit


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("fast", "A rate limit is the text 'fast'. Write it so: 200/s or 6000/minute"),
        (None, "Write it so"),
        (True, "Write it so"),
        (0, "Use more than 0"),
        (-1, "Use more than 0"),
        (float("inf"), "Use more than 0 and at most 1,000,000 per second"),
        (float("nan"), "Use more than 0"),
        (2 * FASTEST_PER_SECOND, "at most 1,000,000"),
        ("200/0 s", "Use a period of a second or more"),
        ("200/parsec", "Use one of"),
        ("200/s burst 0", "Use 1 or more"),
    ],
)
def test_other_rate_limits_are_refused(value: object, text: str) -> None:
    """The error says what to write instead."""
    with pytest.raises(AppError, match=text):
        read_rate_limit(value)


def _taken(bucket: TokenBucket, wanted: int, now: float) -> tuple[int, TokenBucket, float]:
    granted, left, wait = bucket.take(wanted, now)
    return granted, left, round(wait, 4)


def test_a_bucket_gives_its_burst_then_its_rate() -> None:
    """Full at first, then as much as time has brought, and never more than it holds."""
    granted, bucket, wait = _taken(TokenBucket.full(5, 10, NOW), 3, NOW)
    assert (granted, wait) == (3, 0)
    granted, bucket, wait = _taken(bucket, 4, NOW)
    assert (granted, wait) == (2, 0.2)
    granted, bucket, wait = _taken(bucket, 2, NOW + 0.21)
    assert (granted, wait) == (2, 0)
    granted, bucket, wait = _taken(bucket, 100, NOW + 3600)
    assert (granted, wait) == (5, 0.5)


def test_a_clock_set_back_neither_adds_nor_stalls() -> None:
    """A bucket goes on from the time it is told, whatever it was told before."""
    _, empty, _ = TokenBucket.full(5, 10, NOW).take(5, NOW)
    granted, bucket, wait = _taken(empty, 1, NOW - 3600)
    assert (granted, wait) == (0, 0.1)
    assert bucket.take(1, NOW - 3600 + 0.11).granted == 1


limits = st.builds(RateLimit, st.floats(0.01, 1e6), st.integers(1, 10**4))


@given(limits, st.lists(st.tuples(st.integers(-1, 2000), st.floats(0, 1e5)), max_size=50))
def test_no_more_is_granted_than_burst_and_rate_allow(
    limit: RateLimit, wishes: list[tuple[int, float]]
) -> None:
    """Over any span: at most the burst and the rate times the span, and never more than wanted."""
    now, bucket, total = NOW, TokenBucket.full(limit.burst, limit.per_second, NOW), 0
    for wanted, pause in wishes:
        now += pause
        granted, bucket, wait = bucket.take(wanted, now)
        assert 0 <= granted <= max(wanted, 0)
        assert (wait == 0) is (granted >= wanted)
        assert 0 <= bucket.tokens <= limit.burst
        total += granted
    allowed = limit.burst + limit.per_second * (now - NOW)
    assert total <= allowed * (1 + 1e-9) + 1e-6


@given(limits, st.integers(1, 10**7), st.floats(0, 1))
def test_a_wait_is_long_enough(limit: RateLimit, wanted: int, share: float) -> None:
    """Whoever waits as long as told gets the rest, or as much as the bucket holds."""
    bucket = replace(
        TokenBucket.full(limit.burst, limit.per_second, NOW), tokens=limit.burst * share
    )
    granted, bucket, wait = bucket.take(wanted, NOW)
    if granted < wanted:
        rest = wanted - granted
        assert bucket.take(rest, NOW + wait).granted == min(rest, limit.burst)


def test_every_operator_value_is_hashable_and_frozen() -> None:
    """Settings are values: they can be keys of a cache, and nothing changes them."""
    values: list[Any] = [QUIET[0], Cap(5, DAY), RateLimit(1), Instant(1), LocalTime(CHRISTMAS_EVE)]
    assert len(set(values)) == len(values)
