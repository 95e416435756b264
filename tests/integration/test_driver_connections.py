"""SQLite's own connection in place of SQLAlchemy's: the same promises, in a tenth of the time."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from handbell.errors import DatabaseFullError, DatabaseLockedError, ReadOnlyError, StorageError
from handbell.storage.connections import Quick, driver_of
from handbell.storage.database import Database

_ADD = "INSERT INTO apps (public_id, name, created_at) VALUES (?, 'App', 0)"
_COUNT = "SELECT count(*) FROM apps"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Yield a database that is ready and does not wait long."""
    with closing(Database.open(f"sqlite:///{tmp_path}/handbell.db", wait=0.1)) as opened:
        yield opened


def _driver(connection: Quick) -> sqlite3.Connection:
    driver = driver_of(connection)
    assert isinstance(driver, sqlite3.Connection)
    return driver


def _add(database: Database, names: Iterable[str]) -> None:
    with database.quick_write() as connection:
        for name in names:
            _driver(connection).execute(_ADD, (name,))


def _broken_off(name: str) -> Iterator[str]:
    yield name
    raise OSError("ours")


def _count(database: Database) -> int:
    with database.quick_read() as connection:
        (found,) = _driver(connection).execute(_COUNT).fetchone()
    return int(found)


def test_a_quick_write_is_all_or_nothing(database: Database) -> None:
    """What fails inside leaves nothing behind, is explained, and the next one works."""
    with pytest.raises(StorageError, match="UNIQUE"):
        _add(database, ["one", "two", "one"])
    assert _count(database) == 0
    with pytest.raises(OSError, match="ours"):
        _add(database, _broken_off("one"))
    assert _count(database) == 0
    _add(database, ["one", "two"])
    assert _count(database) == 2


def test_a_quick_read_sees_one_state(database: Database) -> None:
    """What is committed meanwhile does not change what it has begun to see, and it shuts after."""
    with database.quick_read() as connection:
        driver = _driver(connection)
        before = driver.execute(_COUNT).fetchone()
        _add(database, ["one"])
        assert driver.execute(_COUNT).fetchone() == before
    assert _count(database) == 1
    assert not driver.in_transaction


def test_it_is_durable_once_it_returns(database: Database) -> None:
    """Another process finds it at once, and a flush was asked for at the commit."""
    _add(database, ["one"])
    with database.quick_write() as connection:
        assert _driver(connection).execute("PRAGMA synchronous").fetchone() == (2,)
    code = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute(sys.argv[2]))"
    command = [sys.executable, "-c", code, str(database.path), _COUNT]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"(1,)\n"


def test_quick_writers_take_turns(database: Database) -> None:
    """One that waits too long for another thread is told so."""
    with ThreadPoolExecutor(1) as pool, database.quick_write():
        with pytest.raises(DatabaseLockedError):
            pool.submit(_add, database, ["one"]).result()
        with pytest.raises(DatabaseLockedError):
            pool.submit(database.migrate).result()
    _add(database, ["one"])
    assert _count(database) == 1


def test_a_lock_of_another_connection_is_named(database: Database) -> None:
    """As another process would hold it."""
    with closing(sqlite3.connect(str(database.path), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseLockedError, match="Another process"):
            _add(database, ["one"])
    _add(database, ["one"])


def test_a_full_or_read_only_database_is_named(database: Database) -> None:
    """What the driver says has the same names as what SQLAlchemy says."""
    with database.quick_read() as connection:
        _driver(connection).execute("PRAGMA max_page_count = 1").close()
    with pytest.raises(DatabaseFullError, match="no space left"):
        _add(database, (f"app{number}" for number in range(2000)))
    assert _count(database) == 0
    with closing(Database(f"sqlite:///file:{database.path}?mode=ro&uri=true")) as reader:
        assert _count(reader) == 0
        with pytest.raises(ReadOnlyError, match="cannot be written"):
            _add(reader, ["one"])


def test_the_driver_shares_the_transaction(database: Database) -> None:
    """Beside SQLAlchemy's connection it sees and writes what that one does."""
    with database.write() as connection:
        connection.exec_driver_sql(_ADD, ("one",))
        driver = _driver(connection)
        assert driver.execute(_COUNT).fetchone() == (1,)
        driver.execute(_ADD, ("two",))
        assert connection.exec_driver_sql(_COUNT).scalar_one() == 2
    assert _count(database) == 2
