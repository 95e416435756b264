"""From which notification on anything is open, so that few partitions are looked in."""

import time
from collections.abc import Callable
from typing import Final

from handbell.storage.database import Database
from handbell.storage.partitions import oldest_open

KNOWN_SECONDS: Final = 60.0
"""For how long the answer is not asked for again."""


class OpenSince:
    """Knows the first notification of which a delivery may be open. ``clock`` is monotonic.

    Nothing before it opens any more, so an answer that is a minute old is right as well.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._known: int | None = None
        self._until = 0.0

    def row(self) -> int | None:
        """Return its row; None where all are looked in, as the database has no partitions."""
        if self._database.path is None and self._clock() >= self._until:
            with self._database.read() as connection:
                self._known = oldest_open(connection)
            self._until = self._clock() + KNOWN_SECONDS
        return self._known
