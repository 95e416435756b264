"""Which sessions were taken back while deliveries to them were in hand.

A delivery is read from the database and goes on the wire a moment later. What happened to its
session in between is found here: nothing of a former owner's may follow a logout.
"""

from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

_NEVER: Final = 0


class Reading:
    """An instant at which sessions were read, held until all of what was read is out of hand.

    It is held once, from its making on: until :meth:`end`, or the end of a ``with``. For another
    part of the same reading :meth:`share` gives another one. :meth:`Releases.begin` makes the
    first.
    """

    __slots__ = ("_at", "_releases", "is_held")

    def __init__(self, releases: "Releases", at: int) -> None:
        self.is_held = True
        self._releases = releases
        self._at = at
        releases.hold(at)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def share(self) -> "Reading":
        """Return the same reading, held once more."""
        return Reading(self._releases, self._at)

    def end(self) -> None:
        """Let go of it; once more changes nothing."""
        if self.is_held:
            self.is_held = False
            self._releases.let_go(self._at)

    @property
    def is_concerned(self) -> bool:
        """Whether any session was released since, or all that was read was lost."""
        return self._releases.last > self._at

    @property
    def is_lost(self) -> bool:
        """Whether others have what was read: the worker was taken for dead since."""
        return self._releases.lost_at > self._at

    def is_stale(self, number: int) -> bool:
        """Return whether the session of a delivery was released since."""
        return self._releases.released_at(number) > self._at


class Releases:
    """Remembers released sessions for as long as something that was read before is in hand.

    A reading begins before the database is read and ends when all of it has been answered, or has
    a row that says why not. Belongs to one event loop.
    """

    def __init__(self) -> None:
        self.last = _NEVER
        self.lost_at = _NEVER
        self._released: dict[int, int] = {}
        self._held: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._released)

    def begin(self) -> Reading:
        """Begin a reading: what is released from now on counts for it."""
        return Reading(self, self.last)

    def add(self, session_ids: Iterable[int]) -> None:
        """Note that sessions were closed or given to others: older readings are wrong about them.

        Call it after the change was committed.
        """
        if not self._held:
            return
        self.last += 1
        self._released.update(dict.fromkeys(session_ids, self.last))

    def lose(self) -> None:
        """Note that the worker was taken for dead: others have all that was read before."""
        self.last += 1
        self.lost_at = self.last

    def released_at(self, number: int) -> int:
        """Return at which release a session was last named, 0 for none that still counts."""
        return self._released.get(number, _NEVER)

    def hold(self, at: int) -> None:
        """Keep what is released after an instant; for readings alone."""
        self._held[at] = self._held.get(at, 0) + 1

    def let_go(self, at: int) -> None:
        """Forget the sessions that no reading could miss any more; for readings alone."""
        self._held[at] -= 1
        if self._held[at]:
            return
        del self._held[at]
        if not self._released:
            return
        oldest = min(self._held, default=self.last)
        self._released = {one: since for one, since in self._released.items() if since > oldest}
