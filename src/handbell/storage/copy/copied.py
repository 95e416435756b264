"""The tables that are copied, and the conversion of rows from SQLite to PostgreSQL."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Boolean, Table

from handbell.storage.tables import metadata

Row = tuple[Any, ...]
"""A row with all columns of its table, in the table's order."""
Key = tuple[Any, ...]
"""The primary key of a row."""

_OF_PROCESSES: Final = frozenset(
    {"cap_claims", "nodes", "revocations", "shared_buckets", "wall_clock", "workers"}
)
"""Tables about running nodes and work in progress, by one machine's clock; none during a copy."""
_NOTES: Final = "installation"

TABLES: Final[tuple[Table, ...]] = tuple(
    table for table in metadata.sorted_tables if table.name not in {*_OF_PROCESSES, _NOTES}
)
"""The tables to copy, each after those that it refers to."""


def key_columns(table: Table) -> list[str]:
    """Return the names of the columns of the primary key."""
    return [column.name for column in table.primary_key.columns]


def key_of(table: Table, row: Row) -> Key:
    """Return the key of a row."""
    places = {column.name: place for place, column in enumerate(table.columns)}
    return tuple(row[places[name]] for name in key_columns(table))


def converted(table: Table, rows: Sequence[Row]) -> Sequence[Row]:
    """Return rows of SQLite with integers converted to booleans for PostgreSQL.

    References to processes are left out: those have ended, and their rows are not copied.
    """
    truths = [
        place for place, column in enumerate(table.columns) if isinstance(column.type, Boolean)
    ]
    processes = [
        place
        for place, column in enumerate(table.columns)
        if any(key.column.table.name in _OF_PROCESSES for key in column.foreign_keys)
    ]
    if not (truths or processes):
        return rows
    found = []
    for row in rows:
        values = list(row)
        for place in truths:
            values[place] = None if values[place] is None else bool(values[place])
        for place in processes:
            values[place] = None
        found.append(tuple(values))
    return found


def without_zeros(rows: Sequence[Row]) -> tuple[list[Row], int]:
    """Return rows with U+FFFD in place of U+0000, which PostgreSQL refuses, and their number."""
    found = [tuple(_without_zero(value) for value in row) for row in rows]
    return found, sum(one != other for one, other in zip(found, rows, strict=True))


def _without_zero(value: Any) -> Any:
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value
