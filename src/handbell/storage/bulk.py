"""Many rows written in one step of either database.

SQLite gives up the interpreter for each statement, and whoever computes beside keeps it for
milliseconds: there many rows are one statement, and fewer are one JSON text, so that not every
number of rows is a statement of its own. PostgreSQL takes columns as arrays, which
costs one round trip for any number of rows. What all rows have in common is handed over once.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import to_json
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from .arrays import array_of
from .connections import Quick, driver_of
from .dialects import POSTGRESQL

if TYPE_CHECKING:
    import psycopg

Columns = Mapping[str, Sequence[Any]]
"""What is to be written: each column with a value for every row."""

_AT_ONCE: Final = 250
"""So many rows are one statement of SQLite; a statement has 32,766 values at most."""

insert_or_change: Final = postgresql.insert
"""Begins an INSERT of SQLAlchemy's that may have an ON CONFLICT, which both databases know."""


def insert_rows(connection: Quick, table: Table, columns: Columns) -> None:
    """Insert rows, column by column; there may be none."""
    _insert(connection, table, columns, {})


def upsert_rows(
    connection: Quick,
    table: Table,
    columns: Columns,
    *,
    key: Sequence[str],
    same: Mapping[str, Any] | None = None,
    replaced: Iterable[str] = (),
    changed: Mapping[str, str] | None = None,
) -> None:
    """Insert rows, and change those whose ``key`` is there already.

    ``same`` are columns with one value for all rows. ``replaced`` columns take the new values;
    ``changed`` gives the SQL of others, in which the new row is ``excluded``. A key that occurs
    more than once is inserted first and changed then.
    """
    changes = {**{name: f"excluded.{name}" for name in replaced}, **(changed or {})}
    told = ", ".join(f"{name} = {value}" for name, value in changes.items())
    tail = f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {told}"
    if not isinstance(driver_of(connection), sqlite3.Connection):
        # PostgreSQL changes no row twice in one statement.
        for part in _without_repeats(columns, [name for name in key if name in columns]):
            _insert(connection, table, part, same or {}, tail, own=key[-1])
        return
    _insert(connection, table, columns, same or {}, tail, own=key[-1])


def insert_new(
    connection: Quick, table: Table, columns: Columns, *, returned: Sequence[str]
) -> list[tuple[Any, ...]]:
    """Insert those rows that are not there yet, and return these columns of them.

    Where another transaction inserts the same, it is waited for.
    """
    tail = f"ON CONFLICT DO NOTHING RETURNING {', '.join(returned)}"
    return _insert(connection, table, columns, {}, tail, own=returned[-1])


def insert_numbered(connection: Quick, table: Table, columns: Columns, *, by: str) -> list[int]:
    """Insert rows that the database numbers, and return their ids in their order.

    The column ``by`` tells the rows apart.
    """
    if isinstance(driver := driver_of(connection), sqlite3.Connection):
        # Nobody else writes now, so what SQLite would choose can be chosen here.
        last = driver.execute(f"SELECT coalesce(max(id), 0) FROM {table.name}")  # noqa: S608 - a name
        (first,) = last.fetchone()
        ids = list(range(first + 1, first + 1 + len(columns[by])))
        _insert(connection, table, {"id": ids, **columns}, {}, own=by)
        return ids
    found = dict(_insert(connection, table, columns, {}, f"RETURNING {by}, id", own=by))
    return [found[one] for one in columns[by]]


def _sort_out(columns: Columns, own: str) -> tuple[dict[str, Any], dict[str, Sequence[Any]]]:
    """Return the columns that are the same in every row, and those that are not.

    The column ``own`` varies: a row has to have something of its own, or it would not be there.
    """
    same = {
        name: column[0]
        for name, column in columns.items()
        if name != own and column.count(column[0]) == len(column)
    }
    return same, {name: column for name, column in columns.items() if name not in same}


def _insert(
    connection: Quick,
    table: Table,
    columns: Columns,
    same: Mapping[str, Any],
    tail: str = "",
    *,
    own: str = "",
) -> list[tuple[Any, ...]]:
    if not any(columns.values()):
        return []
    alike, varying = _sort_out(columns, own if own in columns else next(iter(columns)))
    driver = driver_of(connection)
    if isinstance(driver, sqlite3.Connection):
        return _insert_as_values(driver, table, {**same, **alike}, varying, tail)
    return _insert_as_arrays(driver, table, {**same, **alike}, varying, tail)


def _insert_as_values(
    driver: sqlite3.Connection,
    table: Table,
    same: Mapping[str, Any],
    varying: Columns,
    tail: str,
) -> list[tuple[Any, ...]]:
    number = len(next(iter(varying.values())))
    full = number - number % _AT_ONCE
    found: list[tuple[Any, ...]] = []
    if full:
        statement = _from_values(table.name, tuple(varying), tuple(same), tail)
        for start in range(0, full, _AT_ONCE):
            part = (values[start : start + _AT_ONCE] for values in varying.values())
            rows = chain.from_iterable(zip(*part, strict=True))
            cursor = driver.execute(statement, (*same.values(), *rows))
            found += cursor.fetchall() if "RETURNING" in tail else []
            cursor.close()
    if full < number:
        rest = {name: values[full:] for name, values in varying.items()} if full else varying
        found += _insert_as_json(driver, table, same, rest, tail)
    return found


@lru_cache(maxsize=256)
def _from_values(table: str, varying: tuple[str, ...], same: tuple[str, ...], tail: str) -> str:
    members = [f"?{place}" for place in range(1, 1 + len(same))]
    members += [f"column{place}" for place in range(1, 1 + len(varying))]
    row = f"({', '.join('?' * len(varying))})"
    # Without WHERE, the parser takes ON CONFLICT for the condition of a join.
    return (
        f"INSERT INTO {table} ({', '.join((*same, *varying))}) "  # noqa: S608 - names of columns only
        f"SELECT {', '.join(members)} FROM (VALUES {', '.join([row] * _AT_ONCE)}) WHERE true {tail}"
    )


def _insert_as_json(
    driver: sqlite3.Connection,
    table: Table,
    same: Mapping[str, Any],
    varying: Columns,
    tail: str,
) -> list[tuple[Any, ...]]:
    if any(isinstance(one, bytes) for column in varying.values() for one in column):
        _insert_each(driver, table, same, varying, tail)
        return []
    (only, *more) = varying.values()
    rows = list(zip(only, *more, strict=True)) if more else list(only)
    statement = _from_json_text(table.name, tuple(varying), tuple(same), tail)
    cursor = driver.execute(statement, (to_json(rows).decode(), *same.values()))
    found = cursor.fetchall() if "RETURNING" in tail else []
    cursor.close()
    return found


def _insert_each(
    driver: sqlite3.Connection,
    table: Table,
    same: Mapping[str, Any],
    varying: Columns,
    tail: str,
) -> None:
    """Insert rows with bytes, which JSON has none of."""
    names = (*varying, *same)
    marks = ", ".join("?" * len(names))
    statement = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks}) {tail}"  # noqa: S608 - names
    rows = zip(*varying.values(), strict=True)
    driver.executemany(statement, ((*row, *same.values()) for row in rows)).close()


@lru_cache(maxsize=256)
def _from_json_text(table: str, varying: tuple[str, ...], same: tuple[str, ...], tail: str) -> str:
    members = [f"json_extract(value, '$[{place}]')" for place in range(len(varying))]
    if len(members) == 1:
        members = ["value"]
    members += [f"?{place}" for place in range(2, 2 + len(same))]
    # Without WHERE, the parser takes ON CONFLICT for the condition of a join.
    return (
        f"INSERT INTO {table} ({', '.join((*varying, *same))}) "  # noqa: S608 - names of columns only
        f"SELECT {', '.join(members)} FROM json_each(?1) WHERE true {tail}"
    )


def _insert_as_arrays(
    driver: "psycopg.Connection[Any]",
    table: Table,
    same: Mapping[str, Any],
    varying: Columns,
    tail: str,
) -> list[tuple[Any, ...]]:
    statement = _from_arrays(table, tuple(varying), tuple(same), tail)
    values = [*same.values(), *map(array_of, varying.values())]
    cursor = driver.execute(statement, values)
    return cursor.fetchall() if cursor.description else []


@lru_cache(maxsize=256)
def _from_arrays(table: Table, varying: tuple[str, ...], same: tuple[str, ...], tail: str) -> bytes:
    arrays = ", ".join(f"CAST(%s AS {_column_type(table, name)}[])" for name in varying)
    names = ", ".join(varying)
    members = [*(f"CAST(%s AS {_column_type(table, name)})" for name in same), names]
    return (
        f"INSERT INTO {table.name} ({', '.join((*same, *varying))}) "  # noqa: S608 - names of columns
        f"SELECT {', '.join(members)} FROM unnest({arrays}) AS listed({names}) {tail}"
    ).encode()


def _without_repeats(columns: Columns, key: Sequence[str]) -> list[Columns]:
    """Return the rows in parts in which no key occurs twice; later ones are in later parts."""
    rounds: list[list[int]] = []
    seen: dict[Any, int] = {}
    for place, one in enumerate(zip(*(columns[name] for name in key), strict=True)):
        number = seen[one] = seen.get(one, -1) + 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(place)
    if len(rounds) < 2:  # noqa: PLR2004 - no key occurs twice
        return [columns]
    return [
        {name: [values[place] for place in places] for name, values in columns.items()}
        for places in rounds
    ]


def _column_type(table: Table, name: str) -> str:
    return str(table.c[name].type.compile(POSTGRESQL))
