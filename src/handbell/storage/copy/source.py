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
        """Return the next rows after a key, in key order."""
        keys = ", ".join(key_columns(table))
        marks = ", ".join("?" * len(key_columns(table)))
        behind = "" if after is None else f"WHERE ({keys}) > ({marks})"
        statement = f"SELECT {_columns(table)} FROM {table.name} {behind} ORDER BY {keys} LIMIT ?"  # noqa: S608 - as above
        return self._driver.execute(statement, (*(after or ()), limit)).fetchall()

    def sample(self, table: Table, rows: int, number: int) -> list[Row]:
        """Return about ``number`` random rows of a table of ``rows``; of a small one all."""
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
        """Return the highest id ever used, as far as SQLite knows; 0 for none."""
        highest = self._driver.execute(f"SELECT max(id) FROM {table.name}").fetchone()[0] or 0  # noqa: S608 - as above
        if not table.dialect_options["sqlite"]["autoincrement"]:
            return int(highest)
        kept = "SELECT seq FROM sqlite_sequence WHERE name = ?"
        found = self._driver.execute(kept, (table.name,)).fetchone()
        return max(int(highest), int(found[0]) if found else 0)

    def note(self, name: str) -> str | None:
        """Return the text of an installation note, or None."""
        statement = "SELECT value FROM installation WHERE name = ?"
        found = self._driver.execute(statement, (name,)).fetchone()
        return None if found is None else str(found[0])

    def closure(self) -> Closure | None:
        """Return why it is closed; None if it is open."""
        return Closure.read(self.note(CLOSED))

    def close_as(self, closure: Closure) -> None:
        """Close it for all users, durably."""
        statement = "INSERT OR REPLACE INTO installation (name, value) VALUES (?, ?)"
        self._driver.execute(statement, (CLOSED, closure.text())).close()

    def reopen(self) -> None:
        """Open it again."""
        self._driver.execute("DELETE FROM installation WHERE name = ?", (CLOSED,)).close()


@contextmanager
def open_source(url: str) -> Iterator[Source]:
    """Yield the source of a URL, which no other process can open meanwhile.

    An older schema is upgraded first. Raises SettingsError for any other kind of database,
    StorageError if it is missing or unusable, and DatabaseLockedError while another
    process has it open.
    """
    database = Database(url)
    path = database.path
    if path is None:
        raise SettingsError(
            f"{database.name} is not an SQLite database, and only SQLite is copied from",
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
    """Return the nodes that report using it, as part of a sentence; empty if there are none."""
    try:
        with closing(sqlite3.connect(path, timeout=_SECONDS)) as driver:
            rows = driver.execute("SELECT kind, name FROM nodes ORDER BY kind, name").fetchall()
    except sqlite3.Error:
        return ""
    return f" by {', '.join(f'the {kind} {node}' for kind, node in rows)}" if rows else ""
