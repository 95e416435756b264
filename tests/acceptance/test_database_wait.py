"""A node that starts before its database server waits for it, and says so."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from bench.postgresql import PostgresServer
from tests.postgresql import start_postgresql


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """Give a PostgreSQL with Handbell's schema."""
    with start_postgresql() as started:
        yield started


@contextmanager
def _node(folder: Path, url: str, *words: str) -> Iterator["subprocess.Popen[str]"]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HANDBELL_")},
        "HANDBELL_HOME": str(folder),
        "HANDBELL_DATABASE_URL": url,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "handbell", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["worker"], "works on"),
        (["serve", "--port", "0", "--no-console"], "API"),
    ],
    ids=["worker", "server"],
)
def test_a_node_waits_for_its_database(
    server: PostgresServer, tmp_path: Path, words: list[str], line: str
) -> None:
    """It says what it waits for, and works as soon as the server is there."""
    with server.database() as url:
        server.stop()
        with _node(tmp_path / "home", url, *words) as node:
            assert node.stdout is not None
            assert node.stderr is not None
            waiting = node.stderr.readline()
            server.start()
            assert waiting.startswith("Waiting for the database")
            assert line in node.stdout.readline()
            node.terminate()
            assert node.wait(30) == 0


@pytest.mark.cluster
def test_a_server_that_loses_its_database_as_it_comes_up_waits(
    server: PostgresServer, tmp_path: Path
) -> None:
    """The last thing that it asks before it is ready costs a moment as well, and not the server."""
    with (
        server.database() as url,
        closing(psycopg.connect(url.replace("postgres@", ""), user="postgres")) as other,
    ):
        other.execute("LOCK TABLE operators IN ACCESS EXCLUSIVE MODE")
        with _node(tmp_path / "home", url, "serve", "--port", "0") as node:
            assert node.stdout is not None
            assert node.stderr is not None
            _await_waiter(server)
            server.stop()
            assert any(line.startswith("Waiting for the database") for line in node.stderr)
            server.start()
            assert "console/invitation" in node.stdout.readline()


def _await_waiter(server: PostgresServer) -> None:
    deadline = time.monotonic() + 30
    while not server.execute("SELECT 1 FROM pg_locks WHERE NOT granted"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
