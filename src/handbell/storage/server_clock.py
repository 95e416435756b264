"""A clock shared by all users of a database, independent of their own clocks."""

import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from sqlalchemy import Connection, extract, func, select

from handbell.clocks import MachineClock
from handbell.errors import StorageError

from .database import Database
from .dialects import is_sqlite

MEASURE_SECONDS: Final = 60.0
"""How long a comparison with the server's clock is valid; clocks drift a millisecond in it."""

_SAMPLES: Final = 3


def shared_seconds(connection: Connection, machine: MachineClock) -> float:
    """Return seconds by the shared clock of all users of a database.

    For a database server this is its clock, in UNIX seconds; for SQLite the machine's, since boot.
    """
    seconds = server_seconds(connection)
    return machine.seconds() if seconds is None else seconds


def server_seconds(connection: Connection) -> float | None:
    """Return UNIX seconds by the clock of the database server, None where there is no server."""
    if is_sqlite(connection):
        return None
    return float(connection.execute(_SERVER_TIME).scalar_one())


_SERVER_TIME: Final = select(extract("epoch", func.clock_timestamp()))


class _Sample(NamedTuple):
    """Bounds of the server's clock minus the machine's, in seconds."""

    least: float
    most: float


class ServerClock:
    """UNIX seconds by the clock of a database server; called like ``time.time``.

    It is compared with the monotonic clock of the ``machine`` at first use and then each minute, in
    its own thread; in between the server is not queried. The error is at most half of the fastest
    round trip. If the server is unavailable, the last comparison is used; before the first one
    before the first one StorageError is raised.
    """

    def __init__(self, database: Callable[[], Database], machine: MachineClock) -> None:
        self._database = database
        self._machine = machine
        self._ahead: float | None = None
        self._asked_at = 0.0

    def __call__(self) -> float:
        """Return the time."""
        if self._ahead is None:
            self.measure()
        elif time.monotonic() - self._asked_at > MEASURE_SECONDS:
            self._asked_at = time.monotonic()
            threading.Thread(target=self._measure_again, name="handbell-clock", daemon=True).start()
        return self._machine.seconds() + (self._ahead or 0.0)

    def measure(self) -> None:
        """Compare the clocks. Raises StorageError."""
        self._asked_at = time.monotonic()
        best = min(
            (self._sample() for _ in range(_SAMPLES)), key=lambda sample: sample.most - sample.least
        )
        ahead = (best.least + best.most) / 2 if self._ahead is None else self._ahead
        # Within the error of the comparison nothing is changed, so that time does not jitter.
        self._ahead = min(max(ahead, best.least), best.most)

    def _measure_again(self) -> None:
        try:
            self.measure()
        except StorageError:
            return

    def _sample(self) -> _Sample:
        with self._database().read() as connection:
            before = self._machine.seconds()
            server = shared_seconds(connection, self._machine)
            return _Sample(server - self._machine.seconds(), server - before)
