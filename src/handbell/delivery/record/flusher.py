"""Flush outcomes: write them to the ledger in batches, then emit their events."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from handbell._failures import log_failure
from handbell.delivery.events import Hooks
from handbell.delivery.queue.poller import Poller
from handbell.delivery.queue.work_queue import WorkQueue
from handbell.delivery.webhooks.store import NAMES
from handbell.delivery.work.in_flight import InFlight
from handbell.errors import StorageError
from handbell.storage.storage_retry import StorageRetry, stopped

from .outcome_batch import Batch, Ending, OutcomeWriter
from .outcome_rows import unwritable_ending
from .settle import Settlement
from .write import is_true

FLUSH_SECONDS: Final = 0.02
"""How long an outcome waits for others, to be written with them."""

_FLUSH_AT: Final = 2000
_BULK_FLUSH_SECONDS: Final = 0.04
"""The number in flight from which a batch waits; a commit costs the same for 500 as for 1500."""

_MOST_OWN: Final = 20_000
"""How many notifications accepted here are remembered; each forgotten one costs a signal."""

_log = logging.getLogger(__name__)


class Flusher:
    """Writes the collected outcomes of a settlement; belongs to one worker and event loop."""

    def __init__(
        self,
        book: Settlement,
        recorder: OutcomeWriter,
        *,
        queue: WorkQueue,
        worker: Callable[[], int],
        in_flight: InFlight,
        hooks: Hooks,
        storage_retry: StorageRetry,
        poller: Poller,
        now: Callable[[], float],
    ) -> None:
        self._book = book
        self._now = now
        self._recorder = recorder
        self._queue = queue
        self._worker = worker
        self._in_flight = in_flight
        self._hooks = hooks
        self._storage_retry = storage_retry
        self._written = asyncio.Event()
        self._poller = poller
        self._own: dict[int, None] = {}
        self._is_closed = False

    def note_own(self, rows: Iterable[int]) -> None:
        """Remember notifications that were accepted here: no other process has a caller waiting."""
        self._own.update(dict.fromkeys(rows))
        while len(self._own) > _MOST_OWN:
            del self._own[next(iter(self._own))]

    async def gathered(self) -> None:
        """Wait until there is something to write and a batch had time to fill."""
        await self._book.reported.wait()
        on_way = self._in_flight.load.all
        if self._book.unwritten < min(_FLUSH_AT, on_way):
            is_bulk = on_way >= _FLUSH_AT
            await asyncio.sleep(_BULK_FLUSH_SECONDS if is_bulk else FLUSH_SECONDS)
        self._book.reported.clear()

    async def flush(self, note_progress: Callable[[Batch], None]) -> None:
        """Write the collected outcomes and the progress of broadcasts, then emit events.

        ``note_progress`` adds the latter; see :meth:`Settlement.cut`.
        """
        batch, events, ended = self._book.cut(note_progress)
        batch.webhook_events += [event for event in events if type(event) in NAMES]
        batch.awaited = [row for row in batch.rows() if row not in self._own]
        kept = await self._record(batch) if batch else set()
        await self._release(batch)
        self._in_flight.note_written(ended)
        self._written.set()
        self._tell(batch)
        for event in events:
            if is_true(event, kept):
                self._hooks.emit(event)

    async def _release(self, batch: Batch) -> None:
        try:
            await self._queue.done(self._worker(), batch.settled())
        except StorageError as error:
            # It is given out again; its rows say by then what became of it.
            _log.warning("Queue unavailable: %s", error)

    async def _record(self, batch: Batch) -> set[int]:
        """Write a batch; if that fails, write every part of it that can be written.

        A delivery whose outcome cannot be written is a dead letter. Returns the sessions that stay
        as they are in spite of it.
        """
        kept: set[int] = set()
        try:
            return await self._storage_retry.call(self._recorder.record, batch)
        except Exception as error:  # noqa: BLE001 - one thing must not take the others with it
            log_failure(_log, error, "Could not record outcome batch; retrying row by row")
        for part in batch.parts():
            try:
                kept |= await self._storage_retry.call(self._recorder.record, part)
            except Exception as error:  # noqa: BLE001 - the same
                log_failure(_log, error, "Could not record outcome; left out: %s", part)
                await self._bury(part.endings, error)
        return kept

    async def _bury(self, endings: Sequence[Ending], error: Exception) -> None:
        """Write dead letters for deliveries whose outcomes cannot be written."""
        try:
            if endings:
                at = int(self._now() * 1000)
                dead = Batch(endings=[unwritable_ending(one, error, at) for one in endings])
                await self._storage_retry.call(self._recorder.record, dead)
        except Exception as failed:  # noqa: BLE001 - they are released when the worker stops
            log_failure(_log, failed, "Could not record dead letters: %s", endings)

    def close(self) -> None:
        """Stop writing: current and later waiters get StoppedError."""
        self._is_closed = True
        self._written.set()
        self._poller.close(stopped())

    async def next_written(self, seconds: float) -> None:
        """Wait for the next write, or for ``seconds``.

        Raises StoppedError once the worker has stopped.
        """
        if self._is_closed:
            raise stopped()
        self._written.clear()
        with contextlib.suppress(TimeoutError):
            # Not wait_for, which may swallow a cancellation in Python 3.11.
            async with asyncio.timeout(seconds):
                await self._written.wait()
        if self._is_closed:
            raise stopped()

    def _tell(self, batch: Batch) -> None:
        """Wake the callers waiting for these notifications."""
        if batch.finished_shards:  # the event has no notification
            self._poller.tell()
            return
        self._poller.tell(batch.rows())
