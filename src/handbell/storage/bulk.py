"""Many rows in one step of either database, and statements that its driver runs by itself.

SQLite gives up the interpreter for each row that it steps to or is handed, and whoever computes
beside keeps it for milliseconds: there a list is one JSON text, and so is what is read. PostgreSQL
takes a list as an array, which costs one round trip for any number of rows. What all rows have in
common is handed over once.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic_core import from_json, to_json
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Join,
    Select,
    Table,
    TableValuedAlias,
    Text,
    bindparam,
    column,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from .connections import Quick, driver_of

if TYPE_CHECKING:
    import psycopg

Columns = Mapping[str, Sequence[Any]]
"""What is to be written: each column with a value for every row."""

_SQLITE: Final = sqlite.dialect(paramstyle="named")
_POSTGRESQL: Final = PGDialect_psycopg()  # type: ignore[no-untyped-call]
_Type = type[TypeEngine[Any]]

insert_or_change: Final = postgresql.insert
"""Begins an INSERT of SQLAlchemy's that may have an ON CONFLICT, which both databases know."""


# Lists as a source of rows


class _Listed(FunctionElement[Any]):
    inherit_cache = False

    def __init__(self, name: str, types: Mapping[str, _Type]) -> None:
        self.listed = name
        self.types = types
        super().__init__()


def each(name: str, kind: _Type = Text) -> TableValuedAlias:
    """Return a source of rows with one column ``value``: the list that is bound to a name.

    For a :class:`Statement` alone.
    """
    return rows_of(name, value=kind)


def rows_of(name: str, **types: _Type) -> TableValuedAlias:
    """Return a source of rows with these columns: the list of rows that is bound to a name."""
    columns = [column(one, kind) for one, kind in types.items()]
    return _Listed(name, types).table_valued(*columns, name=name)


@compiles(_Listed, "sqlite")
def _as_json(element: _Listed, compiler: Any, **_how: Any) -> str:
    _widths(compiler)[element.listed] = len(element.types)
    if len(element.types) == 1:
        return f"json_each(:{element.listed})"
    told = ", ".join(
        f"json_extract(value, '$[{place}]') AS {name}" for place, name in enumerate(element.types)
    )
    return f"(SELECT {told} FROM json_each(:{element.listed}))"  # noqa: S608 - names of columns


@compiles(_Listed, "postgresql")
def _as_arrays(element: _Listed, compiler: Any, **_how: Any) -> str:
    _widths(compiler)[element.listed] = len(element.types)
    arrays = ", ".join(
        f"CAST(%({element.listed}_{place})s AS {_named(kind)}[])"
        for place, kind in enumerate(element.types.values())
    )
    names = ", ".join(element.types)
    return f"(SELECT * FROM unnest({arrays}) AS listed({names}))"  # noqa: S608 - names of columns


def _widths(compiled: Any) -> dict[str, int]:
    """Return how many columns the lists of a statement have, by name."""
    widths: dict[str, int] = compiled.__dict__.setdefault("handbell_widths", {})
    return widths


class _List(TypeDecorator[Any]):
    """A list as one value of a statement that SQLAlchemy runs."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: _Type) -> None:
        super().__init__()
        self.kind = kind

    def load_dialect_impl(self, dialect: Any) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(Text())  # type: ignore[no-any-return]
        return dialect.type_descriptor(postgresql.ARRAY(self.kind))  # type: ignore[no-any-return]

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        values = list(value)
        return to_json(values).decode() if dialect.name == "sqlite" else values


class _Unnested(FunctionElement[Any]):
    name = "unnested"
    inherit_cache = True


@compiles(_Unnested, "sqlite")
def _from_json(element: _Unnested, compiler: Any, **how: Any) -> str:
    values = compiler.process(element.clauses, **how)
    return f"(SELECT value FROM json_each({values}))"  # noqa: S608 - a parameter


@compiles(_Unnested, "postgresql")
def _from_array(element: _Unnested, compiler: Any, **how: Any) -> str:
    return f"(SELECT unnest({compiler.process(element.clauses, **how)}))"


def in_list(of: ColumnElement[Any], values: Collection[Any] | str) -> ColumnElement[bool]:
    """Return the condition that a column is one of any number of values, which are bound as one.

    A text names a parameter that the list is bound to when SQLAlchemy runs the statement.
    """
    kind: _Type = BigInteger if isinstance(of.type, BigInteger) else type(of.type)
    bound = (
        bindparam(values, type_=_List(kind))
        if isinstance(values, str)
        else bindparam(None, values, type_=_List(kind), unique=True)
    )
    return of.op("IN")(_Unnested(bound))


class _LookUp(Join):
    inherit_cache = True


def look_up(left: FromClause, right: FromClause, on: ColumnElement[bool]) -> FromClause:
    """Return the join for which ``right`` is looked up by an index for each row of ``left``.

    SQLite, which does not know how long a list is, would now and then walk through an index of
    ``right`` instead. PostgreSQL knows, and chooses.
    """
    return _LookUp(left, right, on)


@compiles(_LookUp, "sqlite")
def _in_this_order(element: _LookUp, compiler: Any, **how: Any) -> str:
    how["asfrom"] = True
    left, right = (compiler.process(one, **how) for one in (element.left, element.right))
    how.pop("asfrom")
    how.pop("from_linter", None)
    on = compiler.process(element.onclause, **how)
    return f"{left} CROSS JOIN {right} ON {on}"


# Statements


class _Compiled(NamedTuple):
    """A statement for one database: its SQL, what is bound in any case, how wide its lists are."""

    text: str
    fixed: dict[str, Any]
    widths: dict[str, int]


class Statement:
    """A statement of SQLAlchemy Core, compiled once for each database and run by its driver.

    Setting up what SQLAlchemy runs takes longer than most statements do. Values are bound by name;
    a list belongs to an :func:`each` or :func:`rows_of`.
    """

    def __init__(self, statement: Any) -> None:
        self._statement = statement
        self._made: dict[bool, _Compiled] = {}

    def explain(self, connection: Quick, **values: Any) -> list[str]:
        """Return the lines in which the database says how it would run it."""
        driver = driver_of(connection)
        is_sqlite = isinstance(driver, sqlite3.Connection)
        cursor = self._execute(driver, values, "EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN ")
        return [str(row[-1]) for row in cursor.fetchall()]

    def run(self, connection: Quick, **values: Any) -> int:
        """Run it and return how many rows it changed."""
        cursor = self._execute(driver_of(connection), values)
        count = cursor.rowcount
        cursor.close()
        return int(count)

    def rows(self, connection: Quick, **values: Any) -> list[Any]:
        """Run it and return its rows."""
        cursor = self._execute(driver_of(connection), values)
        try:
            return list(cursor.fetchall())
        finally:
            cursor.close()

    def _execute(self, driver: Any, values: Mapping[str, Any], before: str = "") -> Any:
        is_sqlite = isinstance(driver, sqlite3.Connection)
        compiled = self._compiled(is_sqlite=is_sqlite)
        bound = {**compiled.fixed, **values}
        for name, width in compiled.widths.items():
            rows = values[name]
            if is_sqlite:
                bound[name] = to_json(list(rows)).decode()
            elif width == 1:
                bound[f"{name}_0"] = list(bound.pop(name))
            else:
                columns = zip(*bound.pop(name), strict=True) if rows else [()] * width
                bound |= {f"{name}_{place}": list(one) for place, one in enumerate(columns)}
        return driver.execute(before + compiled.text, bound)

    def _compiled(self, *, is_sqlite: bool) -> _Compiled:
        made = self._made.get(is_sqlite)
        if made is None:
            compiled = self._for(is_sqlite=is_sqlite).compile(
                dialect=_SQLITE if is_sqlite else _POSTGRESQL,
                compile_kwargs={"render_postcompile": True},
            )
            fixed = {name: value for name, value in compiled.params.items() if value is not None}
            text = str(compiled)
            made = self._made[is_sqlite] = _Compiled(text, fixed, _widths(compiled))
        return made

    def _for(self, *, is_sqlite: bool) -> Any:
        del is_sqlite
        return self._statement


class Query(Statement):
    """A query for many rows of numbers and texts."""

    def _for(self, *, is_sqlite: bool) -> Any:
        statement: Select[Any] = self._statement
        if not is_sqlite:
            return statement
        told = func.json_array(*statement.selected_columns).label("told")
        inner = statement.with_only_columns(told).subquery("found")
        return select(func.json_group_array(func.json(inner.c.told)))

    def rows(self, connection: Quick, **values: Any) -> list[Any]:
        """Run it and return its rows. Where the database is SQLite, a flag is 0 or 1."""
        found = super().rows(connection, **values)
        if isinstance(driver_of(connection), sqlite3.Connection):
            return list(from_json(found[0][0], cache_strings="all"))
        return found


class Page(Statement):
    """A query for many rows that are wanted column by column.

    Of ``plain``, numbers and texts without a comma, there has to be one column; no value of them is
    NULL.
    """

    def __init__(self, statement: Select[Any], plain: Sequence[str]) -> None:
        super().__init__(statement)
        self._plain = plain
        self._kinds = {one.name: one.type.python_type for one in statement.selected_columns}

    def _for(self, *, is_sqlite: bool) -> Any:
        if not is_sqlite:
            return self._statement
        page = self._statement.subquery()
        return select(
            *(
                func.group_concat(page.c[name])
                if name in self._plain
                else func.json_group_array(page.c[name])
                for name in self._kinds
            )
        )

    def columns(self, connection: Quick, **values: Any) -> list[Iterable[Any]]:
        """Run it and return its columns in their order; none where there is no row."""
        found = super().rows(connection, **values)
        if not isinstance(driver_of(connection), sqlite3.Connection):
            return list(zip(*found, strict=True))
        (texts,) = found
        if texts[0] is None:
            return []
        return [self._read(name, text) for name, text in zip(self._kinds, texts, strict=True)]

    def _read(self, name: str, text: str) -> Iterable[Any]:
        if name not in self._plain:
            return json.loads(text)  # type: ignore[no-any-return]
        values = text.split(",")
        return map(int, values) if self._kinds[name] is int else values


# Rows that are written


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
        return _insert_as_json(driver, table, {**same, **alike}, varying, tail)
    return _insert_as_arrays(driver, table, {**same, **alike}, varying, tail)


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
    values = [*same.values(), *map(list, varying.values())]
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
    return str(table.c[name].type.compile(_POSTGRESQL))


def _named(kind: _Type) -> str:
    return str(kind().compile(_POSTGRESQL))
