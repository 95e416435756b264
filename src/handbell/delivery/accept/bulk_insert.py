"""Many notifications and deliveries in one step of the database."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, insert

from handbell.storage.bulk import Columns, insert_columns, sort_out
from handbell.storage.database import Quick, driver_of
from handbell.storage.tables import deliveries, idempotency, notifications

_LAST: Final = "SELECT coalesce(max(id), 0) FROM notifications"

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
    same, varying = sort_out(_columns(rows, _NOTIFICATION), "public_id")
    return insert_notification_columns(connection, varying, same, len(rows))


def insert_deliveries(connection: Connection, rows: Rows) -> None:
    """Insert deliveries."""
    if rows:
        same, varying = sort_out(_columns(rows, _DELIVERY), "number")
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
    insert_columns(driver, notifications, {"id": ids, **varying}, same)
    return ids


def insert_delivery_columns(connection: Quick, varying: Columns, same: Mapping[str, Any]) -> None:
    """Insert deliveries, column by column; ``same`` holds what is the same in every row.

    At least their numbers vary.
    """
    driver = driver_of(connection)
    if driver is not None:
        insert_columns(driver, deliveries, varying, same)
    else:
        assert isinstance(connection, Connection)  # noqa: S101 - it is no driver
        rows = _rows(varying, same, len(next(iter(varying.values()))))
        connection.execute(insert(deliveries), rows)


def insert_keys(driver: sqlite3.Connection, varying: Columns, same: Mapping[str, Any]) -> None:
    """Insert idempotency keys that nobody has, column by column."""
    insert_columns(driver, idempotency, varying, same)


def _columns(rows: Rows, names: Sequence[str]) -> Columns:
    return {name: [row[name] for row in rows] for name in names}


def _rows(varying: Columns, same: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    return [
        {**same, **{name: column[place] for name, column in varying.items()}}
        for place in range(count)
    ]
