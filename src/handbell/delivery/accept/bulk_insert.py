"""Many rows in one step of the database.

SQLite gives up the interpreter for each row that is handed to it, and whoever computes beside keeps
it for milliseconds. As one JSON text a batch is one step, during which others go on. What all rows
have in common is handed over once: most of what SQLite does for a row is to read its values.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from pydantic_core import to_json
from sqlalchemy import Connection, Table, insert

from handbell.storage.database import Quick, driver_of
from handbell.storage.tables import deliveries, idempotency, notifications

_LAST: Final = "SELECT coalesce(max(id), 0) FROM notifications"

Rows = Sequence[Mapping[str, Any]]
Columns = Mapping[str, Sequence[Any]]

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
    same, varying = _sorted_out(rows, _NOTIFICATION)
    return insert_notification_columns(connection, varying, same, len(rows))


def insert_deliveries(connection: Connection, rows: Rows) -> None:
    """Insert deliveries."""
    if rows:
        same, varying = _sorted_out(rows, _DELIVERY)
        insert_delivery_columns(connection, varying, same)


def insert_notification_columns(
    connection: Quick, varying: Columns, same: Mapping[str, Any], count: int
) -> list[int]:
    """Insert ``count`` notifications, column by column, and return their ids in their order.

    ``same`` holds what is the same in every row.
    """
    driver = driver_of(connection)
    if driver is None or "sealed_key" in varying:
        assert isinstance(connection, Connection)  # noqa: S101 - the driver alone seals nothing
        statement = insert(notifications).returning(
            notifications.c.id, sort_by_parameter_order=True
        )
        return list(connection.scalars(statement, _rows(varying, same, count)))
    # Nobody else writes now, so what SQLite would choose can be chosen here.
    (first,) = driver.execute(_LAST).fetchone()
    ids = list(range(first + 1, first + 1 + count))
    _insert(driver, notifications, {"id": ids, **varying}, same)
    return ids


def insert_delivery_columns(connection: Quick, varying: Columns, same: Mapping[str, Any]) -> None:
    """Insert deliveries, column by column; ``same`` holds what is the same in every row.

    At least their numbers vary.
    """
    driver = driver_of(connection)
    if driver is not None:
        _insert(driver, deliveries, varying, same)
    else:
        assert isinstance(connection, Connection)  # noqa: S101 - it is no driver
        rows = _rows(varying, same, len(next(iter(varying.values()))))
        connection.execute(insert(deliveries), rows)


def insert_keys(driver: sqlite3.Connection, varying: Columns, same: Mapping[str, Any]) -> None:
    """Insert idempotency keys that nobody has, column by column."""
    _insert(driver, idempotency, varying, same)


def _sorted_out(
    rows: Rows, names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Sequence[Any]]]:
    """Return the columns that are the same in every row, and those that are not."""
    columns = {name: [row[name] for row in rows] for name in names}
    same = {
        name: column[0]
        for name, column in columns.items()
        if column.count(column[0]) == len(column)
    }
    # A row has to have something of its own, or it would not be there.
    same.pop("number", None)
    return same, {name: column for name, column in columns.items() if name not in same}


def _rows(varying: Columns, same: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    return [
        {**same, **{name: column[place] for name, column in varying.items()}}
        for place in range(count)
    ]


def _insert(
    driver: sqlite3.Connection, table: Table, varying: Columns, same: Mapping[str, Any]
) -> None:
    text = to_json(list(zip(*varying.values(), strict=True))).decode()
    statement = _statement(table.name, tuple(varying), tuple(same))
    driver.execute(statement, (text, *same.values())).close()


@lru_cache(maxsize=64)
def _statement(table: str, varying: tuple[str, ...], same: tuple[str, ...]) -> str:
    members = [f"json_extract(value, '$[{place}]')" for place in range(len(varying))]
    members += [f"?{place}" for place in range(2, 2 + len(same))]
    return (
        f"INSERT INTO {table} ({', '.join((*varying, *same))}) "  # noqa: S608 - names of columns only
        f"SELECT {', '.join(members)} FROM json_each(?1)"
    )
