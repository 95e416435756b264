"""PostgreSQL beside SQLite, in turn: what is accepted, what is sent to the end, and who pays.

Run as ``python -m bench.shared_database lookups JOB``, it measures the look-ups of one registry.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from handbell.delivery.queue.session_pages import Shard, read_page
from handbell.registry.registration import Registration
from handbell.storage.database import Database
from handbell.system import System

from . import seed, server
from .figures import percentile
from .job import Job
from .postgresql import PostgresServer, new_folder
from .programs import output

SIZES: Final = (50_000, 5_000_000)
SAMPLES: Final = 500
PAGE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a server on one database took in, and the CPU of the database's processes a send."""

    database: str
    accepted: server.Accepted
    database_cpu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """How long one kind of question takes a registry of a size: median and p99, milliseconds."""

    name: str
    sessions: int
    p50: float
    p99: float


@contextmanager
def running(*settings: str) -> Iterator[PostgresServer]:
    """Give a PostgreSQL that keeps what it has committed, as installations have it."""
    postgresql = PostgresServer(new_folder(), *settings, is_durable=True)
    try:
        postgresql.start()
        yield postgresql
    finally:
        with suppress(OSError):
            postgresql.stop()
        shutil.rmtree(postgresql.folder, ignore_errors=True)


def prepared(postgresql: PostgresServer, job: Job, name: str) -> Job:
    """Make a database with the job's sessions, and return the job over it."""
    postgresql.execute(f"CREATE DATABASE {name}")
    job = replace(job, database=postgresql.url(name))
    Database.open(job.database, migrate=True).close()
    seed.make_home(job)
    postgresql.execute("VACUUM ANALYZE", database=name)
    return job


def accepting(postgresql: PostgresServer | None, job: Job) -> list[Taken]:
    """Return what a server over the job's database accepts while nobody sends it."""
    name = "SQLite" if postgresql is None else "PostgreSQL"
    found = []
    with server.Server(job, works=False) as running_server:
        for what, part, count in (
            ("single calls", "calls", server.CALLS),
            ("one stream of lines", "stream", server.LINES),
        ):
            before = postgresql.cpu_seconds() if postgresql is not None else 0.0
            accepted = running_server.measure(what, part, count)
            after = postgresql.cpu_seconds() if postgresql is not None else 0.0
            # A tenth more is sent, to warm up.
            cost = 1e6 * (after - before) / (1.1 * count)
            found.append(Taken(database=name, accepted=accepted, database_cpu=cost))
    return found


# -- look-ups by size ----------------------------------------------------------------------------


def lookups(job: Job) -> list[Lookup]:
    """Return how long look-up, registration, a page and ``why`` take, in a process of their own."""
    told = output([sys.executable, "-m", "bench.shared_database", "lookups", job.text()])
    return [Lookup(**one) for one in json.loads(told.splitlines()[-1])]


def _measure(job: Job) -> list[Lookup]:
    system = System(seed.settings(job))
    app = system.apps.list()[0]
    numbers = [1 + (one * 7919) % job.count for one in range(SAMPLES)]

    def find(number: int) -> object:
        return system.registry.recipient_sessions(app, [seed.MAIL.format(number)])

    def register(number: int) -> object:
        registration = Registration.read(
            seed.MAIL.format(number), f"{number:064x}", status="active", at=int(time.time() * 1000)
        )
        return system.registry.admit(app, registration)

    def page(number: int) -> object:
        shard = Shard(
            id=0,
            notification=0,
            app_row=app.row or 0,
            source=None,
            urgency=5,
            position=min(number, job.count - PAGE),
            last=job.count,
            is_resumed=False,
        )
        with system.database.read() as connection:
            return read_page(connection, shard, PAGE)

    def explain(number: int) -> object:
        return system.why(app, seed.MAIL.format(number))

    kinds: dict[str, Callable[[int], object]] = {
        "look-up of a person": find,
        f"page of {PAGE} sessions": page,
        "why": explain,
        "registration": register,
    }
    return [_timed(name, job.count, ask, numbers) for name, ask in kinds.items()]


def _timed(name: str, sessions: int, ask: Callable[[int], object], numbers: list[int]) -> Lookup:
    for number in numbers[: SAMPLES // 10]:
        ask(number + 1)
    taken = []
    for number in numbers:
        began = time.perf_counter()
        ask(number)
        taken.append(1000 * (time.perf_counter() - began))
    return Lookup(
        name=name, sessions=sessions, p50=percentile(taken, 0.5), p99=percentile(taken, 0.99)
    )


if __name__ == "__main__":
    found: list[dict[str, Any]] = [asdict(one) for one in _measure(Job.read(sys.argv[-1]))]
    print(json.dumps(found))
