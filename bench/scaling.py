"""How a fleet grows: one broadcast by one, two, four and eight workers, on JetStream.

The sink answers after 60 ms and takes 100 streams, and each worker has one connection, so that a
worker is bound by waiting and not by this machine's cores. Beside that one worker against the sink
that answers at once, with JetStream and embedded.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sqlalchemy import text

from handbell.creation.notification import Notification
from handbell.creation.recipients import EVERYBODY
from handbell.settings import PREFIX, Settings
from handbell.system import System

from .job import Job, Result
from .nats import NatsServer
from .postgresql import PostgresServer
from .programs import ROOT
from .shared_database import prepared

WORKERS: Final = (1, 2, 4, 8)
SESSIONS_EACH: Final = 40_000
SESSIONS_AT_ONCE: Final = 200_000
STREAMS: Final = 100
_LOOK_SECONDS: Final = 0.1
_READY_SECONDS: Final = 60.0
_FINISH_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What so many workers came to: seconds for a broadcast, and CPU seconds of each part."""

    name: str
    workers: int
    pushes: int
    seconds: float
    worker_cpu: float
    database_cpu: float
    broker_cpu: float

    @property
    def rate(self) -> float:
        """Pushes a second, all workers together."""
        return self.pushes / self.seconds

    @property
    def cpu(self) -> float:
        """CPU of all parts for one push, in microseconds."""
        return 1e6 * (self.worker_cpu + self.database_cpu + self.broker_cpu) / self.pushes


def embedded(result: Result) -> Fleet:
    """Return the figures of the engine within one process, for comparison."""
    return Fleet(
        name="SQLite, embedded",
        workers=1,
        pushes=result.accepted,
        seconds=result.seconds,
        worker_cpu=result.cpu_seconds,
        database_cpu=0.0,
        broker_cpu=0.0,
    )


def measure(
    postgresql: PostgresServer, broker: NatsServer | None, job: Job, *, name: str, workers: int
) -> Fleet:
    """Return what workers of their own take for a broadcast to the job's sessions.

    Without a ``broker`` the rows of the database are the queue.
    """
    settings = _settings(postgresql, broker, job, name=name)
    with ExitStack() as stack:
        processes = [stack.enter_context(_worker(settings)) for _ in range(workers)]
        system = System(Settings.load(**settings))
        stack.callback(system.database.close)
        _await(lambda: system.known_workers.live_workers() >= workers, _READY_SECONDS)
        before = _costs(processes, postgresql, broker)
        began = time.monotonic()
        asyncio.run(_broadcast(system))
        _await(lambda: not _is_left(system), _FINISH_SECONDS)
        seconds = time.monotonic() - began
        after = _costs(processes, postgresql, broker)
    mine, database, nats = (late - early for early, late in zip(before, after, strict=True))
    return Fleet(
        name=name,
        workers=workers,
        pushes=job.count,
        seconds=seconds,
        worker_cpu=mine,
        database_cpu=database,
        broker_cpu=nats,
    )


def prepare(postgresql: PostgresServer, job: Job, name: str) -> Job:
    """Return the job over a database of its own with its sessions."""
    return prepared(postgresql, replace(job, home=f"{job.home}-{name}"), name)


def _settings(
    postgresql: PostgresServer, broker: NatsServer | None, job: Job, *, name: str
) -> dict[str, str]:
    return {
        **({} if broker is None else {"engine": broker.url(name)}),
        "home": job.home,
        "database_url": postgresql.url(name),
        "apns_production_url": job.url,
        "apns_ca_file": job.ca_file,
        "connections": "1",
        "in_flight": str(job.in_flight),
    }


@contextmanager
def _worker(settings: dict[str, str]) -> "Iterator[subprocess.Popen[bytes]]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    named = {f"{PREFIX}{name.upper()}": value for name, value in settings.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "handbell", "worker"],
        cwd=ROOT,
        env=kept | named,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_READY_SECONDS)


async def _broadcast(system: System) -> None:
    app = system.apps.list()[0]
    await system.engine.accept(app, Notification(title="This is title", body="To all"), EVERYBODY)
    await system.close_gateways()


def _is_left(system: System) -> bool:
    with system.database.read() as connection:
        return bool(
            connection.scalar(
                text(
                    "SELECT EXISTS (SELECT 1 FROM shards) OR EXISTS"
                    " (SELECT 1 FROM deliveries WHERE state IN ('queued', 'sending', 'held'))"
                )
            )
        )


def _costs(
    processes: Sequence["subprocess.Popen[bytes]"],
    postgresql: PostgresServer,
    broker: NatsServer | None,
) -> tuple[float, float, float]:
    workers = sum(_cpu(process.pid) for process in processes)
    return workers, postgresql.cpu_seconds(), 0.0 if broker is None else _cpu(broker.pid)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _await(is_so: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError("the fleet did not come to an end")
        time.sleep(_LOOK_SECONDS)
