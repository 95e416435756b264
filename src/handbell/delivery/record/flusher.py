"""Writing down: what has ended goes to the ledger in batches, and is told once it stands there."""

import asyncio
import contextlib
import logging
from typing import Final

from handbell.delivery.events import Hooks
from handbell.delivery.queue.waiting import Waiting
from handbell.delivery.webhooks.store import NAMES
from handbell.delivery.work.in_flight import InFlight
from handbell.delivery.work.push_batch import Broadcast
from handbell.storage.storage_retry import StorageRetry, stopped

from .outcome_batch import Batch
from .settle import Settlement
from .write import Recorder

FLUSH_SECONDS: Final = 0.02
"""How long an end that came back waits for others, to be written with them."""

_FLUSH_AT: Final = 2000
_BULK_FLUSH_SECONDS: Final = 0.04
"""With so many on their way nobody waits for one; a commit costs as much for 500 as for 1500."""


_log = logging.getLogger(__name__)


class Flusher:
    """Writes what a settlement has gathered; belongs to one worker and its event loop."""

    def __init__(
        self,
        book: Settlement,
        recorder: Recorder,
        *,
        in_flight: InFlight,
        hooks: Hooks,
        storage_retry: StorageRetry,
        waiting: Waiting,
    ) -> None:
        self._book = book
        self._recorder = recorder
        self._in_flight = in_flight
        self._hooks = hooks
        self._storage_retry = storage_retry
        self._written = asyncio.Event()
        self._waiting = waiting
        self._is_closed = False

    async def gathered(self) -> None:
        """Return when something is to be written, and others had the time to come along."""
        await self._book.reported.wait()
        on_way = self._in_flight.load.all
        if self._book.unwritten < min(_FLUSH_AT, on_way):
            is_bulk = on_way >= _FLUSH_AT
            await asyncio.sleep(_BULK_FLUSH_SECONDS if is_bulk else FLUSH_SECONDS)
        self._book.reported.clear()

    async def flush(self, broadcasts: list[Broadcast]) -> None:
        """Write what was gathered until now, and how far these broadcasts came, then tell of it."""
        batch, events, ended = self._book.cut(broadcasts)
        batch.told += [event for event in events if type(event) in NAMES]
        if batch:
            await self._record(batch)
        self._in_flight.note_written(ended)
        self._written.set()
        self._tell(batch)
        for event in events:
            self._hooks.emit(event)

    async def _record(self, batch: Batch) -> None:
        """Write a batch; where something in it cannot be written, everything else of it."""
        try:
            await self._storage_retry.call(self._recorder.record, batch)
        except Exception:  # noqa: BLE001 - one thing must not take the others with it
            _log.exception("Could not record outcome batch; retrying row by row")
        else:
            return
        for part in batch.parts():
            try:
                await self._storage_retry.call(self._recorder.record, part)
            except Exception:  # noqa: BLE001 - the same
                _log.exception("Could not record outcome; left out: %s", part)

    def close(self) -> None:
        """Write no more: whoever waits, or comes later, is told by StoppedError."""
        self._is_closed = True
        self._written.set()
        self._waiting.close(stopped())

    async def next_written(self, seconds: float) -> None:
        """Return when something was written, or after so many seconds.

        Raises StoppedError once the worker has stopped.
        """
        if self._is_closed:
            raise stopped()
        self._written.clear()
        with contextlib.suppress(TimeoutError):
            # Not wait_for, which in Python 3.11 may keep a cancel to itself.
            async with asyncio.timeout(seconds):
                await self._written.wait()
        if self._is_closed:
            raise stopped()

    def _tell(self, batch: Batch) -> None:
        """Tell those who wait for a notification that this may have been the last of it."""
        if batch.finished_shards:  # whose they are is not said
            self._waiting.tell()
            return
        rows = {row for row, *_ in batch.sent} | {
            ending.notification_id for ending in batch.endings
        }
        self._waiting.tell(rows)
