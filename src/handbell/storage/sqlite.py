"""What only SQLite knows: how to connect, its locks and schema, and what its errors mean.

docs/decisions/0002-sqlite-first.md says what settings it uses, and why.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL
from sqlalchemy.schema import CreateIndex, CreateTable

from handbell._files import why_not_writable
from handbell.errors import (
    DatabaseFullError,
    DatabaseLockedError,
    ReadOnlyError,
    StorageError,
)

from .connections import driver_of, make_pool
from .folders import storage_error
from .migrations import HEAD, OLDEST, VERSION_TABLE
from .tables import metadata
from .upgrade import note_oldest

WRITES: Final = "handbell_writes"
"""The option of a connection whose transactions write: they begin with the lock."""

_VERSION_SCHEMA: Final = f"""
CREATE TABLE {VERSION_TABLE} (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num)
)
"""
_UNWRITABLE: Final = frozenset(
    {
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_IOERR,
    }
)
_FAILURES: Final[tuple[tuple[set[int], type[StorageError], str, str], ...]] = (
    (
        {sqlite3.SQLITE_FULL},
        DatabaseFullError,
        "There is no space left for the database {name}",
        "Free space on its disk; nothing that was accepted is lost",
    ),
    (
        {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM},
        ReadOnlyError,
        "The database {name} cannot be written",
        "Give this user the right to write the file and its folder",
    ),
    (
        {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT},
        StorageError,
        "{name} is damaged or not an SQLite database",
        "Restore it from a backup, or move it away to begin anew",
    ),
    (
        {sqlite3.SQLITE_CANTOPEN},
        StorageError,
        "The database {name} cannot be opened",
        "Check that its folder is there, that it is a file, and who may read it",
    ),
    (
        {sqlite3.SQLITE_IOERR},
        StorageError,
        "The disk of the database {name} refused to read or to write: {error}",
        "Check that the disk works, and that space and this user's quota are left",
    ),
)
MISUNDERSTOOD: Final = frozenset(
    {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_MISUSE, sqlite3.SQLITE_RANGE}
)


def failure(name: str, error: BaseException | None, *, path: Path, wait: float) -> StorageError:
    """Return the error for what SQLite, or the disk, failed in. ``name`` is the URL's.

    ``wait`` is how many seconds a lock was waited for.
    """
    code = code_of(error)
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return locked(name, wait)
    # SQLite gives no reason.
    if code in _UNWRITABLE and (refusal := why_not_writable(path)) is not None:
        return storage_error(refusal, path)
    for codes, kind, message, fix in _FAILURES:
        if code in codes:
            return kind(message.format(name=name, error=error), fix=fix)
    return StorageError(
        f"The database {name} failed: {error}",
        fix="Check HANDBELL_DATABASE_URL, and that the disk works and has space left",
    )


def code_of(error: BaseException | None) -> int:
    """Return SQLite's primary result code of an error, 0 where it has none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def locked(name: str, wait: float) -> DatabaseLockedError:
    """Return the error for a file that another process did not give up."""
    return DatabaseLockedError(
        f"Another process has held the database {name} for more than {wait:g} s",
        fix="Try again; if it lasts, find out who keeps the file open, a backup for example",
    )


def make_engine(url: URL, *, wait: float) -> Engine:
    """Return an engine over a file; a lock is waited for ``wait`` seconds."""
    # One connection per concurrent thread; the whole process shares them.
    engine = make_pool(url, connect_args={"timeout": wait}, max_overflow=-1)
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "begin", _begin)
    return engine


def _set_up(connection: sqlite3.Connection, _record: object) -> None:
    # Else the driver begins transactions itself, too late for a write lock.
    connection.isolation_level = None
    # Checkpoint every 32 MB instead of every 4: thousands of writes a second touch most pages of
    # an index, which would be copied at every commit.
    for pragma in ("foreign_keys = ON", "synchronous = FULL", "wal_autocheckpoint = 8000"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    driver = driver_of(connection)
    assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - it listens to SQLite's engine
    driver.execute("BEGIN IMMEDIATE" if writes else "BEGIN").close()


def file_of(url: URL) -> Path | None:
    """Return the file that a URL of SQLite names, None for another database."""
    if url.get_backend_name() != "sqlite" or url.database is None:
        return None
    return Path(url.database.removeprefix("file:"))


def is_uri(url: URL) -> bool:
    """Return whether a URL names its file as a URI, which only SQLite can read."""
    return bool(url.database and url.database.startswith("file:"))


@contextmanager
def waiting_for_disk(connection: Connection, does_wait: bool) -> Iterator[None]:  # noqa: FBT001
    """Let commits of an SQLite connection wait for the disk or not; the next that does waits."""
    driver = None if does_wait else driver_of(connection)
    if driver is None:
        yield
        return
    driver.execute("PRAGMA synchronous = NORMAL").close()
    try:
        yield
    finally:
        driver.execute("PRAGMA synchronous = FULL").close()


def act_on_references(connection: Connection, *, is_on: bool) -> None:
    """Switch foreign keys on or off for a connection, outside of a transaction."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - it is asked for SQLite only
    driver.execute(f"PRAGMA foreign_keys = {'ON' if is_on else 'OFF'}").close()


def check_references(connection: Connection) -> None:
    """Raise StorageError where a row refers to one that is not there."""
    if broken := connection.exec_driver_sql("PRAGMA foreign_key_check").all():
        raise StorageError(
            f"The migration would leave {len(broken)} rows that refer to nothing",
            fix="Nothing was changed; report it with the version that you come from",
        )


@cache
def _schema() -> tuple[str, ...]:
    dialect = sqlite.dialect()
    made: list[CreateTable | CreateIndex] = []
    for table in metadata.sorted_tables:
        made.append(CreateTable(table))
        made += [
            CreateIndex(index) for index in sorted(table.indexes, key=lambda one: str(one.name))
        ]
    return (*(str(item.compile(dialect=dialect)) for item in made), _VERSION_SCHEMA)


def create_schema(connection: Connection) -> None:
    """Create the current schema in an empty database, without running each migration."""
    for statement in _schema():
        connection.exec_driver_sql(statement)
    connection.execute(text(f"INSERT INTO {VERSION_TABLE} VALUES (:head)"), {"head": HEAD})  # noqa: S608
    note_oldest(connection, HEAD, OLDEST)
