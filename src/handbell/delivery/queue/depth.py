"""The depth of the queue, by urgency, and the age of its work."""

from dataclasses import dataclass, replace

from sqlalchemy import Connection, func, select

from handbell.delivery.urgency import LEVELS, NAMES, Urgency
from handbell.storage.tables import deliveries, shards


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """The work of one urgency that no worker has leased. Instants are UNIX milliseconds.

    ``due`` and ``later`` count deliveries that are due, or held for later; ``shards_due`` and
    ``shards_later`` parts of broadcasts. ``oldest_due_at`` is when the oldest due work fell due,
    ``next_at`` when the next of the rest does.
    """

    urgency: Urgency
    due: int = 0
    later: int = 0
    shards_due: int = 0
    shards_later: int = 0
    oldest_due_at: int | None = None
    next_at: int | None = None


def read_depths(connection: Connection, now: int) -> list[Depth]:
    """Return the depth of each urgency at an instant, the most urgent first.

    Deliveries are counted by their index.
    """
    found = {level: Depth(urgency=NAMES[level]) for level in LEVELS}
    at, shard_at = deliveries.c.due_at, shards.c.due_at
    waiting = (at.is_not(None), deliveries.c.urgency.in_(LEVELS))
    for is_due in (True, False):
        counted = (
            select(deliveries.c.urgency, func.count(), func.min(at))
            .where(*waiting, at <= now if is_due else at > now)
            .group_by(deliveries.c.urgency)
        )
        for level, number, first in connection.execute(counted):
            found[level] = _with(found[level], number, 0, first, is_due=is_due)
        resting = (
            select(shards.c.urgency, func.count(), func.min(shard_at))
            .where(shards.c.worker_id.is_(None), shard_at <= now if is_due else shard_at > now)
            .group_by(shards.c.urgency)
        )
        for level, number, first in connection.execute(resting):
            found[level] = _with(found[level], 0, number, first, is_due=is_due)
    return list(found.values())


def count_dead_letters(connection: Connection) -> int:
    """Return how many deliveries wait for somebody to send them again, by an index of their own."""
    counted = select(func.count()).where(deliveries.c.state == "dead_letter")
    return connection.execute(counted).scalar_one()


def _with(depth: Depth, number: int, parts: int, first: int, *, is_due: bool) -> Depth:
    if is_due:
        return replace(
            depth,
            due=depth.due + number,
            shards_due=depth.shards_due + parts,
            oldest_due_at=min(first, depth.oldest_due_at or first),
        )
    return replace(
        depth,
        later=depth.later + number,
        shards_later=depth.shards_later + parts,
        next_at=min(first, depth.next_at or first),
    )
