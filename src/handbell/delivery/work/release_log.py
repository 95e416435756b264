"""The sessions released while deliveries to them were in flight.

A delivery is read from the database and sent a moment later. This log tells whether its session was
closed or given to another user in between: nothing may reach a former owner after a logout.
"""

from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

_NEVER: Final = 0


class SessionSnapshot:
    """The position in the log at which sessions were read.

    Held from construction until :meth:`end`, or the end of a ``with``; the log keeps what a held
    snapshot may ask about. :meth:`share` returns another one at the same position, held on its own.
    :meth:`ReleaseLog.begin` returns the first.
    """

    __slots__ = ("_at", "_release_log", "is_held")

    def __init__(self, release_log: "ReleaseLog", at: int) -> None:
        self.is_held = True
        self._release_log = release_log
        self._at = at
        release_log.hold(at)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def share(self) -> "SessionSnapshot":
        """Return a snapshot at the same position, held on its own."""
        return SessionSnapshot(self._release_log, self._at)

    def end(self) -> None:
        """End the hold. Idempotent."""
        if self.is_held:
            self.is_held = False
            self._release_log.let_go(self._at)

    @property
    def is_concerned(self) -> bool:
        """Whether any session was released since, or the worker lost its leases."""
        return self._release_log.last > self._at

    @property
    def is_lost(self) -> bool:
        """Whether the worker lost its leases since: other workers own what was read."""
        return self._release_log.lost_at > self._at

    def is_stale(self, number: int) -> bool:
        """Return whether this session was released since."""
        return self._release_log.released_at(number) > self._at


class ReleaseLog:
    """The released sessions, each kept while a snapshot taken before its release is held.

    Take a snapshot before reading the database, and end it once every delivery read has an outcome
    or a row with a reason. Belongs to one event loop.
    """

    def __init__(self) -> None:
        self.last = _NEVER
        self.lost_at = _NEVER
        self._released: dict[int, int] = {}
        self._held: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._released)

    def begin(self) -> SessionSnapshot:
        """Return a snapshot: sessions released from now on are stale for it."""
        return SessionSnapshot(self, self.last)

    def add(self, session_ids: Iterable[int]) -> None:
        """Record sessions that were closed or given to others; older snapshots are stale for them.

        Call it after the change was committed.
        """
        if not self._held:
            return
        self.last += 1
        self._released.update(dict.fromkeys(session_ids, self.last))

    def lose(self) -> None:
        """Record that the worker lost its leases: all older snapshots are lost."""
        self.last += 1
        self.lost_at = self.last

    def released_at(self, number: int) -> int:
        """Return the position of the last release of a session, 0 for none that is kept."""
        return self._released.get(number, _NEVER)

    def hold(self, at: int) -> None:
        """Keep releases after a position; called by snapshots only."""
        self._held[at] = self._held.get(at, 0) + 1

    def let_go(self, at: int) -> None:
        """Forget releases no held snapshot can ask about; called by snapshots only."""
        self._held[at] -= 1
        if self._held[at]:
            return
        del self._held[at]
        if not self._released:
            return
        oldest = min(self._held, default=self.last)
        self._released = {one: since for one, since in self._released.items() if since > oldest}
