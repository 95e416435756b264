"""Lists in statements of SQLAlchemy Core: any number of values, bound as one.

SQLite takes a list as one JSON text, PostgreSQL as an array.
"""

from collections.abc import Collection, Mapping
from typing import Any

from pydantic_core import to_json
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Join,
    TableValuedAlias,
    Text,
    bindparam,
    column,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from .dialects import POSTGRESQL

_Type = type[TypeEngine[Any]]


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
    widths_of(compiler)[element.listed] = len(element.types)
    if len(element.types) == 1:
        return f"json_each(:{element.listed})"
    told = ", ".join(
        f"json_extract(value, '$[{place}]') AS {name}" for place, name in enumerate(element.types)
    )
    return f"(SELECT {told} FROM json_each(:{element.listed}))"  # noqa: S608 - names of columns


@compiles(_Listed, "postgresql")
def _as_arrays(element: _Listed, compiler: Any, **_how: Any) -> str:
    widths_of(compiler)[element.listed] = len(element.types)
    arrays = ", ".join(
        f"CAST(%({element.listed}_{place})s AS {_named(kind)}[])"
        for place, kind in enumerate(element.types.values())
    )
    names = ", ".join(element.types)
    return f"(SELECT * FROM unnest({arrays}) AS listed({names}))"  # noqa: S608 - names of columns


def widths_of(compiled: Any) -> dict[str, int]:
    """Return how many columns the lists of a compiled statement have, by name."""
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


def _named(kind: _Type) -> str:
    return str(kind().compile(POSTGRESQL))
