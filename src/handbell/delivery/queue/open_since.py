"""The oldest notification with open deliveries, so that few partitions are searched."""

import time
from collections.abc import Callable
from typing import Final

from handbell.storage.database import Database
from handbell.storage.partitions import oldest_open

KNOWN_SECONDS: Final = 60.0
"""How long the answer is cached."""


class OpenSince:
    """Finds the first notification that may have an open delivery. ``clock`` is monotonic.

    Nothing before it can open again, so a cached answer is correct too.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._known: int | None = None
        self._until = 0.0

    def row(self) -> int | None:
        """Return its row; None if the database has no partitions."""
        if self._database.path is None and self._clock() >= self._until:
            with self._database.read() as connection:
                self._known = oldest_open(connection)
            self._until = self._clock() + KNOWN_SECONDS
        return self._known
