import gc
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, func, insert, select, text
from tests.stored import stored_in

import handbell.storage
from handbell.errors import (
    DatabaseFullError,
    DatabaseLockedError,
    ReadOnlyError,
    SettingsError,
    StorageError,
)
from handbell.storage.connections import Driver, driver_of
from handbell.storage.database import Database
from handbell.storage.migrations import HEAD, VERSION_TABLE
from handbell.storage.tables import apps, metadata

NOBODY = 65534


def app_values(number: int) -> dict[str, object]:
    """Return the row of some app."""
    return {
        "public_id": f"TEAM123456.com.sample.app{number}",
        "team_id": "TEAM123456",
        "bundle_id": f"com.sample.app{number}",
        "name": f"app{number}",
        "created_at": 0,
    }


def add_app(database: Database, number: int = 0) -> None:
    """Write one row in a transaction of its own."""
    with database.write() as connection:
        connection.execute(insert(apps).values(app_values(number)))


def count_apps(database: Database) -> int:
    """Return how many rows were written."""
    with database.read() as connection:
        return connection.scalar(select(func.count()).select_from(apps)) or 0


def is_open(driver: Driver) -> bool:
    """Return whether a connection of the driver can still be asked."""
    try:
        driver.execute("SELECT 1").close()
    except sqlite3.ProgrammingError:
        return False
    return True


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Name a database in a home folder that is not there yet."""
    return f"sqlite:///{tmp_path}/home/handbell.db"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """Yield a database that is ready and does not wait long."""
    with closing(Database.open(url, wait=0.1)) as opened:
        yield opened


def test_opening_makes_everything_private(database: Database) -> None:
    """The home folder is made with mode 700, the database and its journals with mode 600."""
    add_app(database)
    path = database.path
    assert path is not None
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert set(modes) == {"handbell.db", "handbell.db-wal", "handbell.db-shm"}
    assert set(modes.values()) == {0o600}


def test_sqlite_is_set_up_to_lose_nothing(database: Database) -> None:
    """Write-ahead log, a flush at every commit, and foreign keys that hold."""
    with database.read() as connection:
        found = {
            name: connection.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert found == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 100,
    }


def test_a_write_is_all_or_nothing(database: Database) -> None:
    """What fails inside a write leaves nothing behind, and the next one works."""
    twice = [app_values(1), app_values(2), app_values(1)]
    with pytest.raises(StorageError, match="UNIQUE"), database.write() as connection:
        connection.execute(insert(apps), twice)
    assert count_apps(database) == 0
    add_app(database)
    assert count_apps(database) == 1


def test_only_a_write_that_is_to_last_waits_for_the_disk(database: Database) -> None:
    """Each asks for it anew; both are there for everybody once they are committed."""
    asked = "PRAGMA synchronous"
    for is_lasting, level in ((True, 2), (False, 1), (True, 2), (False, 1)):
        with database.write(is_lasting=is_lasting) as connection:
            assert connection.exec_driver_sql(asked).scalar() == level


def test_a_read_sees_one_state(database: Database) -> None:
    """What is committed meanwhile does not change what a read has begun to see."""
    with database.read() as connection:
        before = connection.scalar(select(func.count()).select_from(apps))
        add_app(database)
        assert connection.scalar(select(func.count()).select_from(apps)) == before
    assert count_apps(database) == 1


def test_a_closed_database_has_nothing_open(database: Database) -> None:
    """What is in use at that moment works to its end and closes then; so do latecomers."""
    with database.read() as used, database.quick_read() as quick:
        with database.read() as connection:
            idle = driver_of(connection)
        at_work = [driver_of(used), driver_of(quick)]
        with ThreadPoolExecutor(1) as pool:
            pool.submit(database.close).result()
        assert not is_open(idle)
        assert [is_open(driver) for driver in at_work] == [True, True]
    assert [is_open(driver) for driver in at_work] == [False, False]
    with database.write() as connection:
        late = driver_of(connection)
        connection.execute(insert(apps).values(app_values(0)))
    assert not is_open(late)
    assert count_apps(database) == 1


def test_a_database_that_nobody_refers_to_closes_itself(url: str) -> None:
    """Who drops what he reads with, as callers of ``Sessions`` do, leaves nothing open."""
    database = Database.open(url)
    with database.read() as connection:
        driver = driver_of(connection)
    assert is_open(driver)
    del database, connection
    gc.collect()
    assert not is_open(driver)


def test_threads_take_turns(url: str) -> None:
    """Many threads write at once, and nothing is lost or refused."""
    with closing(Database.open(url)) as database:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: add_app(database, number), range(64)))
        assert count_apps(database) == 64


STARTER = """
import sys
from handbell.storage.database import Database
from handbell.storage.tables import apps
database = Database.open(sys.argv[1])
with database.write() as connection:
    connection.execute(apps.insert().values(
        public_id=f"TEAM123456.com.sample.p{sys.argv[2]}", name="p", created_at=0))
database.close()
"""


def test_many_processes_start_at_once(url: str) -> None:
    """Eight processes open a database that is not there yet: it is made once, and all can write."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", STARTER, url, str(number)], stderr=subprocess.PIPE, text=True
        )
        for number in range(8)
    ]
    ended = [process.communicate(timeout=50)[1] for process in started]
    assert ended == [""] * 8
    with closing(Database.open(url)) as database:
        assert count_apps(database) == 8


CRASHER = STARTER.replace(
    "database.close()", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
)


def test_what_was_committed_survives_a_crash(url: str) -> None:
    """A process killed right after its write leaves the write behind."""
    ended = subprocess.run([sys.executable, "-c", CRASHER, url, "1"], check=False)
    assert ended.returncode == -9
    with closing(Database.open(url)) as database:
        assert count_apps(database) == 1


def test_the_migrations_make_the_schema(tmp_path: Path, database: Database) -> None:
    """Alembic finds no difference, SQLite's own text of every object is the same, and each row.

    A new database is made at once, so the migrations are run here one after the other.
    """
    file = tmp_path / "migrated.db"
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        config = migrations()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
    engine.dispose()
    assert database.path is not None
    assert definitions(database.path) == definitions(file)
    with (
        closing(sqlite3.connect(database.path)) as made,
        closing(sqlite3.connect(file)) as migrated,
    ):
        for table in (VERSION_TABLE, *metadata.tables):
            rows = f"SELECT * FROM {table}"  # noqa: S608 - a name of ours
            assert made.execute(rows).fetchall() == migrated.execute(rows).fetchall()


def migrations() -> Config:
    """Return Alembic's settings for the migrations."""
    config = Config()
    folder = Path(handbell.storage.__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder))
    config.set_main_option("path_separator", "os")
    return config


def definitions(path: Path) -> dict[str, list[str]]:
    """Return each object's definition as its lines, in an order that does not matter."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return {name: sorted(line.strip(" ,\t") for line in sql.splitlines()) for name, sql in rows}


def test_the_known_head_is_the_newest_migration() -> None:
    """The constant that spares loading Alembic is right."""
    assert ScriptDirectory.from_config(migrations()).get_heads() == [HEAD]


def test_opening_an_up_to_date_database_does_not_load_alembic(url: str) -> None:
    """The usual start reads one row and migrates nothing."""
    Database.open(url).close()
    code = (
        "import sys; from handbell.storage.database import Database; "
        "Database.open(sys.argv[1]).close(); "
        "sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, url], check=False).returncode == 0


def test_migrating_twice_does_nothing(database: Database) -> None:
    """A second migration says that there was nothing to do."""
    assert database.revision() == HEAD
    assert database.migrate() is False


def test_a_schema_that_may_not_be_migrated_says_how(url: str) -> None:
    """Where migrating at the start is not wanted, the error names the command."""
    with pytest.raises(StorageError, match="handbell db upgrade"):
        Database.open(url, migrate=False)
    with closing(Database(url)) as database:
        assert database.migrate() is True
    Database.open(url, migrate=False).close()


def test_a_newer_schema_is_left_alone(url: str, database: Database) -> None:
    """A database of a later Handbell is refused, not written to."""
    with database.write() as connection:
        connection.execute(text("UPDATE handbell_version SET version_num = '9999'"))
    with pytest.raises(StorageError, match="newer Handbell"):
        Database.open(url)


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """Tables of the same name that are not Handbell's are not touched."""
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE users (id INTEGER PRIMARY KEY)")
    with pytest.raises(StorageError, match="not Handbell's"):
        Database.open(f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)


def test_a_failed_migration_leaves_nothing(tmp_path: Path) -> None:
    """The schema is made in one transaction: a full disk halfway leaves an empty database."""
    path = tmp_path / "small.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA page_size = 512")
        other.execute("PRAGMA journal_mode = WAL")
    with closing(Database(f"sqlite:///{path}")) as database:
        with pytest.raises(DatabaseFullError), limited(database, pages=10):
            database.migrate()
        assert database.revision() is None


@contextmanager
def limited(database: Database, *, pages: int) -> Iterator[None]:
    """Leave SQLite only so many pages: to it that is a full disk."""
    with database.read() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    yield


@contextmanager
def locked_by_another_process(path: Path) -> Iterator[None]:
    """Let another process hold the write lock."""
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN IMMEDIATE'); "
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield
        holder.communicate()


def test_a_database_held_by_another_process_is_locked(database: Database) -> None:
    """A write that cannot get its turn says so, and works again afterwards."""
    assert database.path is not None
    with locked_by_another_process(database.path):
        with pytest.raises(DatabaseLockedError, match="Another process"):
            add_app(database)
        assert count_apps(database) == 0
    add_app(database)
    assert count_apps(database) == 1


def test_a_thread_that_waits_too_long_is_told(database: Database) -> None:
    """A writer in another thread counts as well."""
    with ThreadPoolExecutor(1) as pool, database.write():
        waiting = pool.submit(add_app, database)
        with pytest.raises(DatabaseLockedError, match="Other writes of this program"):
            waiting.result()


def test_threads_behind_one_that_waits_for_another_process_name_that(database: Database) -> None:
    """Whoever waits behind a writer of this program hears what that writer waits for."""
    assert database.path is not None
    with locked_by_another_process(database.path), ThreadPoolExecutor(4) as pool:
        for waiting in [pool.submit(add_app, database) for _ in range(4)]:
            with pytest.raises(DatabaseLockedError, match="Another process"):
                waiting.result()


def test_a_full_disk_is_named(database: Database) -> None:
    """No room for another page is a full database."""
    everything = [app_values(number) for number in range(2000)]
    with (
        pytest.raises(DatabaseFullError, match="no space left"),
        limited(database, pages=1),
        database.write() as connection,
    ):
        connection.execute(insert(apps), everything)
    assert count_apps(database) == 0


def test_a_database_opened_for_reading_cannot_be_written(database: Database) -> None:
    """SQLite's own read-only mode is answered as read-only."""
    with closing(Database(f"sqlite:///file:{database.path}?mode=ro&uri=true")) as reader:
        assert count_apps(reader) == 0
        with pytest.raises(ReadOnlyError, match="cannot be written"):
            add_app(reader)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """A file that is no database is not taken for one, and not changed."""
    path = tmp_path / "handbell.db"
    path.write_text("This is a letter, and not a database. " * 100)
    with pytest.raises(StorageError, match="damaged or not an SQLite database"):
        Database.open(f"sqlite:///{path}")
    assert stored_in(path).startswith(b"This is a letter")


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    """A folder where the database should be is an error with its path."""
    with pytest.raises(StorageError, match=str(tmp_path)):
        Database.open(f"sqlite:///{tmp_path}")


def test_a_file_in_place_of_the_home_folder_is_named(tmp_path: Path) -> None:
    """A file where the home folder should be is an error that names HANDBELL_HOME."""
    (tmp_path / "home").touch()
    with pytest.raises(StorageError, match="HANDBELL_HOME"):
        Database.open(f"sqlite:///{tmp_path}/home/handbell.db")


@contextmanager
def folder_of_somebody_else() -> Iterator[Path]:
    """Yield a folder that may be read and not written, also when the tests run as root."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o555)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            if is_root:
                os.seteuid(0)
            Path(name).chmod(0o755)


@pytest.mark.parametrize("place", ["handbell.db", "home/handbell.db"])
def test_a_folder_that_may_not_be_written_is_read_only(place: str) -> None:
    """Neither the database nor the home folder can be made where others alone may write."""
    with folder_of_somebody_else() as folder, pytest.raises(ReadOnlyError, match="HANDBELL_HOME"):
        Database.open(f"sqlite:///{folder}/{place}")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("handbell.db", "not one that Handbell understands"),
        ("mysql://me:hunter2@host/db", "not one that Handbell understands"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("postgresql+nosuchdriver://me:hunter2@host/db", "driver"),
    ],
)
def test_a_url_that_cannot_work_is_refused(url: str, why: str) -> None:
    """What cannot be a database is an error that names the variable and shows no password."""
    with pytest.raises(SettingsError, match=why) as caught:
        Database(url)
    assert "HANDBELL_DATABASE_URL" in caught.value.fix
    assert "hunter2" not in str(caught.value)


def test_a_wrong_statement_is_a_storage_error(database: Database) -> None:
    """What no special case covers is still one of Handbell's errors."""
    with pytest.raises(StorageError, match="no such table"), database.read() as connection:
        connection.execute(text("SELECT * FROM nowhere"))
