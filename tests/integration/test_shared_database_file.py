"""The database file has one owner in each process: its locks hold, whoever opens and closes it."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import insert, text

from handbell.demo_environment import isolated_settings
from handbell.errors import CredentialError, StorageError
from handbell.services.apns.credential import read_auth_key
from handbell.storage.database import Database
from handbell.storage.engines import refuse_ours
from handbell.storage.tables import apps
from handbell.system import System

COUNT = "SELECT count(*) FROM apps"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name a database that is not there yet."""
    return tmp_path / "home" / "handbell.db"


def open_(path: Path | str) -> Database:
    """Open a database by a path."""
    return Database.open(f"sqlite:///{path}")


def add(database: Database, number: int) -> None:
    """Write one row that survives."""
    with database.write() as connection:
        row = {"team_id": "TEAM123456", "bundle_id": f"com.sample.p{number}", "name": "p"}
        row["public_id"] = f"{row['team_id']}.{row['bundle_id']}"
        connection.execute(insert(apps).values({**row, "created_at": 0}))


def elsewhere(code: str, *arguments: object) -> str:
    """Run code in another process, and return what it says."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=50)
    assert done.stderr == ""
    return done.stdout.strip()


COUNT_AND_CHECK = """
import sqlite3, sys
raw = sqlite3.connect(sys.argv[1])
print(raw.execute("PRAGMA integrity_check").fetchone()[0], *raw.execute(sys.argv[2]).fetchone())
raw.close()
"""


def checked(path: Path) -> str:
    """Have another process open, check and close the database; the last to close removes -wal."""
    return elsewhere(COUNT_AND_CHECK, path, COUNT)


def _again(path: Path) -> None:
    open_(path).close()


def _by_a_relative_path(path: Path) -> None:
    open_(os.path.relpath(path)).close()


def _by_a_link(path: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    open_(link).close()


def _by_a_linked_folder(path: Path) -> None:
    folder = path.parent.with_name("linked")
    folder.symlink_to(path.parent)
    open_(folder / path.name).close()


def _by_a_hard_link(path: Path) -> None:
    path.with_name("hard.db").hardlink_to(path)
    open_(path.with_name("hard.db")).close()


def _by_its_bare_url(path: Path) -> None:
    with closing(Database(f"sqlite:///{path}")) as database, database.read() as connection:
        assert connection.scalar(text(COUNT)) is not None


def _for_reading(path: Path) -> None:
    with closing(Database(f"sqlite:///file:{path}?mode=ro&uri=true")) as database:
        assert database.revision()


def _by_a_system(path: Path) -> None:
    system = System(isolated_settings(path.parent))
    assert len(system.apps.list()) >= 0
    system.database.close()


def _as_a_key(path: Path) -> None:
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        with pytest.raises(CredentialError, match="database"):
            read_auth_key(path.with_name(name), team_id="TEAM123456", key_id="KEY1234567")


def _with_raw_sqlite(path: Path) -> None:
    with closing(sqlite3.connect(path)) as raw:
        raw.execute(COUNT).fetchone()


USES: list[Callable[[Path], None]] = [
    _again,
    _by_a_relative_path,
    _by_a_link,
    _by_a_linked_folder,
    _by_a_hard_link,
    _by_its_bare_url,
    _for_reading,
    _by_a_system,
    _as_a_key,
    _with_raw_sqlite,
]


@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__.strip("_"))
def test_nothing_in_this_process_drops_its_locks(path: Path, use: Callable[[Path], None]) -> None:
    """After each way to use it a second time, a process that comes and goes takes nothing away."""
    with closing(open_(path)) as database:
        add(database, 1)
        use(path)
        assert checked(path) == "ok 1"
        assert path.with_name("handbell.db-wal").exists()
        add(database, 2)
        assert checked(path) == "ok 2"
    assert checked(path) == "ok 2"
    assert not path.with_name("handbell.db-wal").exists()


BUSY = """
import sys
from handbell.storage.database import Database
from handbell.storage.tables import apps
url, me, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
kept = Database.open(url)
for number in range(times):
    one = Database.open(url)
    with one.write() as connection:
        connection.execute(apps.insert().values(
            public_id=f"TEAM123456.com.sample.p{me}x{number}", name="p", created_at=0))
    one.close()
    if number % 5 == 0:
        kept.close()
        kept = Database.open(url)
print(times)
"""


def test_what_many_processes_wrote_is_there(path: Path) -> None:
    """Processes that open, write and close at will lose no row, and the file stays whole."""
    commands = [[sys.executable, "-c", BUSY, f"sqlite:///{path}", str(me), "25"] for me in range(4)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    ended = [each.communicate(timeout=50) for each in running]
    assert ended == [("25\n", "")] * 4
    assert checked(path) == "ok 100"


def test_one_user_closes_and_the_others_go_on(path: Path) -> None:
    """Users of one file share an engine, which is closed with the last of them."""
    first, second = open_(path), open_(path)
    with first.read() as connection:
        driver = connection.connection.driver_connection
    first.close()
    first.close()
    assert driver is not None
    driver.execute("SELECT 1").close()
    add(second, 1)
    second.close()
    with pytest.raises(sqlite3.ProgrammingError):
        driver.execute("SELECT 1")


def test_threads_make_one_file(path: Path) -> None:
    """Threads that open a database at once, which is not there yet, share it; it is private."""
    barrier = threading.Barrier(8)

    def start(number: int) -> Database:
        barrier.wait()
        database = open_(path)
        add(database, number)
        return database

    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(start, range(8)))
    assert len({id(one._engine) for one in opened}) == 1  # noqa: SLF001 - what they share
    assert checked(path) == "ok 8"
    assert path.stat().st_mode & 0o777 == 0o600
    for one in opened:
        one.close()


def test_a_link_to_a_file_that_is_not_there_is_followed(tmp_path: Path) -> None:
    """The file is made where the link points to, and is private there."""
    (tmp_path / "link.db").symlink_to(tmp_path / "elsewhere" / "handbell.db")
    with closing(open_(tmp_path / "link.db")) as database:
        add(database, 1)
    made = tmp_path / "elsewhere" / "handbell.db"
    assert made.stat().st_mode & 0o777 == 0o600
    assert checked(made) == "ok 1"


def _remove(path: Path) -> None:
    path.unlink()


def _move(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


def _replace(path: Path) -> None:
    copy = path.with_name("copy.db")
    elsewhere("import shutil, sys; shutil.copy(*sys.argv[1:])", path, copy)
    copy.rename(path)


def _remove_the_home(path: Path) -> None:
    shutil.rmtree(path.parent)


@pytest.mark.parametrize("change", [_remove, _move, _replace, _remove_the_home])
def test_a_file_that_was_taken_away_takes_nothing(
    path: Path, change: Callable[[Path], None]
) -> None:
    """What would be written to a file without a name is refused; a new start uses the new file."""
    with closing(open_(path)) as database:
        add(database, 1)
        change(path)
        for use in (database.read, database.write, database.quick_read, database.quick_write):
            with pytest.raises(StorageError, match="moved, removed or replaced"), use():
                pass
    with closing(open_(path)) as database:
        add(database, 2)
    assert checked(path).startswith("ok")


FORK = """
import os, sys, threading
from handbell.storage.database import Database
from handbell.storage.tables import apps
from sqlalchemy import text
def add(number):
    with database.write() as connection:
        connection.execute(apps.insert().values(
            public_id=f"TEAM123456.com.sample.p{number}", name="p", created_at=0))
database = Database.open(sys.argv[1])
add(1)
stop = threading.Event()
def work():
    while not stop.is_set():
        with database.read() as connection:
            connection.scalar(text("SELECT count(*) FROM apps"))
threads = [threading.Thread(target=work) for _ in range(3 if sys.argv[2] == "busy" else 0)]
for one in threads: one.start()
come, go = os.pipe(), os.pipe()
child = os.fork()
if not child:
    add(2)
    os.write(come[1], b"x")
    os.read(go[0], 1)
    add(3)
    os._exit(0)
os.read(come[0], 1)
stop.set()
for one in threads: one.join()
database.close()
print(len([name for name in os.listdir(os.path.dirname(sys.argv[3])) if name.endswith("-wal")]))
os.write(go[1], b"x")
print(os.waitpid(child, 0)[1])
"""


@pytest.mark.parametrize("kind", ["idle", "busy"])
def test_a_forked_child_holds_locks_of_its_own(path: Path, kind: str) -> None:
    """A parent that closes its last connection leaves the child's journal where it is."""
    assert elsewhere(FORK, f"sqlite:///{path}", kind, path) == "1\n0"
    assert checked(path) == "ok 3"


TORN = """
import os, sys
from handbell.storage.database import Database
from handbell.errors import StorageError
database = Database.open(sys.argv[1])
with database.write():
    child = os.fork()
    if not child:
        for _ in range(2):
            try:
                with database.read(): pass
            except StorageError as error:
                print(error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
with database.read(): print("the parent works")
"""


def test_a_fork_in_the_midst_of_a_write_is_told(path: Path) -> None:
    """The child, which has half of a transaction that is not its own, may not use the database."""
    told = elsewhere(TORN, f"sqlite:///{path}").splitlines()
    assert len(told) == 3
    assert "was forked while its parent worked" in told[0]
    assert told[1:] == [told[0], "the parent works"]


def test_what_is_no_database_of_ours_may_be_read(path: Path, tmp_path: Path) -> None:
    """Only the files of a database in use are refused, and those no longer once it is closed."""
    other = tmp_path / "other"
    other.touch()
    with closing(open_(path)):
        refuse_ours(other)
        refuse_ours(tmp_path / "nothing")
        with pytest.raises(OSError, match="in use here"):
            refuse_ours(path)
