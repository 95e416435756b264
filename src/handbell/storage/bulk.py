"""Many rows in one step of SQLite, column by column.

SQLite gives up the interpreter for each row that is handed to it, and whoever computes beside keeps
it for milliseconds. As one JSON text a batch is one step, during which others go on. What all rows
have in common is handed over once: most of what SQLite does for a row is to read its values.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Table

Columns = Mapping[str, Sequence[Any]]
"""What is to be written: each column with a value for every row."""


def sort_out(columns: Columns, own: str) -> tuple[dict[str, Any], dict[str, Sequence[Any]]]:
    """Return the columns that are the same in every row, and those that are not.

    The column ``own`` varies: a row has to have something of its own, or it would not be there.
    """
    same = {
        name: column[0]
        for name, column in columns.items()
        if name != own and column.count(column[0]) == len(column)
    }
    return same, {name: column for name, column in columns.items() if name not in same}


def insert_columns(
    driver: sqlite3.Connection,
    table: Table,
    varying: Columns,
    same: Mapping[str, Any],
    conflict: str = "",
) -> None:
    """Insert rows; ``conflict`` is the clause for those that are there already."""
    text = to_json(list(zip(*varying.values(), strict=True))).decode()
    statement = _statement(table.name, tuple(varying), tuple(same), conflict)
    driver.execute(statement, (text, *same.values())).close()


@lru_cache(maxsize=256)
def _statement(table: str, varying: tuple[str, ...], same: tuple[str, ...], conflict: str) -> str:
    members = [f"json_extract(value, '$[{place}]')" for place in range(len(varying))]
    members += [f"?{place}" for place in range(2, 2 + len(same))]
    # Without WHERE, the parser takes ON CONFLICT for the condition of a join.
    return (
        f"INSERT INTO {table} ({', '.join((*varying, *same))}) "  # noqa: S608 - names of columns only
        f"SELECT {', '.join(members)} FROM json_each(?1) WHERE true {conflict}"
    )
