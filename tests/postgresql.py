"""A real PostgreSQL for tests, from a wheel: one server per run, a database per test.

The fixture ``database_url`` gives a test its database. In a file with ``pytestmark =
pytest.mark.databases`` each test that uses it runs on SQLite and on PostgreSQL, one that is marked
``databases("sqlite")`` on that alone; elsewhere it is SQLite. The server is started by the first
test that asks and stopped when the run ends.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from bench.postgresql import PostgresServer, Unavailable, new_folder

DATABASES: Final = ("sqlite", "postgresql")


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
    """Let tests that are marked ``databases`` run on each database, or on those it names."""
    marker = metafunc.definition.get_closest_marker("databases")
    if marker is not None and "database_url" in metafunc.fixturenames:
        metafunc.parametrize("database_url", marker.args or DATABASES, indirect=True)


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
