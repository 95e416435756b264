"""The unfinished shards of broadcasts.

A broadcast is stored as shards, ranges of session ids. A row is written only when a session's
delivery ends or was tried, so a million sessions cost a million short writes and no reads, and
waiting costs nothing (docs/decisions/0023-waits-by-shard.md).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Select,
    exists,
    func,
    insert,
    literal,
    select,
)

from handbell.apps.store import is_app_of
from handbell.delivery.policy.failures import AFTER_FAILURE, INTERRUPTED
from handbell.delivery.policy.parts import NO_ZONE, read_zones, write_zones
from handbell.services.table import SERVICES
from handbell.storage.tables import apps, deliveries, notifications, sessions, shards

from .session_pages import Shard, environment_of, got, is_first_of_device, is_in_zones

MOST_SPANNED: Final = 50_000
"""The most session ids that one shard spans, or of sessions with its time zones."""

LEAST_SPANNED: Final = 10_000
PARTS: Final = 64
"""In how many shards a broadcast is divided where they have enough sessions: workers share them."""

SMALL: Final = 2000
"""Shards with no more sessions than this in total may be taken together."""

_PRIME, _SCRAMBLE = 1_000_003, 7919
"""Sessions with ids in a row fall due at different times."""

SHARDS: Final = (
    select(shards, apps.c.id.label("app_row"))
    .join_from(shards, notifications, shards.c.notification_id == notifications.c.id)
    .join(apps, is_app_of(notifications.c.app))
)
"""Shards with the row of the app whose sessions they span."""

_ZONE: Final = func.coalesce(sessions.c.time_zone, NO_ZONE)

_some: Final = (
    select(sessions.c.id)
    .where(
        sessions.c.app_id == apps.c.id,
        sessions.c.status == "active",
        sessions.c.id > shards.c.position,
        sessions.c.id <= shards.c.last,
    )
    .limit(SMALL + 1)
    .correlate(apps, shards)
    .subquery()
)
SIZE: Final = select(func.count()).select_from(_some).scalar_subquery().label("size")
"""The limit up to which a shard's sessions are counted."""


def spanned(first: int, last: int) -> int:
    """Return how many session ids each shard of a broadcast to these spans."""
    return min(MOST_SPANNED, max(LEAST_SPANNED, -(-(last - first + 1) // PARTS)))


def read_shard(row: Row[Any]) -> Shard:
    """Return the shard of a row of :data:`SHARDS`."""
    return Shard(
        id=row.id,
        notification=row.notification_id,
        app_row=row.app_row,
        source=row.source_id,
        urgency=row.urgency,
        position=row.position,
        last=row.last,
        is_resumed=row.is_resumed,
        zones=row.zones,
        is_split=row.is_split,
        failures=row.failures,
    )


def read_zones_of(connection: Connection, shard: Shard) -> list[str]:
    """Return the time zones of the sessions that a shard has not reached."""
    statement = select(_ZONE).distinct().where(*_spanned(shard.app_row, shard.position, shard.last))
    if shard.zones is not None:
        statement = statement.where(is_in_zones(shard.zones))
    return list(connection.scalars(statement))


class _Segment(NamedTuple):
    """A range of sessions spanned by the same shards; ``zones`` is None if one is for all."""

    spanning: Sequence[Row[Any]]
    after: int
    upto: int
    zones: str | None


def count_ahead(connection: Connection, found: Sequence[Row[Any]]) -> int:
    """Return how many sessions these shards of one notification have yet to reach, each once.

    Whole ranges of an index are counted, so that frequent calls cost little. While it runs, this is
    exact except for sessions that closed since.
    """
    return sum(_count_quickly(connection, one) for one in _segments(found))


def count_uncome(connection: Connection, found: Sequence[Row[Any]]) -> int:
    """Return how many sessions of these shards of one notification have no delivery, each once."""
    return sum(_scalar(connection, one, func.count()) for one in _segments(found))


def break_up(connection: Connection, shard: Shard, now: int) -> int:
    """Store single deliveries for the sessions that a shard has not reached; return how many.

    Each has failed once, with the shard, and falls due apart from its neighbours after ``now``
    (UNIX milliseconds).
    """
    row = connection.execute(
        SHARDS.add_columns(notifications.c.is_development).where(shards.c.id == shard.id)
    ).one()
    spread = sessions.c.id % _PRIME * _SCRAMBLE % int(AFTER_FAILURE.delay(1) * 1000)
    values: dict[str, Any] = {
        "notification_id": literal(row.notification_id),
        "number": sessions.c.id,
        "gateway": sessions.c.service,
        "environment": environment_of() if row.is_development else sessions.c.environment,
        "state": literal("held"),
        "reason": literal(INTERRUPTED),
        "urgency": literal(row.urgency),
        "is_repeat": literal(bool(row.is_resumed)),
        "due_at": literal(now + int(AFTER_FAILURE.first * 1000), BigInteger) + spread,
        "failures": literal(1),
    }
    found = _uncome(_Segment([row], shard.position, row.last, row.zones), *values.values())
    if row.source_id is None:
        found = found.where(is_first_of_device(tuple(SERVICES), tuple(SERVICES)))
    return connection.execute(insert(deliveries).from_select([*values], found)).rowcount


def count_free(connection: Connection, found: Sequence[Row[Any]]) -> int:
    """Return how many of those sessions no worker holds, each once.

    No worker writes deliveries to them, so the count holds although others are being sent to.
    """
    return sum(_count_free(connection, one) for one in _segments(found))


def _count_free(connection: Connection, segment: _Segment) -> int:
    held = [one for one in segment.spanning if one.worker_id is not None]
    zones = _zones_of_all(held)
    if len(held) == len(segment.spanning) or zones is None:
        return 0
    statement = _uncome(segment, func.count())
    return connection.scalar(statement.where(~is_in_zones(zones)) if held else statement) or 0


def count_waits(connection: Connection, found: Sequence[Row[Any]], now: int) -> Counter[str]:
    """Return the number of waiting sessions in these shards of one notification, by reason.

    Sessions that are due at ``now`` (UNIX milliseconds) do not count.
    """
    counted: Counter[str] = Counter()
    for segment in _segments(found):
        reasons = {_reason(one, now) for one in segment.spanning}
        if len(reasons) == 1:
            (reason,) = reasons
            shares = [] if reason is None else [(reason, _count_quickly(connection, segment))]
        else:
            shares = [*_shares(connection, segment, now)]
        for reason, number in shares:
            counted[reason] += number
    return +counted


def _shares(connection: Connection, segment: _Segment, now: int) -> Iterator[tuple[str, int]]:
    """Yield the hold reasons of a segment's sessions, with the numbers by time zone."""
    statement = _uncome(segment, _ZONE, func.count()).group_by(_ZONE)
    for zone, number in connection.execute(statement):
        reason = _reason(shard_for(segment.spanning, zone), now)
        if reason is not None:
            yield reason, number


def _reason(shard: Row[Any], now: int) -> str | None:
    return shard.reason if shard.due_at > now else None


def shard_for(spanning: Sequence[Row[Any]], zone: str) -> Row[Any]:
    """Return which of the shards that span a session reaches it first, by its time zone."""
    its = [one for one in spanning if one.zones is None or zone in read_zones(one.zones)]
    return min(its or spanning, key=lambda one: (one.due_at, one.id))


def _segments(found: Sequence[Row[Any]]) -> list[_Segment]:
    bounds = sorted({bound for one in found for bound in (one.position, one.last)})
    segments: list[_Segment] = []
    for after, upto in pairwise(bounds):
        spanning = [one for one in found if one.position <= after and upto <= one.last]
        if not spanning:
            continue
        zones = _zones_of_all(spanning)
        former = segments[-1] if segments else None
        is_one = former is not None and former.upto == after and _is_alike(former, spanning, zones)
        if former is not None and is_one:
            segments[-1] = former._replace(upto=upto)
        else:
            segments.append(_Segment(spanning, after, upto, zones))
    return segments


def _is_alike(former: _Segment, spanning: Sequence[Row[Any]], zones: str | None) -> bool:
    """Return whether the next range has the same shards as a segment."""
    told = [
        sorted(
            (one.due_at, one.reason or "", one.zones or "", one.worker_id is None) for one in each
        )
        for each in (former.spanning, spanning)
    ]
    return former.zones == zones and told[0] == told[1]


def _zones_of_all(spanning: Iterable[Row[Any]]) -> str | None:
    named: set[str] = set()
    for one in spanning:
        if one.zones is None:
            return None
        named.update(read_zones(one.zones))
    return write_zones(named)


def _count_quickly(connection: Connection, segment: _Segment) -> int:
    if segment.zones is not None:
        return _scalar(connection, segment, func.count())
    row = segment.spanning[0]
    listening = (
        select(func.count())
        .select_from(sessions)
        .where(*_spanned(row.app_row, segment.after, segment.upto))
    )
    if row.source_id is not None:
        listening = listening.where(got(row.source_id))
    done = select(func.count()).where(
        deliveries.c.notification_id == row.notification_id,
        deliveries.c.number > segment.after,
        deliveries.c.number <= segment.upto,
    )
    return max(0, (connection.scalar(listening) or 0) - (connection.scalar(done) or 0))


def _scalar(connection: Connection, segment: _Segment, what: ColumnElement[int]) -> int:
    return connection.scalar(_uncome(segment, what)) or 0


def _uncome(segment: _Segment, *what: ColumnElement[Any]) -> Select[Any]:
    row, there = segment.spanning[0], deliveries.alias()
    statement = (
        select(*what)
        .select_from(sessions)
        .where(
            *_spanned(row.app_row, segment.after, segment.upto),
            ~exists().where(
                there.c.notification_id == row.notification_id, there.c.number == sessions.c.id
            ),
        )
    )
    if segment.zones is not None:
        statement = statement.where(is_in_zones(segment.zones))
    if row.source_id is not None:
        statement = statement.where(got(row.source_id))
    return statement


def _spanned(app_row: int, after: int, upto: int) -> tuple[ColumnElement[bool], ...]:
    return (
        sessions.c.app_id == app_row,
        sessions.c.status == "active",
        sessions.c.id > after,
        sessions.c.id <= upto,
    )
