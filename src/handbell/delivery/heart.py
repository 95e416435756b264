"""The heart of a worker: by its beat the other processes know that the worker lives."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from handbell._threads import in_thread
from handbell.errors import StorageError

from .roster import LEASE_SECONDS, Roster

BEAT_SECONDS: Final = 4.0

_log = logging.getLogger(__name__)


class Heart:
    """Keeps one worker on the roster, under the id ``worker``; 0 before it has begun.

    ``on_loss`` is called where the worker was taken for dead: others have what it had taken. Beats
    are ``seconds`` apart.
    """

    def __init__(
        self,
        roster: Roster,
        *,
        on_loss: Callable[[], None],
        now: Callable[[], float],
        seconds: float = BEAT_SECONDS,
    ) -> None:
        self.worker = 0
        self._roster = roster
        self._on_loss = on_loss
        self._now = now
        self._seconds = seconds
        self._beaten_at = 0.0

    async def begin(self) -> None:
        """Enter the worker, and give back what dead ones held. Raises StorageError."""
        self._beaten_at = self._now()
        self.worker = await in_thread(self._roster.enlist)
        await in_thread(self._roster.reclaim)

    async def end(self) -> None:
        """Give back what the worker still holds; where the database takes nothing, others do."""
        with contextlib.suppress(StorageError):
            await in_thread(self._roster.retire, self.worker)

    async def run(self) -> None:
        """Beat, and look for workers whose heart has stopped, until it is cancelled."""
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await self._beat()
                await in_thread(self._roster.reclaim)
            except StorageError as error:
                _log.warning("The worker cannot say that it lives: %s", error)
            except Exception:  # noqa: BLE001 - others would take a worker for dead that lives
                _log.exception("A beat of the worker's heart broke off; the next one follows")

    async def make_sure(self) -> None:
        """Beat where the last beat is long ago, before more work is taken. Raises StorageError."""
        if self._now() - self._beaten_at > LEASE_SECONDS / 2:
            await self._beat()

    async def _beat(self) -> None:
        """Say that the worker lives; of what was given to others no more is handed out."""
        at = self._now()
        if not await in_thread(self._roster.beat, self.worker):
            self._on_loss()
            self.worker = await in_thread(self._roster.enlist)
        self._beaten_at = at
