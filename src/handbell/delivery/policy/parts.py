"""Parts of a broadcast by time zone: who is sent to now, and who waits until when.

Pure; docs/decisions/0023-waits-by-shard.md has the reasons.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from .schedule import LocalTime, due_at
from .zones import DEFAULT_ZONE

NO_ZONE: Final = ""
"""Stands for sessions without a time zone."""

SCHEDULED: Final = "Scheduled"
QUIET: Final = "QuietHours"
TIMES_OF_DAY: Final = (SCHEDULED, QUIET)
"""Hold reasons that end at a wall-clock time."""


class HoldReason(NamedTuple):
    """Why a delivery waits, and until when (UNIX seconds)."""

    reason: str
    until: float


class ShardPart(NamedTuple):
    """The sessions of a range that fall due together.

    ``due_at`` is in UNIX seconds; ``reason`` is None for a part that does not wait. ``zones`` is
    stored as in a shard: None stands for all other zones.
    """

    due_at: float
    reason: str | None
    zones: str | None


def parts_of(
    waits: Mapping[str, HoldReason | None], now: float, *, within: str | None = None
) -> list[ShardPart]:
    """Return the parts of a range by due time, from its zones and the hold reason of each.

    Zones that fall due together are one part. The last part covers all other zones of the range,
    which was limited to ``within``, so a session that changes its zone meanwhile is not missed.
    """
    by_due: dict[tuple[float, str], list[str]] = {}
    for zone, wait in waits.items():
        due = (now, "") if wait is None else (max(now, wait.until), wait.reason)
        by_due.setdefault(due, []).append(zone)
    if not by_due:
        return [ShardPart(now, None, within)]
    *former, (last, mine) = sorted(by_due.items())
    parts = [ShardPart(at, reason or None, write_zones(zones)) for (at, reason), zones in former]
    taken = {zone for _, zones in former for zone in zones}
    rest = None if within is None else write_zones({*mine, *read_zones(within)} - taken)
    return [*parts, ShardPart(last[0], last[1] or None, rest)]


def local_waits(
    send_at: LocalTime, zones: Iterable[str], default_zone: str | None
) -> dict[str, HoldReason | None]:
    """Return when a local time is due in each time zone."""
    default = default_zone or DEFAULT_ZONE
    return {zone: HoldReason(SCHEDULED, due_at(send_at, zone or None, default)) for zone in zones}


def write_zones(zones: Collection[str]) -> str:
    """Return time zones in the stored form of a shard."""
    return json.dumps(sorted(zones))


def read_zones(zones: str) -> list[str]:
    """Parse the result of :func:`write_zones`."""
    named: list[str] = json.loads(zones)
    return named
