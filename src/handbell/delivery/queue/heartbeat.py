"""The heartbeat of a worker, by which other processes know that it is alive."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from handbell._thread_pool import ThreadPool
from handbell.errors import QueueUnavailableError, StorageError
from handbell.storage.storage_retry import STORAGE_PAUSE

from .clock_jumps import ClockJumps
from .work_queue import WorkQueue
from .workers import LEASE_SECONDS, Workers, new_worker

BEAT_SECONDS: Final = 4.0

_log = logging.getLogger(__name__)


class Lease:
    """The right to send, until an instant by the machine's clock; initially expired.

    It ends before any process can consider the worker dead. So no push begins after an answer that
    relied on the worker's death.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._until = 0.0

    @property
    def left(self) -> float:
        """The remaining seconds; negative once it has expired."""
        return self._until - self._seconds()

    def holds(self) -> bool:
        """Return whether pushes may be begun now."""
        return self._seconds() < self._until

    def renew(self, since: float) -> None:
        """Extend it to :data:`LEASE_SECONDS` after an instant before the beat was written."""
        self._until = since + LEASE_SECONDS


class Heartbeat:
    """Keeps one worker's membership of the ``queue``, under the id ``worker``; 0 before it begins.

    ``on_loss`` is called if the worker was considered dead: others have its work.
    ``on_jump`` gets the jump of the wall clock in seconds. ``on_beat`` is called with the
    worker's id in a thread, at its entry and at each regular beat, ``on_place`` with its position
    among the living workers, from 0, and their number. Beats are ``seconds`` apart; each renews
    the ``lease``.
    """

    def __init__(
        self,
        queue: WorkQueue,
        known_workers: Workers,
        *,
        threads: ThreadPool,
        jumps: ClockJumps,
        on_loss: Callable[[], None],
        on_jump: Callable[[float], None],
        on_beat: Callable[[int], None] = lambda _worker: None,
        on_place: Callable[[int, int], None] | None = None,
        seconds: float = BEAT_SECONDS,
    ) -> None:
        self.worker = 0
        self.lease = Lease(known_workers.machine.seconds)
        self._queue = queue
        self._workers = known_workers
        self._threads = threads
        self._jumps = jumps
        self._on_loss = on_loss
        self._on_jump = on_jump
        self._on_beat = on_beat
        self._on_place = on_place
        self._pause = seconds
        self._turn = asyncio.Lock()
        # Chosen before the entry, so that a retry after an unknown outcome uses the same id.
        self._entered = new_worker()

    async def begin(self) -> None:
        """Enter the worker, and release what dead ones held. Raises StorageError."""
        async with self._turn:
            await self._enter(self._workers.machine.seconds())
        await self._queue.sweep()
        with contextlib.suppress(StorageError):  # both are done again at the next beat
            await self._threads.run(self._on_beat, self.worker)
            await self._follow_clock()

    async def end(self) -> None:
        """Release what the worker still holds; if the database is unavailable, others do later."""
        with contextlib.suppress(StorageError):
            await self._queue.put_back(self._entered)

    async def run(self) -> None:
        """Beat, and release the work of dead workers, until it is cancelled.

        It also detects jumps of the wall clock.
        """
        while True:
            await asyncio.sleep(self._pause)
            try:
                await self._beat_and_tell()
                await self._queue.sweep()
                await self._find_place()
                await self._follow_clock()
            except StorageError as error:
                _log.warning("Worker heartbeat failed: %s", error)
            except Exception:  # noqa: BLE001 - others would take a worker for dead that lives
                _log.exception("Worker heartbeat failed; retrying")

    async def _beat_and_tell(self) -> None:
        try:
            await self._beat()
        except QueueUnavailableError:
            # It has no lease, and it lives.
            await self._threads.run(self._on_beat, self.worker)
            raise
        await self._threads.run(self._on_beat, self.worker)

    async def _find_place(self) -> None:
        # Not at the entry: the others must learn of this worker first.
        if self._on_place is not None:
            self._on_place(*await self._threads.run(self._workers.place_of, self.worker))

    async def _follow_clock(self) -> None:
        if jump := await self._threads.run(self._jumps.follow):
            _log.warning("System clock changed by %+.1f s; waiting intervals adjusted", jump)
            self._on_jump(jump)

    async def make_sure(self) -> None:
        """Beat if the last beat is long ago, before more work is taken. Raises StorageError."""
        if self.lease.left < LEASE_SECONDS / 2:
            await self._beat()

    async def hold_lease(self) -> None:
        """Return once the lease is valid, renewing it if it has expired."""
        while not self.lease.holds():
            try:
                await self._beat(unless=self.lease.holds)
            except StorageError as error:
                _log.warning("Worker heartbeat failed; sending paused: %s", error)
                await asyncio.sleep(STORAGE_PAUSE)

    async def _beat(self, unless: Callable[[], bool] = lambda: False) -> None:
        """Renew the lease; drop all work if it was given to others."""
        async with self._turn:
            if unless():
                return
            since = self._workers.machine.seconds()
            if await self._queue.extend(self.worker):
                self.lease.renew(since)
                return
            self._on_loss()
            if self._entered == self.worker:
                self._entered = new_worker()
            await self._enter(since)
            # Otherwise work taken under the former id meanwhile would be lost.
            self._on_loss()

    async def _enter(self, since: float) -> None:
        await self._queue.join(self._entered)
        self.worker = self._entered
        self.lease.renew(since)
