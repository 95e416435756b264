"""Parts of a broadcast by time zone: who goes now, and who waits until when.

All of it is pure; docs/decisions/0023-waits-by-shard.md has the why.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from .schedule import LocalTime, due_at
from .zones import DEFAULT_ZONE

NO_ZONE: Final = ""
"""Stands for sessions that name no time zone."""

SCHEDULED: Final = "Scheduled"
QUIET: Final = "QuietHours"
TIMES_OF_DAY: Final = (SCHEDULED, QUIET)
"""Why something waits for a time that people mean, and not for so long."""


class HoldReason(NamedTuple):
    """Why something waits, and until when (UNIX seconds)."""

    reason: str
    until: float


class ShardPart(NamedTuple):
    """What of a range of sessions falls due together.

    ``due_at`` is in UNIX seconds, ``reason`` is None where nothing is waited for. ``zones`` is as a
    shard has it: None is for whoever is left.
    """

    due_at: float
    reason: str | None
    zones: str | None


def parts_of(
    waits: Mapping[str, HoldReason | None], now: float, *, within: str | None = None
) -> list[ShardPart]:
    """Return the parts of a range, the first one due first, from its zones and what each waits for.

    Zones that fall due together are one part. The last one is for whoever is left when it is due,
    of the zones ``within`` which the range was before: nobody is missed who moves meanwhile.
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
    """Return until when each time zone waits for a local time."""
    default = default_zone or DEFAULT_ZONE
    return {zone: HoldReason(SCHEDULED, due_at(send_at, zone or None, default)) for zone in zones}


def write_zones(zones: Collection[str]) -> str:
    """Return time zones as a shard has them."""
    return json.dumps(sorted(zones))


def read_zones(zones: str) -> list[str]:
    """Return the time zones that :func:`write_zones` wrote."""
    named: list[str] = json.loads(zones)
    return named
