"""The target of a copy: an empty PostgreSQL database, or one with a part of the same copy."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

from sqlalchemy import Column, Connection, Table, delete, extract, func, select, text, tuple_
from sqlalchemy.exc import DBAPIError

from handbell._chunks import chunks
from handbell.errors import ContradictionError, SettingsError, StorageError
from handbell.storage.database import Database
from handbell.storage.installation import (
    CLOSED,
    KEY,
    Closure,
    read_note,
    remove_note,
    replace_note,
    write_note,
)
from handbell.storage.tables import installation, nodes

from .copied import TABLES, Key, Row, key_columns, key_of

COPIED: Final = "copied"
"""The name of the note about a completed copy, in the target: a closure."""
_PROGRESS: Final = "copy."
_IS_PROGRESS: Final = installation.c.name.startswith(_PROGRESS, autoescape=True)
_AT_ONCE: Final = 500
_LEASE_SECONDS: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a table: ``rows`` were copied, up to the key ``after``.

    ``seconds`` is the time it took.
    """

    rows: int = 0
    after: Key | None = None
    seconds: float = 0.0

    @classmethod
    def read(cls, note: str | None) -> Self:
        """Parse the progress in a note."""
        if note is None:
            return cls()
        found = json.loads(note)
        return cls(rows=found["rows"], after=tuple(found["after"]), seconds=found["seconds"])

    def note(self) -> str | None:
        """Return the note; None if nothing was copied."""
        if self.after is None:
            return None
        return json.dumps({"rows": self.rows, "after": self.after, "seconds": self.seconds})


class Target:
    """Writes the rows of a copy. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.name = database.name

    @classmethod
    def open(cls, url: str) -> Self:
        """Return the target of a URL; an empty database gets the current schema.

        Raises SettingsError for another kind of database, StorageError if it cannot be used or
        has another schema.
        """
        database = Database(url)
        if database.path is not None:
            raise SettingsError(
                f"{database.name} is an SQLite database, and only PostgreSQL is copied to",
                fix="Name a database: --to postgresql://user:password@host/name",
            )
        with closing(database):
            is_empty = database.revision() is None
        return cls(Database.open(url, migrate=is_empty, even_closed=True))

    def close(self) -> None:
        """Close its connections."""
        self._database.close()

    def closure(self) -> Closure | None:
        """Return the unfinished copy in it, if any."""
        with self._database.read() as connection:
            return Closure.read(read_note(connection, CLOSED))

    def ended(self) -> Closure | None:
        """Return the completed copy in it, if any."""
        with self._database.read() as connection:
            return Closure.read(read_note(connection, COPIED))

    def foreign(self) -> tuple[str, int] | None:
        """Return a table that has rows, and their number; None if every table is empty."""
        with self._database.read() as connection:
            for table in TABLES:
                if rows := connection.scalar(select(func.count()).select_from(table)):
                    return table.name, rows
        return None

    def in_use(self) -> list[str]:
        """Return the names of the servers and workers that use it now."""
        now = extract("epoch", func.now()) * 1000
        lives = nodes.c.seen_at > now - _LEASE_SECONDS * 1000
        with self._database.read() as connection:
            return list(connection.scalars(select(nodes.c.name).where(lives)))

    def begin(self, closure: Closure, key: str | None) -> None:
        """Close it for all users, and store the source's note of its secret key.

        Raises ContradictionError if another copy into it has begun.
        """
        with self._database.write() as connection:
            replace_note(connection, CLOSED, None, closure.text())
            remove_note(connection, KEY)
            if key is not None:
                write_note(connection, KEY, key)

    def empty(self) -> None:
        """Remove the rows of a former copy."""
        names = ", ".join(f'"{table.name}"' for table in TABLES)
        with self._database.write() as connection:
            connection.execute(text(f"TRUNCATE {names} CASCADE"))
            connection.execute(delete(installation).where(_IS_PROGRESS))
            remove_note(connection, CLOSED)

    def progress(self) -> dict[str, Progress]:
        """Return the progress of each table that was begun, by name."""
        with self._database.read() as connection:
            rows = connection.execute(select(installation).where(_IS_PROGRESS)).all()
        return {row.name.removeprefix(_PROGRESS): Progress.read(row.value) for row in rows}

    def append(self, table: Table, rows: Sequence[Row], former: Progress, now: Progress) -> None:
        """Add rows to a table, and store its progress.

        Raises ContradictionError if another copy has added to it since ``former``.
        """
        with self._database.write() as connection:
            if not replace_note(
                connection, _PROGRESS + table.name, former.note(), now.note() or ""
            ):
                raise ContradictionError(
                    f"Another copy into {self.name} is running",
                    fix="Let it end, or stop it and run this one again",
                )
            _copy_in(connection, table, rows)

    def count(self, table: Table) -> int:
        """Return the number of rows."""
        with self._database.read() as connection:
            return connection.scalar(select(func.count()).select_from(table)) or 0

    def rows(self, table: Table, keys: Sequence[Key]) -> dict[Key, Row]:
        """Return the rows with these keys, by key."""
        key = tuple_(*(table.c[name] for name in key_columns(table)))
        found: dict[Key, Row] = {}
        with self._database.read() as connection:
            for chunk in chunks(list(keys)):
                for row in connection.execute(select(table).where(key.in_(chunk))):
                    found[key_of(table, tuple(row))] = tuple(row)
        return found

    def secrets(self, column: Column[Any]) -> Iterator[tuple[int, bytes]]:
        """Yield the id and the sealed text of each row that has one."""
        table, after = column.table, 0
        while True:
            wanted = (
                select(table.c.id, column)
                .where(table.c.id > after, column.is_not(None))
                .order_by(table.c.id)
            )
            with self._database.read() as connection:
                found = connection.execute(wanted.limit(_AT_ONCE)).all()
            for row in found:
                yield row[0], bytes(row[1])
            if len(found) < _AT_ONCE:
                return
            after = found[-1][0]

    def end(self, last_ids: Mapping[str, int]) -> None:
        """Open it; new ids start above the highest ones of the source, by table."""
        with self._database.write() as connection:
            for name, last in last_ids.items():
                _continue_ids(connection, name, last)
            closed = read_note(connection, CLOSED)
            if closed is None:
                raise StorageError(
                    f"Another process opened {self.name} before the copy was complete",
                    fix="Do not use it; copy into an empty database",
                )
            connection.execute(delete(installation).where(_IS_PROGRESS))
            write_note(connection, COPIED, closed)
            remove_note(connection, CLOSED)


def _continue_ids(connection: Connection, table: str, last: int) -> None:
    find = text("SELECT pg_get_serial_sequence(:table, 'id')")
    sequence = connection.scalar(find, {"table": table})
    if sequence is not None and last:
        advance = text("SELECT setval(CAST(:sequence AS regclass), :last)")
        connection.execute(advance, {"sequence": sequence, "last": last})


def _copy_in(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    driver: Any = connection.connection.driver_connection
    statement = f'COPY "{table.name}" ({columns}) FROM STDIN'
    with _translated(connection), driver.cursor() as cursor, cursor.copy(statement) as copying:
        for row in rows:
            copying.write_row(row)


@contextmanager
def _translated(connection: Connection) -> Iterator[None]:
    """Raise the driver's errors as SQLAlchemy's, which :class:`Database` handles."""
    kind: Any = connection.dialect.loaded_dbapi.Error
    try:
        yield
    except kind as error:
        if connection.dialect.is_disconnect(error, None, None):
            connection.invalidate(error)
        raise DBAPIError.instance(None, None, error, kind, dialect=connection.dialect) from error
