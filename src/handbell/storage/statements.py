"""Statements of SQLAlchemy Core that are compiled once and run by the driver of the database.

SQLite gives up the interpreter for each row that it steps to or is handed, and whoever computes
beside keeps it for milliseconds: many rows are read there as one JSON text.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json
from sqlalchemy import Select, func, select

from .arrays import array_of
from .connections import Quick, driver_of
from .dialects import POSTGRESQL, SQLITE
from .lists import widths_of


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
                bound[f"{name}_0"] = array_of(bound.pop(name))
            else:
                columns = zip(*bound.pop(name), strict=True) if rows else [()] * width
                bound |= {f"{name}_{place}": array_of(one) for place, one in enumerate(columns)}
        return driver.execute(before + compiled.text, bound)

    def _compiled(self, *, is_sqlite: bool) -> _Compiled:
        made = self._made.get(is_sqlite)
        if made is None:
            compiled = self._for(is_sqlite=is_sqlite).compile(
                dialect=SQLITE if is_sqlite else POSTGRESQL,
                compile_kwargs={"render_postcompile": True},
            )
            fixed = {name: value for name, value in compiled.params.items() if value is not None}
            text = str(compiled)
            made = self._made[is_sqlite] = _Compiled(text, fixed, widths_of(compiled))
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
