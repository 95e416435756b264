"""The work queue in the rows of the database: SQLite, or PostgreSQL for a few machines."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Final

from handbell._thread_pool import ThreadPool
from handbell.errors import StorageError

from .sql_queue import Queue
from .work_queue import Settled, Taken, Wanted
from .workers import Workers

_THREADS: Final = 4
"""One each for what may be asked at the same time, so that a beat never waits for a page."""

_log = logging.getLogger(__name__)


class SqlWorkQueue:
    """A :class:`~handbell.delivery.queue.work_queue.WorkQueue` of leased rows.

    A worker's lease is its beat in the table ``workers``; what was written with an outcome, or
    stored with a send, needs no other word.
    """

    def __init__(self, queue: Queue, known_workers: Workers) -> None:
        self._queue = queue
        self._workers = known_workers
        self._threads = ThreadPool(_THREADS, "handbell-queue")

    def on_work(self, wake: Callable[[], None]) -> None:
        """Do nothing: the signals of the database wake workers."""

    async def join(self, worker: int) -> None:
        """Enter the worker; it lives no longer than the running event loop."""
        await self._threads.run(self._workers.enlist, worker, asyncio.get_running_loop())

    async def put(self, notifications: Collection[int]) -> None:
        """Do nothing: the rows are there, and their transaction has signalled it."""

    async def take(self, worker: int, wanted: Wanted) -> Taken:
        """Take what is due by one visit of a thread."""
        return await self._threads.run(self._take, worker, wanted)

    async def extend(self, worker: int) -> bool:
        """Beat."""
        return await self._threads.run(self._workers.beat, worker)

    async def done(self, worker: int, settled: Iterable[Settled]) -> None:
        """Do nothing: the transaction of the outcomes has released their rows."""

    async def put_back(self, worker: int) -> None:
        """Release the worker's rows, and strike it off."""
        await self._threads.run(self._workers.retire, worker)

    async def sweep(self) -> None:
        """Release the rows of dead workers."""
        await self._threads.run(self._workers.reclaim)

    async def close(self) -> None:
        """Do nothing: the database is closed by whoever opened it."""

    def _take(self, worker: int, wanted: Wanted) -> Taken:
        limit, least, apart_from, full = wanted
        level, is_shard_due = self._queue.look(above=least, apart_from=apart_from, full=full)
        is_due = bool(level) and level >= least
        due = self._queue.claim_due(worker, level, limit, full) if is_due else []
        if not is_shard_due:
            return Taken(due, [])
        try:
            return Taken(due, self._queue.claim_shards(worker, least, apart_from, full))
        except StorageError as error:
            if not due:
                raise
            # What was taken must not be forgotten; the shards are there at the next turn.
            _log.warning("Database unavailable: %s", error)
            return Taken(due, [])
