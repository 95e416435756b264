"""The shards of broadcasts that are not sent to the end yet.

A broadcast is no rows but shards, ranges of session ids. A row is written only when a session's
delivery ends or has to wait, so a million sessions cost a million short writes and no reads.
"""

from typing import Any, Final

from sqlalchemy import Connection, Row, exists, func, select

from handbell.apps.store import is_app_of
from handbell.tables import apps, deliveries, notifications, sessions, shards

from .pages import Shard, got

SHARD_SESSIONS: Final = 50_000
"""How many session ids one shard spans."""

SMALL: Final = 2000
"""Shards that have no more sessions than this together may be taken together."""

SHARDS: Final = (
    select(shards, apps.c.id.label("app_row"))
    .join_from(shards, notifications, shards.c.notification_id == notifications.c.id)
    .join(apps, is_app_of(notifications.c.app))
)
"""Shards with the row of the app whose sessions they span."""


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
"""How many sessions a shard spans at most, as far as they are worth counting."""


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
    )


def count_uncome(connection: Connection, shard: Row[Any]) -> int:
    """Return how many sessions of a shard, a row of :data:`SHARDS`, have no delivery yet."""
    there = deliveries.alias()
    statement = select(func.count()).where(
        sessions.c.app_id == shard.app_row,
        sessions.c.status == "active",
        sessions.c.id > shard.position,
        sessions.c.id <= shard.last,
        ~exists().where(
            there.c.notification_id == shard.notification_id, there.c.number == sessions.c.id
        ),
    )
    if shard.source_id is not None:
        statement = statement.where(got(shard.source_id))
    return connection.scalar(statement) or 0
