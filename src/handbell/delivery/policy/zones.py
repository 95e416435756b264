"""Time zones: local time, and jumps of the clock."""

from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

DEFAULT_ZONE: Final = "UTC"
"""The zone of a session that names none, or one that this machine does not know."""


def jump_between(zone: tzinfo, before: int, after: int) -> int:
    """Return the first second whose offset is not the one at ``before``, up to ``after``."""
    offset = wall_clock(before, zone).utcoffset()
    while after - before > 1:
        middle = (before + after) // 2
        if wall_clock(middle, zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after


def wall_clock(seconds: float, zone: tzinfo) -> datetime:
    """Return the local time at an instant in UNIX seconds."""
    return datetime.fromtimestamp(seconds, zone)


def find_zone(zone: str | None, default_zone: str) -> tzinfo:
    """Return a zone by its IANA name, the default zone when it is unknown."""
    return (_load_zone(zone) if zone else None) or _load_zone(default_zone) or UTC


@lru_cache(maxsize=1024)
def _load_zone(name: str) -> tzinfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None
