"""A full disk, one that is read-only, and what else a system refuses, told in words with a fix."""

import contextlib
import errno
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.version_01 import lay_out

from handbell._files import refused
from handbell.apps.app import App
from handbell.apps.sample_keys import make_key
from handbell.apps.store import AppStore
from handbell.apps.vault import Vault
from handbell.errors import DatabaseFullError, HandbellError, ReadOnlyError, StorageError, TwinError
from handbell.settings import Settings
from handbell.storage.database import Database
from handbell.storage.folders import private_folder, storage_error
from handbell.twin.certificates import Authority
from handbell.twin.discovery import Address, write_address
from handbell.twin.threaded import start_twin

HANDBELL = [sys.executable, "-m", "handbell"]
ADDRESS = Address(
    production_url="https://127.0.0.1:1",
    development_url="https://127.0.0.1:2",
    page_url="http://127.0.0.1:3",
    ca_file="ca.pem",
    pid=1,
)


def mount(place: Path, options: str) -> None:
    """Mount a small file system, or change one that is; skip the test where that may not be."""
    command = ["mount", "-t", "tmpfs", "-o", options, "handbell-test", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=10)
    except FileNotFoundError:
        pytest.skip("this machine has no command mount")
    if done.returncode:
        pytest.skip(f"this user may not mount a file system: {done.stderr.decode().strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Give the mount point of a file system of a test's own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount(place, "size=64k")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=10)


def fill(place: Path) -> None:
    """Leave no space on a file system, and no room for another file."""
    with contextlib.suppress(OSError), (place / "filler").open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass


def lock(place: Path) -> None:
    """Make a file system read-only."""
    mount(place, "remount,ro")


Writer = Callable[[Path], object]
"""Writes something below a folder, as Handbell does."""


def _home(place: Path) -> object:
    return private_folder(place / "new" / "home")


def _vault(place: Path) -> object:
    return Vault.open(Settings.load(home=place))


def _database(place: Path) -> object:
    return Database.open(f"sqlite:///{place}/handbell.db")


def _authority(place: Path) -> object:
    return Authority.open(place / "twin")


def _address(place: Path) -> object:
    write_address(place, ADDRESS)
    return None


def _twin(place: Path) -> object:
    with start_twin(place / "twin"):
        return None


WRITERS: list[Writer] = [_home, _vault, _database, _authority, _address, _twin]


@pytest.mark.parametrize("writer", WRITERS, ids=lambda one: one.__name__.strip("_"))
@pytest.mark.parametrize(
    ("spoil", "why", "kind"),
    [
        (fill, "no space", DatabaseFullError),
        (lock, "its file system is read-only", ReadOnlyError),
    ],
    ids=["full", "read-only"],
)
def test_a_disk_that_takes_nothing_is_told_as_that(
    disk: Path, writer: Writer, spoil: Callable[[Path], None], why: str, kind: type[HandbellError]
) -> None:
    """Whatever is written: what is the matter, with which path, and what to do."""
    spoil(disk)
    if spoil is fill and writer in (_home, _authority, _twin):
        # An empty folder takes no block of this file system: fill what holds the names as well.
        mount(disk, "remount,nr_inodes=2")
    with pytest.raises((kind, TwinError), match=why) as raised:
        writer(disk)
    assert str(disk) in raised.value.what
    assert "HANDBELL_HOME" in raised.value.fix or "Free space" in raised.value.fix
    assert "Errno" not in str(raised.value)
    left = {one.name for one in disk.rglob("*") if one.is_file()}
    assert left <= {"filler", "handbell.db"}, left


def test_the_twins_own_certificate_is_told_like_its_folder(disk: Path) -> None:
    """Also where the authority is there already, and only the server's file is missing."""
    Authority.open(disk)
    authority = Authority.open(disk)
    lock(disk)
    with pytest.raises(TwinError, match="its file system is read-only"):
        authority.server_context()


@pytest.mark.parametrize("command", [["app", "list"], ["twin"]], ids=" ".join)
def test_the_command_line_says_it_in_two_lines(disk: Path, command: list[str]) -> None:
    """No traceback: what, and what to do."""
    lock(disk)
    environment = {**os.environ, "HANDBELL_HOME": str(disk / "home")}
    done = subprocess.run(
        [*HANDBELL, *command],
        capture_output=True,
        env=environment,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "its file system is read-only" in done.stderr
    assert "HANDBELL_HOME" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", [["app", "list", "--json"]], ids=" ".join)
def test_an_output_that_is_full_is_told(tmp_path: Path, words: list[str]) -> None:
    """What a command says may be written to a file as well: `handbell … > file`."""
    environment = {**os.environ, "HANDBELL_HOME": str(tmp_path)}
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [*HANDBELL, *words],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("handbell: The output cannot be written: no space is left")
    assert "Traceback" not in done.stderr


def test_a_file_that_may_not_grow_is_told(tmp_path: Path) -> None:
    """Under `ulimit -f` the key cannot be written; nothing is left of it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        with pytest.raises(DatabaseFullError, match=r"larger than allowed") as raised:
            Vault.open(Settings.load(home=tmp_path / "home"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, former)
    assert "ulimit -f" in raised.value.fix
    assert list((tmp_path / "home").iterdir()) == []


def test_sending_goes_on_once_the_disk_has_space(disk: Path) -> None:
    """An app is refused its key while the disk is full, and takes it afterwards."""
    mount(disk, "remount,size=2m")
    home = disk / "home"
    vault = Vault.open(Settings.load(home=home))
    database = Database.open(f"sqlite:///{home}/handbell.db")
    with contextlib.closing(database):
        store = AppStore(database, vault)
        named = App.read_id("TEAM123456.com.sample.myapp")
        app = store.add(named.team_id, named.bundle_id, name="My App")
        fill(disk)
        with pytest.raises(DatabaseFullError, match="no space left"):
            _add_keys(store, app)
        (disk / "filler").unlink()
        store.add_credential(app, make_key(app.apple.team_id))


def _add_keys(store: AppStore, app: App) -> None:
    for _ in range(2000):
        store.add_credential(app, make_key(app.apple.team_id))


CODES = [
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.EMFILE, errno.ENFILE, errno.EBUSY, errno.EIO, errno.EINVAL, errno.ESTALE, errno.ENXIO),
]


@pytest.mark.parametrize("code", CODES, ids=lambda code: errno.errorcode[code])
def test_every_refusal_has_words_and_a_fix(code: int) -> None:
    """No number, no class of Python: a clause that says why, and another that says what to do."""
    error = storage_error(OSError(code, os.strerror(code)), Path("/var/lib/handbell"))
    assert isinstance(error, StorageError)
    assert "/var/lib/handbell" in error.what
    assert "Errno" not in error.what
    assert "HANDBELL_HOME" in error.fix
    assert refused(OSError(code, os.strerror(code))).why in error.what


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda folder: folder / ("x" * 300), "the name is too long"),
        (lambda folder: (folder / "file").touch() or folder / "file", "a file, not a folder"),
        (lambda folder: (folder / "file").touch() or folder / "file" / "home", "a file, not"),
        (lambda folder: (folder / "a").symlink_to("a") or folder / "a" / "home", "in a circle"),
    ],
    ids=["too long", "a file", "below a file", "a circle"],
)
def test_a_home_that_cannot_be_is_told(
    tmp_path: Path, make: Callable[[Path], Path], why: str
) -> None:
    """A path that leads nowhere says what is wrong with it."""
    with pytest.raises(StorageError, match=why):
        private_folder(make(tmp_path))


def test_a_twin_that_could_not_start_leaves_no_port(disk: Path) -> None:
    """After the refusal the next twin of this process starts as if nothing had been."""
    lock(disk)
    with pytest.raises(TwinError), start_twin(disk / "twin"):
        pass
    mount(disk, "remount,rw")
    with start_twin(disk / "twin") as twin:
        assert twin.production_url


@pytest.mark.parametrize(
    ("spoil", "kind"), [(fill, DatabaseFullError), (lock, ReadOnlyError)], ids=["full", "read-only"]
)
def test_a_backup_that_cannot_be_made_leaves_the_database_as_it_was(
    disk: Path, spoil: Callable[[Path], None], kind: type[StorageError]
) -> None:
    """Before a migration the database is copied; without the copy nothing is changed."""
    mount(disk, "remount,size=2m")
    path = lay_out(disk)
    before = path.read_bytes()
    spoil(disk)
    with pytest.raises(kind, match=re.escape(str(disk))):
        Database.open(f"sqlite:///{path}")
    assert path.read_bytes() == before
    assert not [one for one in disk.iterdir() if one.name.endswith("backup")]
