"""The shards of broadcasts that are not sent to the end yet.

A broadcast is no rows but shards, ranges of session ids. A row is written only when a session's
delivery ends or has to wait, so a million sessions cost a million short writes and no reads.
"""

from typing import Any, Final

from sqlalchemy import Connection, Row, exists, func, select

from handbell.storage.tables import apps, deliveries, notifications, sessions, shards

from .session_pages import got

SHARD_SESSIONS: Final = 50_000
"""How many session ids one shard spans."""

SHARDS: Final = (
    select(shards, apps.c.id.label("app_row"))
    .join_from(shards, notifications, shards.c.notification_id == notifications.c.id)
    .join(apps, apps.c.team_id + "." + apps.c.bundle_id == notifications.c.app)
)
"""Shards with the row of the app whose sessions they span."""


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
