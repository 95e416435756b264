"""Deliveries that are not begun: their notification cannot be read, or they cost their workers."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Final

from handbell.delivery.ledger.store import Ledger
from handbell.delivery.policy.failures import MOST_FAILURES
from handbell.delivery.queue.due import Due
from handbell.delivery.record.outcome_batch import Ending
from handbell.delivery.record.outcome_rows import failed_event, lost_ending, unreadable_ending
from handbell.delivery.record.settle import Settlement
from handbell.storage.storage_retry import StorageRetry

_log: Final = logging.getLogger(__name__)


class Unbegun:
    """Writes what becomes of deliveries without reading what they would send; one worker's."""

    def __init__(
        self,
        book: Settlement,
        ledger: Ledger,
        *,
        storage_retry: StorageRetry,
        now: Callable[[], float],
        rng: Random,
    ) -> None:
        self._book = book
        self._ledger = ledger
        self._storage_retry = storage_retry
        self._now = now
        self._rng = rng

    async def end_lost(self, due: Sequence[Due]) -> Sequence[Due]:
        """End what has lost its workers too often, before it costs this one; return the rest."""
        lost = [one for one in due if one.failures >= MOST_FAILURES]
        if not lost:
            return due
        await self._write(lost, lost_ending)
        return [one for one in due if one.failures < MOST_FAILURES]

    async def hold_unread(self, items: Sequence[Due], error: Exception) -> None:
        """Hold deliveries whose notification cannot be read, or end them if that lasts."""
        _log.error("Could not read stored notification; its deliveries wait", exc_info=error)
        await self._write(items, partial(unreadable_ending, error=error, rng=self._rng))

    async def _write(self, items: Sequence[Due], ending_of: Callable[[Due, float], Ending]) -> None:
        """Write an ending of each, and tell of those that are over."""
        rows = {one.notification for one in items}
        found = await self._storage_retry.call(self._ledger.rows, rows)
        named = {row.id: row for row in found}
        now = self._now()
        for item in items:
            ending, row, event = ending_of(item, now), named.get(item.notification), None
            if row is not None and ending.due_at is None:
                event = failed_event(row.app, row.public_id, item, ending, now)
            self._book.write_ending(ending, event)
