"""What SQLite cannot alter: a table is made anew, with its rows and whatever else it has."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from sqlalchemy import Connection

_ID: Final = re.compile(r"\bid INTEGER NOT NULL(?=\s*,)")
_KEY: Final = re.compile(r",\s*CONSTRAINT \w+ PRIMARY KEY \(id\)")


_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


def rebuild(
    connection: Connection,
    table: str,
    edit: Callable[[str], str],
    values: Mapping[str, str] = _NOTHING,
) -> None:
    """Make an SQLite table anew by its edited text; rows, indexes and references stay.

    Columns that the edited text adds take their defaults, or what an expression of ``values`` says
    of the former row. To be called where references are not acted on, as
    :meth:`handbell.storage.database.Database.migrate` does.
    """
    told = connection.exec_driver_sql(
        "SELECT type, sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL", (table,)
    ).all()
    (made,) = (row.sql for row in told if row.type == "table")
    columns = ", ".join(
        f'"{row.name}"' for row in connection.exec_driver_sql(f'PRAGMA table_info("{table}")')
    )
    former = f"former_{table}"
    # Else the references to the table would follow the former one.
    connection.exec_driver_sql("PRAGMA legacy_alter_table = ON")
    connection.exec_driver_sql(f'ALTER TABLE "{table}" RENAME TO "{former}"')
    connection.exec_driver_sql("PRAGMA legacy_alter_table = OFF")
    connection.exec_driver_sql(edit(made))
    into = ", ".join((columns, *values))
    kept = ", ".join((columns, *values.values()))
    connection.exec_driver_sql(
        f'INSERT INTO "{table}" ({into}) SELECT {kept} FROM "{former}"'  # noqa: S608 - names
    )
    connection.exec_driver_sql(f'DROP TABLE "{former}"')
    for row in told:
        if row.type != "table":
            connection.exec_driver_sql(row.sql)


def with_lasting_ids(made: str) -> str:
    """Return the text of a table whose ids are never given out again."""
    return _KEY.sub("", _ID.sub("id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT", made))


def with_column(*columns: str) -> Callable[[str], str]:
    """Return what adds columns behind the last one of a table's text."""

    def edit(made: str) -> str:
        place = re.search(r",\s*(?:CONSTRAINT|PRIMARY KEY|UNIQUE|CHECK|FOREIGN KEY)\b", made)
        assert place is not None  # noqa: S101 - every table of ours has a named key
        added = "".join(f", \n\t{column}" for column in columns)
        return f"{made[: place.start()]}{added}{made[place.start() :]}"

    return edit
