"""The queue between accepting and sending, as a worker sees it.

The rows of the database are the truth on every engine. The queue decides who works on what is due,
for how long, and who gets it when a worker dies.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple, Protocol

from .due import Due
from .session_pages import Shard


class Wanted(NamedTuple):
    """What a worker has room for.

    ``limit`` is how many deliveries, of the urgency ``least`` or above; of shards those that are
    more urgent than ``least``, and not of the notifications ``apart_from``. Nothing of the apps
    ``full``.
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
    """Gives what is due to one worker at a time. Every method may raise StorageError.

    What was taken stays with its worker as long as that calls :meth:`extend` within the lease.
    After that others may take it, deliveries as repeats.
    """

    async def join(self, worker: int) -> None:
        """Enter a worker, before it takes anything; once more changes nothing."""

    async def put(self, notifications: Collection[int]) -> None:
        """Let workers take what is due of notifications that are stored, by their rows.

        Raises nothing: what is stored and could not be put is found by :meth:`sweep`.
        """

    async def take(self, worker: int, wanted: Wanted) -> Taken:
        """Take the most urgent work that is due, the longest due first; at once, and maybe none."""

    async def extend(self, worker: int) -> bool:
        """Keep all that the worker has taken. False where it was given to others, all of it."""

    async def done(self, worker: int, settled: Iterable[Settled]) -> None:
        """Let go of deliveries once their outcomes are written; what waits is put back until then.

        Shards follow the rows that say how far they are.
        """

    async def put_back(self, worker: int) -> None:
        """Let others take at once what the worker still has; it takes no more under this id."""

    async def sweep(self) -> None:
        """Let others take what no worker has any more, or nobody was told of."""
