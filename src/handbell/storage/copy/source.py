"""The source of a copy: an SQLite file that nobody else has open."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Column, Table

from handbell.errors import DatabaseLockedError, SettingsError, StorageError
from handbell.storage.database import Database
from handbell.storage.installation import CLOSED, Closure
from handbell.storage.migrations import VERSION_TABLE

from .copied import Key, Row, key_columns

_SECONDS: Final = 1.0


class Source:
    """Reads the rows of one SQLite file; made by :func:`open_source`."""

    def __init__(self, name: str, driver: sqlite3.Connection) -> None:
        self.name = name
        self._driver = driver

    def count(self, table: Table) -> int:
        """Return the number of rows."""
        return int(self._driver.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0])  # noqa: S608 - names of ours

    def page(self, table: Table, after: Key | None, limit: int) -> list[Row]:
        """Return the next rows behind a key, in the order of their keys."""
        keys = ", ".join(key_columns(table))
        marks = ", ".join("?" * len(key_columns(table)))
        behind = "" if after is None else f"WHERE ({keys}) > ({marks})"
        statement = f"SELECT {_columns(table)} FROM {table.name} {behind} ORDER BY {keys} LIMIT ?"  # noqa: S608 - as above
        return self._driver.execute(statement, (*(after or ()), limit)).fetchall()

    def sample(self, table: Table, rows: int, number: int) -> list[Row]:
        """Return about ``number`` random rows of a table of ``rows``, every one of a small one."""
        every = max(1, rows // number)
        statement = f"SELECT {_columns(table)} FROM {table.name} WHERE random() % ? = 0 LIMIT ?"  # noqa: S608 - as above
        return self._driver.execute(statement, (every, 2 * number)).fetchall()

    def secrets(self, column: Column[bytes]) -> Iterator[tuple[int, bytes]]:
        """Yield the id and the sealed text of each row that has one."""
        table = column.table.name
        yield from self._driver.execute(
            f"SELECT id, {column.name} FROM {table} WHERE {column.name} IS NOT NULL ORDER BY id"  # noqa: S608 - as above
        )

    def last_id(self, table: Table) -> int:
        """Return the highest id that a row ever had, as far as SQLite knows it; 0 for none."""
        highest = self._driver.execute(f"SELECT max(id) FROM {table.name}").fetchone()[0] or 0  # noqa: S608 - as above
        if not table.dialect_options["sqlite"]["autoincrement"]:
            return int(highest)
        kept = "SELECT seq FROM sqlite_sequence WHERE name = ?"
        found = self._driver.execute(kept, (table.name,)).fetchone()
        return max(int(highest), int(found[0]) if found else 0)

    def note(self, name: str) -> str | None:
        """Return the text of one of the installation's notes, None where there is none."""
        statement = "SELECT value FROM installation WHERE name = ?"
        found = self._driver.execute(statement, (name,)).fetchone()
        return None if found is None else str(found[0])

    def closure(self) -> Closure | None:
        """Return why it is closed, None where it is open."""
        return Closure.read(self.note(CLOSED))

    def close_as(self, closure: Closure) -> None:
        """Close it for everybody, durably."""
        statement = "INSERT OR REPLACE INTO installation (name, value) VALUES (?, ?)"
        self._driver.execute(statement, (CLOSED, closure.text())).close()

    def reopen(self) -> None:
        """Take it back into use."""
        self._driver.execute("DELETE FROM installation WHERE name = ?", (CLOSED,)).close()


@contextmanager
def open_source(url: str) -> Iterator[Source]:
    """Yield the source of a URL, which no other process can open meanwhile.

    An older schema is brought up to date first. Raises SettingsError for what is no SQLite file,
    StorageError where there is none or it cannot be used, and DatabaseLockedError while any other
    process has it open.
    """
    database = Database(url)
    path = database.path
    if path is None:
        raise SettingsError(
            f"{database.name} is no SQLite database, and only such a one is copied",
            fix="Name its file: --from sqlite:////path/to/handbell.db",
        )
    if not path.is_file():
        raise StorageError(
            f"There is no database at {path}",
            fix="Name the file of the installation: --from sqlite:////path/to/handbell.db",
        )
    Database.open(url, even_closed=True).close()
    with closing(_connect(path, database.name)) as driver:
        yield Source(database.name, driver)


def _columns(table: Table) -> str:
    return ", ".join(column.name for column in table.columns)


def _connect(path: Path, name: str) -> sqlite3.Connection:
    driver = sqlite3.connect(path, timeout=_SECONDS, isolation_level=None)
    try:
        # Where any other connection is open, even an idle one, the first access fails.
        for statement in (
            "PRAGMA locking_mode = EXCLUSIVE",
            "PRAGMA synchronous = FULL",
            "BEGIN IMMEDIATE",
            f"SELECT version_num FROM {VERSION_TABLE}",  # noqa: S608 - a name of ours
            "COMMIT",
        ):
            driver.execute(statement).close()
    except sqlite3.OperationalError as error:
        driver.close()
        code = error.sqlite_errorcode & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise _in_use(path, name) from error
        raise StorageError(
            f"{name} cannot be used: {error}",
            fix="Check that this user may write the file and its folder: it is closed for others "
            "before it is copied",
        ) from error
    return driver


def _in_use(path: Path, name: str) -> DatabaseLockedError:
    return DatabaseLockedError(
        f"{name} is in use{_by_whom(path)}; what is written meanwhile would be lost",
        fix="Stop every server, worker and program that uses it, and copy it then",
    )


def _by_whom(path: Path) -> str:
    """Return who says that they use it, for a sentence; nothing where nobody says so."""
    try:
        with closing(sqlite3.connect(path, timeout=_SECONDS)) as driver:
            rows = driver.execute("SELECT kind, name FROM nodes ORDER BY kind, name").fetchall()
    except sqlite3.Error:
        return ""
    return f" by {', '.join(f'the {kind} {node}' for kind, node in rows)}" if rows else ""
