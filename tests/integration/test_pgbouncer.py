"""Behind PgBouncer in transaction mode each transaction may be on another connection."""

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from bench.postgresql import PostgresServer, new_folder
from sqlalchemy import func, select, text
from tests.conftest import Stage, open_stage

from handbell.storage.bulk import Columns, upsert_rows
from handbell.storage.database import Database
from handbell.storage.tables import tallies

_SECONDS = 20


@contextmanager
def _pooler(server: PostgresServer) -> Iterator[int]:
    """Run PgBouncer before a server, with two connections for everybody; yield its port."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("PgBouncer is missing: apt-get install pgbouncer")
    folder = new_folder()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host={server.folder} port={server.port} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        "auth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n"
    )
    is_root = os.geteuid() == 0
    process = subprocess.Popen(
        [program, "-q", str(settings)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=65534 if is_root else None,
    )
    try:
        _await_port(process, port)
        yield port
    finally:
        process.terminate()
        process.wait(_SECONDS)
        shutil.rmtree(folder, ignore_errors=True)


def _await_port(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError("PgBouncer does not start")


@pytest.fixture
def pooled_url(postgresql: PostgresServer) -> Iterator[str]:
    """Give the URL of a database behind PgBouncer."""
    with postgresql.database() as url, _pooler(postgresql) as port:
        name = url.split("/")[3].split("?")[0]
        yield f"postgresql://postgres@127.0.0.1:{port}/{name}"


def test_many_writers_share_two_connections(pooled_url: str) -> None:
    """Each write and each read is whole; nothing of a connection is taken along."""
    counted: Columns = {"app": ["one"], "hour": [1], "sent": [1]}
    sums = {"sent": "tallies.sent + excluded.sent"}
    key = ("app", "hour", "service")

    def write(number: int) -> None:
        with database.quick_write() as connection:
            upsert_rows(connection, tallies, counted, key=key, changed=sums)
        alone = "turn" if number % 3 == 0 else ""
        with database.write(is_lasting=number % 2 == 0, alone=alone) as connection:
            upsert_rows(connection, tallies, counted, key=key, changed=sums)
        with database.read() as connection:
            assert connection.scalar(select(func.count()).select_from(tallies)) == 1

    with closing(Database.open(pooled_url)) as database:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(60)))
        with database.read() as connection:
            assert connection.scalar(select(tallies.c.sent)) == 120
            assert connection.scalar(text("SHOW transaction_isolation")) == "repeatable read"
        with database.write() as connection:
            assert connection.scalar(text("SHOW transaction_isolation")) == "read committed"
            connection.execute(tallies.delete())


async def _send(stage: Stage) -> bool:
    response = await stage.send(["test@4d.com", "user1@example.com"])
    return response.success and response.total == 2


def test_a_send_works_behind_a_pooler(pooled_url: str, tmp_path: Path) -> None:
    """Registering, sending, and the ledger."""
    with open_stage(tmp_path, pooled_url) as stage:
        stage.add_phone("test@4d.com")
        stage.add_phone("user1@example.com")
        assert asyncio.run(_send(stage))
        assert asyncio.run(_send(stage))
