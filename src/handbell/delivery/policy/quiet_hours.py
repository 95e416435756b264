"""Quiet hours: when no alerts are shown, in each recipient's local time.

Pure: ``now`` is passed in. Instants are UNIX seconds.
"""

import re
from dataclasses import dataclass
from datetime import time
from functools import lru_cache
from typing import Final

from handbell.creation.values import shown
from handbell.errors import AppError

from .zones import DEFAULT_ZONE, find_zone, jump_between, wall_clock

_DAY_SECONDS: Final = 24 * 3600
_MINUTE_SECONDS: Final = 60
_HOURS: Final = re.compile(
    r"([01]?\d|2[0-3]):([0-5]\d)\s*(?:-|–|to)\s*([01]?\d|2[0-3]):([0-5]\d)"  # noqa: RUF001
)
_LOUD_LEVELS: Final = frozenset({"time-sensitive", "critical"})


def disturbs(*, push_type: str, interruption_level: str | None) -> bool:
    """Return whether quiet hours hold a push of this type, and a cap counts it.

    Both apply to the push type ``alert``, which is shown to a person unasked. Exempt are pushes
    that show nothing (``background``, ``widgets`` …) or that the person is waiting for
    (``voip``, ``pushtotalk``, ``liveactivity``), and alerts of the interruption levels
    ``time-sensitive`` and ``critical``, which a phone shows in spite of a Focus unless the person
    forbids it.
    """
    return push_type == "alert" and interruption_level not in _LOUD_LEVELS


@dataclass(frozen=True, slots=True)
class QuietHours:
    """Quiet hours from ``start`` until before ``end``, in each recipient's local time.

    Whole minutes without a zone. They span midnight when ``end`` is earlier. Raises
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
        """Return whether it is quiet at this local time."""
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
    """Return when quiet hours end in ``zone``, or None if they are not on at ``now``.

    Changes of the clocks are handled: hours that a jump cuts short end at the jump, and hours that
    occur twice are quiet twice. The result is at most a day and the size of the jump away, except
    for a day whose only time without quiet hours was skipped. Results are cached by zone and
    minute, for loops over sessions.
    """
    return _held_until(quiet, zone, int(now // _MINUTE_SECONDS), default_zone)


# Offsets are whole minutes since 1972, so the result is the same throughout a minute.
@lru_cache(maxsize=4096)
def _held_until(
    quiet: QuietHours, zone: str | None, minute: int, default_zone: str
) -> float | None:
    there = find_zone(zone, default_zone)
    start = at = minute * _MINUTE_SECONDS
    wall = wall_clock(at, there)
    while quiet.cover(wall.time()):
        end = at + _seconds_between(wall.time(), quiet.end)
        is_steady = wall_clock(end, there).utcoffset() == wall.utcoffset()
        at = end if is_steady else jump_between(there, at, end)
        wall = wall_clock(at, there)
    return float(at) if at > start else None


def _seconds_between(wall: time, end: time) -> int:
    minutes = (end.hour - wall.hour) * 60 + end.minute - wall.minute
    return (minutes * _MINUTE_SECONDS - wall.second) % _DAY_SECONDS
