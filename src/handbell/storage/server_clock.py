"""The time that all users of a database agree on, whatever their own clocks say."""

import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from sqlalchemy import Connection, extract, func, select

from handbell.clocks import MachineClock
from handbell.errors import StorageError

from .database import Database

MEASURE_SECONDS: Final = 60.0
"""How long a comparison with the server's clock holds; clocks drift by a millisecond meanwhile."""

_SAMPLES: Final = 3


def shared_seconds(connection: Connection, machine: MachineClock) -> float:
    """Return seconds by the clock that all users of a database share.

    A database server's is its own, in UNIX seconds; SQLite's is that of the machine, since boot.
    """
    seconds = server_seconds(connection)
    return machine.seconds() if seconds is None else seconds


def server_seconds(connection: Connection) -> float | None:
    """Return UNIX seconds by the clock of the database server, None where there is no server."""
    if connection.dialect.name == "sqlite":
        return None
    return float(connection.execute(_SERVER_TIME).scalar_one())


_SERVER_TIME: Final = select(extract("epoch", func.clock_timestamp()))


class _Sample(NamedTuple):
    """Between these two the server's clock is ahead of the machine's, in seconds."""

    least: float
    most: float


class ServerClock:
    """UNIX seconds by the clock of a database server; call it as ``time.time``.

    It is compared with the clock of the ``machine``, which nobody sets, when it is first used and
    then each minute, in a thread of its own; in between no question is asked. It is as exact as
    half of the fastest round trip. Where the server cannot be asked, the last comparison holds;
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
        # What lies within the error of the comparison is no news: time should not jitter.
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
