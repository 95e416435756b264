"""When a push may go out: a time of the sender's, quiet hours, a cap per person, a rate per app.

All of it is pure: ``now`` and counts are passed in, nothing is read or written. Instants are UNIX
seconds. A session's time zone is an IANA name; a session that names none, or one that this
machine's time zone data does not know, counts as being in the default zone.

Texts of an operator are read here, and each value's ``str`` is the text that reads back as it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, tzinfo
from functools import lru_cache
from math import ceil, floor, isfinite
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from handbell._text import count, moment, nearest
from handbell.creation.values import instant, shown
from handbell.errors import AppError, NotificationError

DEFAULT_ZONE: Final = "UTC"
LONGEST_PERIOD_SECONDS: Final = 31 * 24 * 3600
"""How far back a cap may count."""
FASTEST_PER_SECOND: Final = 1_000_000
LATE_SECONDS: Final = 60
"""A time is past when it is longer ago: what was meant as now may take that long to arrive."""

# -- a time of the sender's ---------------------------------------------------------------------

_YEARS: Final = range(1971, 9999)


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment, the same for everybody; whole UNIX seconds."""

    seconds: int

    def __str__(self) -> str:
        return datetime.fromtimestamp(self.seconds, UTC).isoformat()


@dataclass(frozen=True, slots=True)
class LocalTime:
    """One reading of the clock on the wall, wherever each recipient is; ``wall`` has no zone."""

    wall: datetime

    def __str__(self) -> str:
        return self.wall.isoformat()


SendAt = Instant | LocalTime


def read_send_at(value: object) -> SendAt:
    """Read when to send: an instant, or a local time in each recipient's zone.

    UNIX seconds, a :class:`~datetime.datetime` with a zone and ISO 8601 text with an offset
    (``2026-12-24T18:00+01:00``) are an instant, kept in whole seconds. A datetime without a zone
    and ISO 8601 text without an offset (``2026-12-24T18:00``) are local. A time in the past is
    read; :func:`refuse_past` decides. Raises :class:`~handbell.errors.NotificationError` for
    anything else.
    """
    if isinstance(value, Instant | LocalTime):
        return value
    moment = _read_moment(value) if isinstance(value, str) else value
    if not isinstance(moment, datetime) or moment.utcoffset() is not None:
        return Instant(instant("send_at", moment))
    if moment.year not in _YEARS:
        raise NotificationError(
            f"`send_at` is in the year {moment.year}", fix="It must be between 1971 and 9998"
        )
    return LocalTime(moment.replace(tzinfo=None, fold=0))


def _read_moment(text: str) -> datetime:
    if _is_day(text.strip()):
        raise NotificationError(
            f"`send_at` is {shown(text)}, which names no time of day",
            fix="Add one, such as 2026-12-24T18:00",
        )
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise NotificationError(
            f"`send_at` is {shown(text)}",
            fix="Write 2026-12-24T18:00 for that time wherever each recipient is, or "
            "2026-12-24T18:00+01:00 for one moment",
        ) from None


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def due_at(send_at: SendAt, zone: str | None, default_zone: str = DEFAULT_ZONE) -> float:
    """Return the instant at which it falls due for a session in ``zone``, in UNIX seconds.

    A local time that the clocks jump over in spring falls due at the jump, the first instant after
    the gap; one that comes twice in autumn, the first time.
    """
    if isinstance(send_at, Instant):
        return float(send_at.seconds)
    return _instant_of(send_at.wall, zone, default_zone)


_NAMED_ZONES: Final = 3
# No zone's clock is further behind or ahead.
_FIRST_ZONE: Final = "Pacific/Kiritimati"
LAST_ZONE: Final = "Etc/GMT+12"
"""Where a local time comes last."""


def is_near(send_at: SendAt, now: float) -> bool:
    """Return whether it depends on a recipient's zone whether that time is past."""
    if isinstance(send_at, Instant):
        return False
    late = now - LATE_SECONDS
    return due_at(send_at, _FIRST_ZONE) < late <= due_at(send_at, LAST_ZONE)


def refuse_past(
    send_at: SendAt, zones: Iterable[str | None], now: float, default_zone: str = DEFAULT_ZONE
) -> list[str]:
    """Raise NotificationError for a time that is past, by more than :data:`LATE_SECONDS`.

    A local time is past when it is in each of the ``zones`` of the recipients; where it is past in
    some of them only, it falls due there at once, and the warning that is returned says so.
    """
    late = now - LATE_SECONDS
    if isinstance(send_at, Instant):
        if send_at.seconds < late:
            raise _past(f"{moment(send_at.seconds * 1000)}, which is in the past")
        return []
    named = sorted({zone or default_zone for zone in zones} or {default_zone})
    past = [zone for zone in named if due_at(send_at, zone, default_zone) < late]
    if len(past) == len(named):
        where = "wherever the recipients are" if len(named) > 1 else f"in {named[0]}"
        raise _past(f"{str(send_at)[:16]}, which is in the past {where}")
    if not past:
        return []
    more = len(past) - _NAMED_ZONES
    told = ", ".join(past[:_NAMED_ZONES]) + (f" and {count(more, 'more zone')}" if more > 0 else "")
    return [f"{str(send_at)[:16]} has passed in {told}: devices there get it at once."]


def _past(when: str) -> NotificationError:
    fix = "Name a time to come, or none to send it now"
    return NotificationError(f"`send_at` is {when}", fix=fix)


@lru_cache(maxsize=4096)
def _instant_of(wall: datetime, zone: str | None, default_zone: str) -> float:
    there = _find_zone(zone, default_zone)
    first = wall.replace(tzinfo=there, fold=0).timestamp()
    second = wall.replace(tzinfo=there, fold=1).timestamp()
    # Only in a gap does fold=1, read with the offset after the jump, come before fold=0 (PEP 495).
    return float(_jump(there, floor(second), ceil(first))) if first > second else first


def _jump(zone: tzinfo, before: int, after: int) -> int:
    """Return the first second whose offset is not the one at ``before``, up to ``after``."""
    offset = _at(before, zone).utcoffset()
    while after - before > 1:
        middle = (before + after) // 2
        if _at(middle, zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after


def _at(seconds: float, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(seconds, zone)


def _find_zone(zone: str | None, default_zone: str) -> tzinfo:
    return (_load_zone(zone) if zone else None) or _load_zone(default_zone) or UTC


@lru_cache(maxsize=1024)
def _load_zone(name: str) -> tzinfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None


# -- quiet hours --------------------------------------------------------------------------------

_DAY_SECONDS: Final = 24 * 3600
_MINUTE_SECONDS: Final = 60
_HOURS: Final = re.compile(
    r"([01]?\d|2[0-3]):([0-5]\d)\s*(?:-|–|to)\s*([01]?\d|2[0-3]):([0-5]\d)"  # noqa: RUF001
)
_LOUD_LEVELS: Final = frozenset({"time-sensitive", "critical"})


def disturbs(*, push_type: str, interruption_level: str | None) -> bool:
    """Return whether quiet hours hold it, and a cap counts it.

    Both are about what a person is shown unasked: the push type ``alert``. Two kinds are exempt,
    neither held nor counted. What shows nothing (``background``, ``widgets`` …), or what the person
    is waiting for (``voip``, ``pushtotalk``, ``liveactivity``). And alerts of the interruption
    levels ``time-sensitive`` and ``critical``, which are for what cannot wait: the phone shows them
    in spite of a Focus too, and lets the person forbid it.
    """
    return push_type == "alert" and interruption_level not in _LOUD_LEVELS


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From ``start`` until before ``end``, by the clock on the wall where each recipient is.

    Whole minutes without a zone. They span midnight when ``end`` is the earlier one. Raises
    :class:`~handbell.errors.AppError` when both are the same.
    """

    start: time
    end: time

    def __post_init__(self) -> None:
        for each in (self.start, self.end):
            if each.tzinfo is not None or each.second or each.microsecond:
                raise AppError(
                    f"Quiet hours name {each.isoformat()}",
                    fix="Use hours and minutes without a zone; each recipient's own counts",
                )
        if self.start == self.end:
            raise AppError(
                f"Quiet hours start and end at {self.start:%H:%M}",
                fix="Name two times, or switch the app off to send nothing at all",
            )

    def __str__(self) -> str:
        return f"{self.start:%H:%M}-{self.end:%H:%M}"

    def cover(self, wall: time) -> bool:
        """Return whether it is quiet when the clock on the wall reads so."""
        if self.start < self.end:
            return self.start <= wall < self.end
        return wall >= self.start or wall < self.end


def read_quiet_hours(value: object) -> QuietHours:
    """Read ``22:00-07:00``. Raises :class:`~handbell.errors.AppError` for anything else."""
    if isinstance(value, QuietHours):
        return value
    found = _HOURS.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise AppError(
            f"Quiet hours are {shown(value)}",
            fix="Write two times of the 24-hour clock, such as 22:00-07:00; midnight is 00:00",
        )
    hour, minute, end_hour, end_minute = map(int, found.groups())
    return QuietHours(time(hour, minute), time(end_hour, end_minute))


def held_until(
    quiet: QuietHours, zone: str | None, now: float, default_zone: str = DEFAULT_ZONE
) -> float | None:
    """Return the first instant after ``now`` that is not quiet in ``zone``, or None if none is now.

    Right when the clocks change: hours that a jump cuts short end at the jump, and hours that come
    twice are quiet twice. At most a day and the size of the jump away, but for a day whose only
    loud time was jumped over. Results are kept by zone and minute, for loops over sessions.
    """
    return _held_until(quiet, zone, int(now // _MINUTE_SECONDS), default_zone)


# Offsets are whole minutes since 1972, so that the answer is the same throughout a minute.
@lru_cache(maxsize=4096)
def _held_until(
    quiet: QuietHours, zone: str | None, minute: int, default_zone: str
) -> float | None:
    there = _find_zone(zone, default_zone)
    start = at = minute * _MINUTE_SECONDS
    wall = _at(at, there)
    while quiet.cover(wall.time()):
        end = at + _seconds_between(wall.time(), quiet.end)
        is_steady = _at(end, there).utcoffset() == wall.utcoffset()
        at = end if is_steady else _jump(there, at, end)
        wall = _at(at, there)
    return float(at) if at > start else None


def _seconds_between(wall: time, end: time) -> int:
    minutes = (end.hour - wall.hour) * 60 + end.minute - wall.minute
    return (minutes * _MINUTE_SECONDS - wall.second) % _DAY_SECONDS


# -- a cap per person ---------------------------------------------------------------------------

_UNITS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 24 * 3600, "week": 7 * 24 * 3600}
_SHORT_UNITS: Final = {"s": "second", "sec": "second", "min": "minute", "h": "hour", "d": "day"}
_SHARE: Final = re.compile(
    r"(?P<number>\d{1,18}(?:\.\d{1,18})?(?:e-?\d{1,2})?)\s*(?:/|per\s)\s*(?P<times>\d{1,9}\s*)?(?P<unit>[a-z]+)"
    r"(?:\s*,?\s*burst\s+(?P<burst>\d{1,9}))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Cap:
    """At most ``most`` notifications for one person in any ``seconds``.

    A person is a user of an app, however many devices; the period rolls, so that no hour of the day
    is the one in which all caps are fresh. What it stops is recorded as ``capped``, not sent later.
    Only what :func:`disturbs` counts. Raises :class:`~handbell.errors.AppError` for a cap of none
    and for a period beyond :data:`LONGEST_PERIOD_SECONDS`.
    """

    most: int
    seconds: int

    def __post_init__(self) -> None:
        if self.most < 1:
            raise AppError("A cap of 0 lets nothing through", fix="Switch the app off instead")
        if not 1 <= self.seconds <= LONGEST_PERIOD_SECONDS:
            raise AppError(
                f"A cap counts over {self.seconds} seconds",
                fix="Use a period between one second and 31 days, such as 5/day",
            )

    def __str__(self) -> str:
        name, unit = max(
            (each for each in _UNITS.items() if self.seconds % each[1] == 0),
            key=lambda each: each[1],
        )
        times = self.seconds // unit
        return f"{self.most}/{name}" if times == 1 else f"{self.most}/{times} {name}s"

    def since(self, now: float) -> float:
        """Return the instant after which notifications count."""
        return now - self.seconds

    def allows(self, count_in_period: int) -> bool:
        """Return whether one more may go to a person who was sent so many since :meth:`since`."""
        return count_in_period < self.most


def read_cap(value: object) -> Cap:
    """Read ``5/day``, ``3 per 2 hours``. Raises :class:`~handbell.errors.AppError` otherwise."""
    if isinstance(value, Cap):
        return value
    number, seconds, burst = _read_share("A cap", value, "5/day or 3/2 hours")
    if not number.is_integer() or burst is not None:
        raise AppError(f"A cap is {shown(value)}", fix="Write a whole number, such as 5/day")
    return Cap(int(number), seconds)


def _read_share(what: str, value: object, example: str) -> tuple[float, int, int | None]:
    """Return the number, the period in seconds and the burst of a text such as ``5/2 days``."""
    found = _SHARE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise AppError(f"{what} is {shown(value)}", fix=f"Write it so: {example}")
    burst = found["burst"]
    seconds = int(found["times"] or 1) * _read_unit(what, found["unit"].lower())
    return float(found["number"]), seconds, None if burst is None else int(burst)


def _read_unit(what: str, word: str) -> int:
    singular = word.removesuffix("s") or word
    name = _SHORT_UNITS.get(singular, singular)
    if name not in _UNITS:
        near = nearest(word, _UNITS)
        raise AppError(
            f"{what} counts per {word[:20]!r}",
            fix=f"Did you mean {near}?" if near else f"Use one of: {', '.join(_UNITS)}",
        )
    return _UNITS[name]


# -- a rate per app -----------------------------------------------------------------------------

_TICK: Final = 1e-6  # more than the rounding of an instant, so that a wait is never too short


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``per_second`` pushes a second on average, and ``burst`` at once.

    Raises :class:`~handbell.errors.AppError` for a rate that is not above 0, or over
    :data:`FASTEST_PER_SECOND`, and for a burst below 1.
    """

    per_second: float
    burst: int = 1

    def __post_init__(self) -> None:
        if not (isfinite(self.per_second) and 0 < self.per_second <= FASTEST_PER_SECOND):
            raise AppError(
                f"A rate limit is {self.per_second:g} per second",
                fix=f"Use more than 0 and at most {FASTEST_PER_SECOND:,} per second",
            )
        if self.burst < 1:
            raise AppError(f"A rate limit has a burst of {self.burst}", fix="Use 1 or more")

    def __str__(self) -> str:
        rate = repr(float(self.per_second)).removesuffix(".0")
        return f"{rate}/second burst {self.burst}"

    def full(self, now: float) -> "Bucket":
        """Return a bucket from which nothing was taken yet."""
        return Bucket(self, float(self.burst), now)


def read_rate_limit(value: object) -> RateLimit:
    """Read ``200`` (per second), ``200/s``, ``6000 per minute``, ``200/s burst 500``.

    The burst is one second's worth unless it is given, and at least 1. Raises
    :class:`~handbell.errors.AppError` for anything else.
    """
    if isinstance(value, RateLimit):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return RateLimit(value, _burst(value))
    number, seconds, burst = _read_share("A rate limit", value, "200/s or 6000/minute")
    if not seconds:
        raise AppError(f"A rate limit is {shown(value)}", fix="Use a period of a second or more")
    rate = number / seconds
    return RateLimit(rate, _burst(rate) if burst is None else burst)


def _burst(per_second: float) -> int:
    return ceil(per_second) if 1 < per_second <= FASTEST_PER_SECOND else 1


@dataclass(frozen=True, slots=True)
class Bucket:
    """How much of a rate limit was there at the instant ``at``; small enough to be stored."""

    limit: RateLimit
    tokens: float
    at: float


class Taken(NamedTuple):
    """How many pushes may go now, the bucket that is left, and the wait in seconds for the rest.

    ``wait_seconds`` is 0 when all were granted. After that time the rest can be had, or as much of
    it as the bucket holds; to come sooner for less is fine.
    """

    granted: int
    bucket: Bucket
    wait_seconds: float


def take(bucket: Bucket, wanted: int, now: float) -> Taken:
    """Take up to ``wanted`` pushes from the bucket at the instant ``now``.

    Over any span of time no more is granted than the burst and the rate times the span. A clock
    that was set back adds nothing, and the bucket goes on from there.
    """
    limit = bucket.limit
    gained = max(0.0, now - bucket.at) * limit.per_second
    tokens = min(float(limit.burst), bucket.tokens + gained)
    granted = min(max(wanted, 0), int(tokens))
    left = Bucket(limit, tokens - granted, now)
    rest = min(wanted - granted, limit.burst)
    if rest <= 0:
        return Taken(granted, left, 0.0)
    return Taken(granted, left, (rest - left.tokens) / limit.per_second + _TICK)
