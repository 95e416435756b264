"""The queue between accepting and sending, as a worker sees it.

The rows of the database are the truth on every engine. The queue decides which worker gets due
work, for how long, and who gets it when a worker dies.
"""

from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple, Protocol

from .due import Due
from .session_pages import Shard


class Wanted(NamedTuple):
    """What a worker has capacity for.

    ``limit`` is the number of deliveries, of the urgency ``least`` or above; shards must be
    more urgent than ``least``, and not of the notifications ``apart_from``. Work of the apps
    ``full`` is left out.
    """

    limit: int
    least: int = 0
    apart_from: Collection[int] = ()
    full: Collection[str] = ()


class Taken(NamedTuple):
    """What a worker took: deliveries of one urgency, and at most one shard per notification."""

    due: list[Due]
    shards: list[Shard]


class Settled(NamedTuple):
    """Deliveries of a notification whose outcome is written.

    ``due_at`` is when they are due again, in UNIX milliseconds; None where they are over.
    """

    notification: int
    numbers: Collection[int]
    due_at: int | None = None


class WorkQueue(Protocol):
    """Leases due work to one worker at a time. Every method may raise StorageError.

    Work stays with its worker as long as that calls :meth:`extend` within the lease.
    After that others may take it, deliveries as repeats.
    """

    def on_work(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` when there is new work, as far as the queue hears of it."""

    async def join(self, worker: int) -> None:
        """Enter a worker, before it takes anything; once more changes nothing."""

    async def put(self, notifications: Collection[int]) -> None:
        """Let workers take what is due of notifications that are stored, by their rows.

        Raises nothing: what is stored and could not be put is found by :meth:`sweep`.
        """

    async def take(self, worker: int, wanted: Wanted) -> Taken:
        """Take the most urgent work that is due, the longest due first; at once, and maybe none."""

    async def extend(self, worker: int) -> bool:
        """Extend the leases of all work of a worker. False if others were given all of it."""

    async def done(self, worker: int, settled: Iterable[Settled]) -> None:
        """Release deliveries once their outcomes are written; held ones return to the queue.

        Shards follow the rows that say how far they are.
        """

    async def put_back(self, worker: int) -> None:
        """Release at once what the worker still has; it takes no more under this id."""

    async def sweep(self) -> None:
        """Release work of dead workers, and work that was stored but never put."""

    async def close(self) -> None:
        """Close what the queue has open in this event loop. Raises nothing."""
