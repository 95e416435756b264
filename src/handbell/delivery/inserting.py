"""Many rows in one step of the database.

SQLite gives up the interpreter for each row that is handed to it, and whoever computes beside keeps
it for milliseconds. As one JSON text a batch is one step, during which others go on.
"""

import json
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import Connection, Table, func, insert, select

from handbell.tables import deliveries, notifications

Rows = Sequence[Mapping[str, Any]]

_NOTIFICATION: Final = (
    "public_id",
    "app",
    "content",
    "recipients",
    "created_at",
    "urgency",
    "send_at",
    "is_development",
    "is_loud",
    "sealed_key",
    "replaces",
)
_DELIVERY: Final = (
    "notification_id",
    "number",
    "gateway",
    "address",
    "environment",
    "urgency",
    "state",
    "reason",
    "worker_id",
    "due_at",
)


def insert_notifications(connection: Connection, rows: Rows) -> list[int]:
    """Insert notifications and return their ids, in their order."""
    if not _is_sqlite(connection) or any(row["sealed_key"] is not None for row in rows):
        statement = insert(notifications).returning(
            notifications.c.id, sort_by_parameter_order=True
        )
        return list(connection.scalars(statement, rows))
    # Nobody else writes now, so what SQLite would choose can be chosen here.
    first = connection.scalar(select(func.coalesce(func.max(notifications.c.id), 0))) or 0
    ids = range(first + 1, first + 1 + len(rows))
    members = map(itemgetter(*_NOTIFICATION), rows)
    numbered = [(number, *row) for number, row in zip(ids, members, strict=True)]
    _insert(connection, notifications, ("id", *_NOTIFICATION), numbered)
    return list(ids)


def insert_deliveries(connection: Connection, rows: Rows) -> None:
    """Insert deliveries."""
    if not rows:
        return
    if _is_sqlite(connection):
        _insert(connection, deliveries, _DELIVERY, list(map(itemgetter(*_DELIVERY), rows)))
    else:
        connection.execute(insert(deliveries), rows)


def _insert(
    connection: Connection, table: Table, names: Sequence[str], rows: list[tuple[Any, ...]]
) -> None:
    text = json.dumps(rows)
    members = ", ".join(f"json_extract(value, '$[{place}]')" for place in range(len(names)))
    connection.exec_driver_sql(
        f"INSERT INTO {table.name} ({', '.join(names)}) SELECT {members} FROM json_each(?)",  # noqa: S608 - names of columns only
        (text,),
    )


def _is_sqlite(connection: Connection) -> bool:
    return connection.dialect.name == "sqlite"
