"""Who works: the workers of all processes, and what comes back from those that died.

Work is taken under the name of a worker, whose heart beats in the table ``workers``. When it stops,
what the worker had taken comes back: a delivery that may have been sent already goes out again
under the same apns-id and with a collapse id, so that the phone shows it once.
"""

import contextlib
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from time import time
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, insert, select, update

from handbell.database import Database
from handbell.tables import deliveries, shards, workers

LEASE_SECONDS: Final = 15.0
"""A worker whose heart has not beaten for so long is dead, and what it had taken comes back."""

_WORKER_ID_BITS: Final = 53
_NAMESPACE: Final = Path("/proc/self/ns/pid")


class Roster:
    """The workers on one database. Every method is one transaction; ``now`` gives UNIX seconds."""

    def __init__(self, database: Database, *, now: Callable[[], float] = time) -> None:
        self._database = database
        self._now = now
        self._host = _place()

    def enlist(self) -> int:
        """Enter a worker of this process and return its id."""
        # Not the next number: one that was taken for dead must not find another under its id.
        values = {
            "id": secrets.randbits(_WORKER_ID_BITS),
            "host": self._host,
            "pid": os.getpid(),
            "beat_at": self._milliseconds(),
        }
        statement = insert(workers).values(values).returning(workers.c.id)
        with self._database.write() as connection:
            return int(connection.execute(statement).scalar_one())

    def beat(self, worker: int) -> bool:
        """Say that the worker lives. False when it was taken for dead and its work given back."""
        statement = update(workers).where(workers.c.id == worker)
        with self._database.write() as connection:
            return bool(connection.execute(statement.values(beat_at=self._milliseconds())).rowcount)

    def retire(self, worker: int) -> None:
        """Give back what the worker still holds, and strike it off."""
        with self._database.write() as connection:
            self._give_back(connection, [worker])

    def reclaim(self) -> int:
        """Give back what dead workers held and return how many workers that were."""
        with self._database.read() as connection:
            if not self._dead(connection):
                return 0
        with self._database.write() as connection:
            dead = self._dead(connection)
            self._give_back(connection, dead)
        return len(dead)

    def _dead(self, connection: Connection) -> list[int]:
        """Return the workers that are dead, and those that hold work and are not even listed."""
        listed = connection.execute(select(workers)).all()
        known = select(workers.c.id)
        strays = select(deliveries.c.worker_id).where(
            deliveries.c.worker_id.is_not(None), deliveries.c.worker_id.not_in(known)
        )
        more = select(shards.c.worker_id).where(
            shards.c.worker_id.is_not(None), shards.c.worker_id.not_in(known)
        )
        dead = {row.id for row in listed if self._is_dead(row)}
        return [*dead, *connection.scalars(strays.union(more))]

    def live_workers(self, *, elsewhere: bool = False) -> int:
        """Return how many workers take work now, of all processes or of all but this one."""
        with self._database.read() as connection:
            rows = connection.execute(select(workers)).all()
        return sum(
            not self._is_dead(row) and not (elsewhere and self._is_mine(row)) for row in rows
        )

    def _is_mine(self, row: Row[Any]) -> bool:
        return bool(row.host == self._host and row.pid == os.getpid())

    def _is_dead(self, row: Row[Any]) -> bool:
        if row.beat_at < self._milliseconds() - LEASE_SECONDS * 1000:
            return True
        return row.host == self._host and not _is_running(row.pid)

    def _give_back(self, connection: Connection, dead: Sequence[int]) -> None:
        connection.execute(
            update(deliveries)
            .where(deliveries.c.worker_id.in_(dead))
            .values(state="queued", worker_id=None, is_repeat=True, due_at=self._milliseconds())
        )
        connection.execute(
            update(shards)
            .where(shards.c.worker_id.in_(dead))
            .values(worker_id=None, is_resumed=True)
        )
        connection.execute(delete(workers).where(workers.c.id.in_(dead)))

    def _milliseconds(self) -> int:
        return int(self._now() * 1000)


def _place() -> str:
    """Return where numbers of processes mean the same: this host, or the container on it."""
    host = socket.gethostname()
    with contextlib.suppress(OSError):
        # Containers may share the host's name and have processes of their own.
        return f"{host} {_NAMESPACE.readlink()}"
    return host


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
