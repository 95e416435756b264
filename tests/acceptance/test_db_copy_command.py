"""`handbell db copy` and `handbell status` in processes of their own: killed, repeated, refused."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import psycopg
import pytest
from bench.postgresql import PostgresServer
from cryptography.fernet import Fernet
from tests.preloaded import COMMAND, preloaded
from tests.version_01 import APP, SECRET_KEY, lay_out

from handbell.apps.vault import KEY_FILE

NONE: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True)
class Shell:
    """Runs ``handbell`` with a home folder; ``target`` is the URL of an empty database."""

    home: Path
    target: str

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a command, free of this machine's settings."""
        kept = {name: value for name, value in os.environ.items() if name[:9] != "HANDBELL_"}
        return {**kept, "HANDBELL_HOME": str(self.home), **more}

    def run(self, *arguments: str, code: int = 0, env: Mapping[str, str] = NONE) -> str:
        """Run the command to its end, which must be this exit code, and return what it said."""
        ended = subprocess.run(
            [preloaded(), *arguments],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            env=self.environment(env),
        )
        assert "Traceback" not in ended.stderr
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended.stdout if "--json" in arguments else ended.stdout + ended.stderr

    def read(self, *arguments: str, env: Mapping[str, str] = NONE) -> Any:
        """Run the command with ``--json`` and return what it says."""
        return json.loads(self.run(*arguments, "--json", env=env))

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start the command and leave it running."""
        return subprocess.Popen(
            [COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self.environment(NONE),
        )


@pytest.fixture
def shell(tmp_path: Path, postgresql: PostgresServer) -> Iterator[Shell]:
    """Give a home that an older version has filled, and an empty database."""
    home = lay_out(tmp_path / "home").parent
    (home / KEY_FILE).write_text(SECRET_KEY)
    (home / KEY_FILE).chmod(0o600)
    with postgresql.database() as target:
        yield Shell(home, target)


@contextmanager
def _locked(url: str, table: str) -> Iterator[None]:
    """Let nobody write to a table."""
    with psycopg.connect(url) as connection:
        connection.execute(f"LOCK TABLE {table} IN SHARE MODE".encode())
        yield


def _wait_for_rows(url: str, table: str) -> None:
    """Return once a copy has noted how far a table is."""
    deadline = time.monotonic() + 30
    wanted = "SELECT 1 FROM installation WHERE name = %s"
    with psycopg.connect(url, autocommit=True) as connection:
        while time.monotonic() < deadline:
            if connection.execute(wanted, (f"copy.{table}",)).fetchone():
                return
            time.sleep(0.02)
    raise AssertionError(f"nothing of {table} was copied")


def test_a_copy_that_was_killed_goes_on_and_the_target_goes_to_work(shell: Shell) -> None:
    """Killed amidst its work and run again it ends; then only the target can be worked with."""
    before = shell.read("status")
    on_target = {"HANDBELL_DATABASE_URL": shell.target}
    with _locked(shell.target, "sessions"):
        copying = shell.start("db", "copy", "--to", shell.target)
        _wait_for_rows(shell.target, "users")
        copying.send_signal(signal.SIGKILL)
        copying.communicate()
    assert "is not complete" in shell.run("app", "list", code=2, env=on_target)
    report = shell.read("db", "copy", "--to", shell.target)
    assert (report["is_resumed"], report["checked"]["faults"]) == (True, [])
    assert report["checked"]["opened"] == 5
    rows = {item["table"]: item["rows"] for item in report["tables"]}
    assert (rows["users"], rows["sessions"], rows["deliveries"]) == (71, 76, 28)

    assert APP in shell.run("app", "list", env=on_target)
    after = shell.read("status", env=on_target)
    assert (after["database_kind"], before["database_kind"]) == ("postgresql", "sqlite")
    for member in ("queue", "circuits", "webhooks"):
        assert after[member] == before[member]
    assert "queue\tnormal\t8\t" in shell.run("status", env=on_target)

    said = shell.run("worker", code=2)
    assert "is closed" in said
    assert "handbell db reopen" in said
    other = {**on_target, "HANDBELL_SECRET_KEY": Fernet.generate_key().decode()}
    assert "is not the installation's" in shell.run("worker", code=2, env=other)
    assert "nothing is left to copy" in shell.run("db", "copy", "--to", shell.target)
    assert "is open again" in shell.run("db", "reopen")


def test_a_copy_is_refused_with_a_reason(shell: Shell, tmp_path: Path) -> None:
    """A server that runs is named, a missing key is not made, and the wrong kinds are told."""
    copy = ("db", "copy", "--to", shell.target)
    server = shell.start("serve", "--listen", "127.0.0.1:0", "--no-worker", "--no-console")
    try:
        assert server.stdout is not None
        while "Listening" not in (line := server.stdout.readline()):
            assert line, "the server has ended"
        deadline = time.monotonic() + 20
        while "does not send" not in shell.run("status") and time.monotonic() < deadline:
            time.sleep(0.1)
        said = shell.run(*copy, code=2)
        assert "in use by the server" in said
        assert "Stop every server" in said
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate()
    assert server.returncode == 0
    assert shell.read("status")["nodes"] == []
    empty = tmp_path / "empty"
    said = shell.run(
        *copy,
        "--from",
        f"sqlite:///{shell.home}/handbell.db",
        code=2,
        env={"HANDBELL_HOME": str(empty)},
    )
    assert "no secret key" in said
    assert not (empty / KEY_FILE).exists()
    other = Fernet.generate_key().decode()
    assert "is not the installation's" in shell.run(
        *copy, code=2, env={"HANDBELL_SECRET_KEY": other}
    )
    # None of these has closed it.
    assert APP in shell.run("app", "list")
