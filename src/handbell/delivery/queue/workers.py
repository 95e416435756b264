"""The workers of all processes, and the release of what dead ones held.

Work is leased under the id of a worker, whose heartbeat is in the table ``workers``. When it
stops, its leases are released: a delivery that may have been sent already is sent
again under the same apns-id and with a collapse id, so that the phone shows it once. What loses one
worker after the other is the cause, as like as not: it waits longer each time, and is a dead letter
in the end.
"""

import contextlib
import os
import secrets
import socket
from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from time import time
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, Connection, Row, delete, insert, null, select, true, update

from handbell.clocks import MachineClock
from handbell.delivery.policy.failures import INTERRUPTED, loss_delay
from handbell.storage.database import Database
from handbell.storage.lists import rows_of
from handbell.storage.server_clock import server_seconds
from handbell.storage.signals import Kind
from handbell.storage.statements import Statement
from handbell.storage.tables import deliveries, shards, workers

LEASE_SECONDS: Final = 15.0
"""The age of a heartbeat at which a worker counts as dead and its leases are released."""

_WORKER_ID_BITS: Final = 53
_NAMESPACE: Final = Path("/proc/self/ns/pid")

# The event loop of each worker of this process. A worker whose loop is closed never beats again,
# though its process is alive.
_loops: Final[dict[int, AbstractEventLoop | None]] = {}


class _Instant(NamedTuple):
    """A boot of a machine, and milliseconds since then."""

    boot: str
    at: int


class Workers:
    """The workers on one database. Every method is one transaction.

    Leases go by ``machine``, or by the clock of the database server where there is one. ``now``
    gives UNIX seconds: released work is due at once.
    """

    def __init__(
        self,
        database: Database,
        *,
        now: Callable[[], float] = time,
        machine: MachineClock | None = None,
    ) -> None:
        self.machine = machine or MachineClock.here()
        self._database = database
        self._now = now
        self._host = _place()
        self._rng = Random()  # noqa: S311 - jitter

    def enlist(self, worker: int | None = None, loop: AbstractEventLoop | None = None) -> int:
        """Enter a worker of this process and return its id; a known one is unchanged.

        It is alive no longer than the ``loop`` in which it works.
        """
        worker = new_worker() if worker is None else worker
        for gone in [one for one, its in list(_loops.items()) if _is_over(its)]:
            _loops.pop(gone, None)
        _loops[worker] = loop
        with self._database.write() as connection:
            there = connection.scalar(select(workers.c.id).where(workers.c.id == worker))
            if there is None:
                boot, at = self._instant(connection)
                values = {"id": worker, "host": self._host, "pid": os.getpid()}
                connection.execute(insert(workers).values(**values, boot=boot, beat=at))
        return worker

    def beat(self, worker: int) -> bool:
        """Renew a worker's heartbeat. False if it counted as dead and its work was released."""
        statement = update(workers).where(workers.c.id == worker)
        with self._database.write() as connection:
            boot, at = self._instant(connection)
            return bool(connection.execute(statement.values(boot=boot, beat=at)).rowcount)

    def retire(self, worker: int) -> None:
        """Release what the worker still holds, and remove it."""
        _loops.pop(worker, None)
        with self._database.write() as connection:
            self._give_back(connection, [worker])
            self._tell()

    def reclaim(self) -> int:
        """Release what dead workers held and return the number of those workers."""
        with self._database.read() as connection:
            if not self._dead(connection):
                return 0
        with self._database.write() as connection:
            dead = self._dead(connection)
            self._count_losses(connection, dead)
            self._give_back(connection, dead)
            self._tell()
        return len(dead)

    def _tell(self) -> None:
        self._database.signal(Kind.WORK)
        # Its open revocations were removed with it.
        self._database.signal(Kind.RELEASED)

    def _dead(self, connection: Connection) -> list[int]:
        """Return the dead workers, and unlisted ones that hold work."""
        dead = {row.id for row, is_dead in self._judged(connection) if is_dead}
        known = select(workers.c.id)
        strays = select(deliveries.c.worker_id).where(
            deliveries.c.worker_id.is_not(None), deliveries.c.worker_id.not_in(known)
        )
        more = select(shards.c.worker_id).where(
            shards.c.worker_id.is_not(None), shards.c.worker_id.not_in(known)
        )
        return [*dead, *connection.scalars(strays.union(more))]

    def lives(self, connection: Connection, worker: int) -> bool:
        """Return whether a worker is listed and not dead."""
        return any(row.id == worker and not is_dead for row, is_dead in self._judged(connection))

    def has_dead(self, connection: Connection) -> bool:
        """Return whether a worker that is listed is dead."""
        return any(is_dead for _, is_dead in self._judged(connection))

    def live_workers(self, *, elsewhere: bool = False) -> int:
        """Return the number of live workers, of all processes or of all but this one."""
        with self._database.read() as connection:
            return sum(
                not is_dead and not (elsewhere and self._is_mine(row))
                for row, is_dead in self._judged(connection)
            )

    def place_of(self, worker: int) -> tuple[int, int]:
        """Return the position of a worker among the live ones, from 0, and their number."""
        with self._database.read() as connection:
            living = sorted(row.id for row, is_dead in self._judged(connection) if not is_dead)
        return sum(one < worker for one in living), max(1, len(living))

    def _judged(self, connection: Connection) -> list[tuple[Row[Any], bool]]:
        """Return the rows of all workers, and whether each is dead."""
        rows = connection.execute(select(workers)).all()
        now = self._instant(connection) if rows else None
        return [(row, now is not None and self._is_dead(row, now)) for row in rows]

    def _is_mine(self, row: Row[Any]) -> bool:
        return bool(row.host == self._host and row.pid == os.getpid())

    def _is_dead(self, row: Row[Any], now: _Instant) -> bool:
        # A later instant was written before a boot that has no name of its own.
        if row.boot != now.boot or abs(now.at - row.beat) > LEASE_SECONDS * 1000:
            return True
        if self._is_mine(row):
            return row.id not in _loops or _is_over(_loops[row.id])
        return row.host == self._host and not _is_running(row.pid)

    def _instant(self, connection: Connection) -> _Instant:
        # A server's clock is the same for all machines, whose own clocks may differ.
        seconds = server_seconds(connection)
        if seconds is None:
            return _Instant(self.machine.boot, int(self.machine.seconds() * 1000))
        return _Instant("", int(seconds * 1000))

    def _give_back(self, connection: Connection, dead: Sequence[int]) -> None:
        connection.execute(
            update(deliveries)
            .where(deliveries.c.worker_id.in_(dead))
            .values(state="queued", worker_id=None, is_repeat=True, due_at=int(self._now() * 1000))
        )
        connection.execute(
            update(shards)
            .where(shards.c.worker_id.in_(dead))
            .values(worker_id=None, is_resumed=True)
        )
        connection.execute(delete(workers).where(workers.c.id.in_(dead)))

    def _count_losses(self, connection: Connection, dead: Sequence[int]) -> None:
        """Count the loss of a worker for all that it held; what lost several is released for later.

        What ends whoever takes it must not come back at once, nor together with all else.
        """
        for table in (deliveries, shards):
            mine = table.c.worker_id.in_(dead)
            connection.execute(update(table).where(mine).values(failures=table.c.failures + 1))
        kept = (deliveries.c.notification_id, deliveries.c.number, deliveries.c.failures)
        often = deliveries.c.worker_id.in_(dead) & (deliveries.c.failures > 1)
        found = connection.execute(select(*kept).where(often)).all()
        if found:
            held = [(row, number, self._due_after(losses)) for row, number, losses in found]
            _HOLD.run(connection, keys=held)
        often = shards.c.worker_id.in_(dead) & (shards.c.failures > 1)
        for row, losses in connection.execute(select(shards.c.id, shards.c.failures).where(often)):
            rest = update(shards).where(shards.c.id == row)
            values = {"due_at": self._due_after(losses), "reason": INTERRUPTED}
            connection.execute(rest.values(**values, worker_id=None, is_resumed=True))

    def _due_after(self, losses: int) -> int:
        return int((self._now() + loss_delay(losses, self._rng)) * 1000)


_KEYS: Final = rows_of("keys", notification=BigInteger, number=BigInteger, due=BigInteger)
_HOLD: Final = Statement(
    update(deliveries)
    .where(
        deliveries.c.notification_id == _KEYS.c.notification,
        deliveries.c.number == _KEYS.c.number,
    )
    .values(
        state="held",
        reason=INTERRUPTED,
        worker_id=null(),
        is_repeat=true(),
        due_at=_KEYS.c.due,
    )
)


def new_worker() -> int:
    """Return the id of a worker to enter.

    A random one: a worker that counted as dead must not find another one under its id.
    """
    return secrets.randbits(_WORKER_ID_BITS)


def _is_over(loop: AbstractEventLoop | None) -> bool:
    return loop is not None and loop.is_closed()


def _place() -> str:
    """Return the scope of process ids: this host, or the container on it."""
    host = socket.gethostname()
    with contextlib.suppress(OSError):
        # Containers may share the host's name but have their own process ids.
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
