"""Which tables are copied, and how a row of SQLite is written for PostgreSQL."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Boolean, Table

from handbell.storage.tables import metadata

Row = tuple[Any, ...]
"""A row with all columns of its table, in the table's order."""
Key = tuple[Any, ...]
"""What a row has in the columns of its primary key."""

_OF_PROCESSES: Final = frozenset(
    {"cap_claims", "nodes", "revocations", "shared_buckets", "wall_clock", "workers"}
)
"""Who works and what they have in hand, by the clock of a machine: nobody does, meanwhile."""
_NOTES: Final = "installation"

TABLES: Final[tuple[Table, ...]] = tuple(
    table for table in metadata.sorted_tables if table.name not in {*_OF_PROCESSES, _NOTES}
)
"""The tables whose rows are copied, each after those that it refers to."""


def key_columns(table: Table) -> list[str]:
    """Return the names of the columns of the primary key."""
    return [column.name for column in table.primary_key.columns]


def key_of(table: Table, row: Row) -> Key:
    """Return the key of a row."""
    places = {column.name: place for place, column in enumerate(table.columns)}
    return tuple(row[places[name]] for name in key_columns(table))


def converted(table: Table, rows: Sequence[Row]) -> Sequence[Row]:
    """Return rows of SQLite as PostgreSQL takes them: truth values are no numbers there.

    What names a process is left out: it is gone, and its row is not copied.
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
    """Return rows with U+FFFD in place of U+0000, which PostgreSQL refuses, and how many had it."""
    found = [tuple(_without_zero(value) for value in row) for row in rows]
    return found, sum(one != other for one, other in zip(found, rows, strict=True))


def _without_zero(value: Any) -> Any:
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value
