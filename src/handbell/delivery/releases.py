"""Which sessions were taken back while deliveries to them were in hand.

A delivery is read from the database and goes on the wire a moment later. What happened to its
session in between is found here: nothing of a former owner's may follow a logout.
"""

from collections.abc import Iterable
from typing import Final

_NEVER: Final = 0


class Releases:
    """Remembers released sessions for as long as something that was read before is in hand.

    A reading begins before the database is read and ends when all of it is on the wire, or has a
    row that says why not. It is a number, held by as many as :meth:`begin` and :meth:`join` were
    called for. Belongs to one event loop.
    """

    def __init__(self) -> None:
        self._last = _NEVER
        self._released: dict[int, int] = {}
        self._holders: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._released)

    def begin(self) -> int:
        """Begin a reading: what is released from now on counts for it."""
        return self.join(self._last)

    def join(self, reading: int) -> int:
        """Hold a reading once more, for another part of it."""
        self._holders[reading] = self._holders.get(reading, 0) + 1
        return reading

    def end(self, reading: int) -> None:
        """Let go of a reading; sessions that no reading could miss any more are forgotten."""
        self._holders[reading] -= 1
        if self._holders[reading]:
            return
        del self._holders[reading]
        if not self._released:
            return
        oldest = min(self._holders, default=self._last)
        self._released = {one: at for one, at in self._released.items() if at > oldest}

    def add(self, session_ids: Iterable[int]) -> None:
        """Note that sessions were closed or given to others: older readings are wrong about them.

        Call it after the change was committed.
        """
        if not self._holders:
            return
        self._last += 1
        self._released.update(dict.fromkeys(session_ids, self._last))

    def concern(self, reading: int) -> bool:
        """Return whether any session was released since a reading began."""
        return self._last > reading

    def is_stale(self, reading: int, number: int) -> bool:
        """Return whether the session of a delivery was released since a reading began."""
        return self._released.get(number, _NEVER) > reading
