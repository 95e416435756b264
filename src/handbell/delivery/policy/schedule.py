"""Send times: an instant, or a local time in each recipient's zone.

Pure: ``now`` is passed in, nothing is read or written. Instants are UNIX seconds. A session's time
zone is an IANA name; a session that names none, or one that this machine's time zone data does not
know, counts as being in the default zone. The ``str`` of each value parses back to it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from math import ceil, floor
from typing import Final

from handbell._text import count, moment, read_timestamp
from handbell.creation.values import instant, shown
from handbell.diagnostic import Diagnostic
from handbell.errors import NotificationError

from .zones import DEFAULT_ZONE, find_zone, jump_between

LATE_SECONDS: Final = 60
"""How far in the past a time still counts as now, to allow for delays on the way here."""

_YEARS: Final = range(1971, 9999)


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment, the same for everybody; whole UNIX seconds."""

    seconds: int

    def __str__(self) -> str:
        return datetime.fromtimestamp(self.seconds, UTC).isoformat()


@dataclass(frozen=True, slots=True)
class LocalTime:
    """A local time, in each recipient's zone; ``wall`` has no zone."""

    wall: datetime

    def __str__(self) -> str:
        return self.wall.isoformat()


SendAt = Instant | LocalTime


def read_send_at(value: object) -> SendAt:
    """Read when to send: an instant, or a local time in each recipient's zone.

    UNIX seconds, a :class:`~datetime.datetime` with a zone and ISO 8601 text with an offset
    (``2026-12-24T18:00+01:00``) are an instant, kept in whole seconds. A datetime without a zone
    and ISO 8601 text without an offset (``2026-12-24T18:00``) are local. A time in the past is
    accepted here; :func:`refuse_past` decides. Raises :class:`~handbell.errors.NotificationError`
    for anything else.
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
        return read_timestamp(text)
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
    """Return when it is due for a session in ``zone``, in UNIX seconds.

    A local time that is skipped in spring is due at the first instant after the gap; one that
    occurs twice in autumn, the first time.
    """
    if isinstance(send_at, Instant):
        return float(send_at.seconds)
    return _instant_of(send_at.wall, zone, default_zone)


_NAMED_ZONES: Final = 3
# No zone has a larger offset in either direction.
_FIRST_ZONE: Final = "Pacific/Kiritimati"
LAST_ZONE: Final = "Etc/GMT+12"
"""The time zone in which a local time is reached last."""


def is_near(send_at: SendAt, now: float) -> bool:
    """Return whether the time is past in some time zones only."""
    if isinstance(send_at, Instant):
        return False
    late = now - LATE_SECONDS
    return due_at(send_at, _FIRST_ZONE) < late <= due_at(send_at, LAST_ZONE)


def refuse_past(
    send_at: SendAt, zones: Iterable[str | None], now: float, default_zone: str = DEFAULT_ZONE
) -> list[str]:
    """Raise NotificationError for a time more than :data:`LATE_SECONDS` in the past.

    A local time is past when it is in each of the ``zones`` of the recipients; where it is past in
    some of them only, it is due there at once, and a warning is returned.
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
    zone_list = ", ".join(past[:_NAMED_ZONES]) + (
        f" and {count(more, 'more zone')}" if more > 0 else ""
    )
    message = f"{str(send_at)[:16]} has passed in {zone_list}: devices there get it at once."
    return [Diagnostic(message, reason="TimePassed")]


def _past(when: str) -> NotificationError:
    fix = "Name a time to come, or none to send it now"
    return NotificationError(f"`send_at` is {when}", fix=fix)


@lru_cache(maxsize=4096)
def _instant_of(wall: datetime, zone: str | None, default_zone: str) -> float:
    there = find_zone(zone, default_zone)
    first = wall.replace(tzinfo=there, fold=0).timestamp()
    second = wall.replace(tzinfo=there, fold=1).timestamp()
    # Only in a gap does fold=1, read with the offset after the jump, come before fold=0 (PEP 495).
    return float(jump_between(there, floor(second), ceil(first))) if first > second else first
