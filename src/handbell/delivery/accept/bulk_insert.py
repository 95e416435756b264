"""Bulk inserts of notifications and deliveries."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, insert

from handbell.storage.bulk import Columns, insert_columns, sort_out
from handbell.storage.database import Quick, driver_of
from handbell.storage.tables import deliveries, notifications

_LAST: Final = "SELECT coalesce(max(id), 0) FROM notifications"


def insert_notifications(connection: Quick, columns: Columns) -> list[int]:
    """Insert notifications, given column by column; return their row ids in order."""
    count = len(columns["public_id"])
    same, varying = sort_out(columns, "public_id")
    driver = driver_of(connection)
    if driver is None or "sealed_key" in varying or same["sealed_key"] is not None:
        assert isinstance(connection, Connection)  # noqa: S101 - the driver alone seals nothing
        # The ids that PostgreSQL gives out are not in the order of the rows.
        statement = insert(notifications).returning(notifications.c.public_id, notifications.c.id)
        given = connection.execute(statement, _rows(varying, same, count))
        row_of = {row.public_id: row.id for row in given}
        return [row_of[public_id] for public_id in columns["public_id"]]
    # Nobody else writes now, so what SQLite would choose can be chosen here.
    (first,) = driver.execute(_LAST).fetchone()
    ids = list(range(first + 1, first + 1 + count))
    insert_columns(driver, notifications, {"id": ids, **varying}, same)
    return ids


def insert_deliveries(connection: Quick, columns: Columns) -> None:
    """Insert deliveries, given column by column; an empty batch is allowed."""
    count = len(columns["number"])
    if not count:
        return
    same, varying = sort_out(columns, "number")
    driver = driver_of(connection)
    if driver is not None:
        insert_columns(driver, deliveries, varying, same)
    else:
        assert isinstance(connection, Connection)  # noqa: S101 - it is no driver
        connection.execute(insert(deliveries), _rows(varying, same, count))


def _rows(varying: Columns, same: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    return [
        {**same, **{name: column[place] for name, column in varying.items()}}
        for place in range(count)
    ]
