"""Graceful shutdown of a worker, in bounded time whatever push services and database do."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from handbell.delivery.record.flusher import FLUSH_SECONDS, Flusher
from handbell.delivery.record.settle import Settlement
from handbell.delivery.work.in_flight import InFlight
from handbell.storage.storage_retry import StorageRetry

from .dispatcher import Dispatcher

ANSWER_SECONDS: Final = 60.0
"""Default seconds for which a shutdown waits for the answers of push services."""

HAND_BACK_SECONDS: Final = 2.0
"""After how long a node that stops hands back what is not on the wire, for others to send."""

_CANCEL_SECONDS: Final = 2.0

_log = logging.getLogger(__name__)


class GracefulShutdown:
    """Waits for a worker's pushes in flight and writes their outcomes, then ends its tasks."""

    def __init__(
        self,
        book: Settlement,
        *,
        dispatcher: Dispatcher,
        in_flight: InFlight,
        storage_retry: StorageRetry,
        flusher: Flusher,
    ) -> None:
        self._book = book
        self._dispatcher = dispatcher
        self._in_flight = in_flight
        self._storage_retry = storage_retry
        self._flusher = flusher

    async def finish(
        self,
        taking: "asyncio.Task[None]",
        others: Iterable["asyncio.Task[None]"],
        *,
        answer_seconds: float,
        within: float | None,
        hand_back_seconds: float | None,
        hand_back: Callable[[], None],
    ) -> bool:
        """Wait for pushes in flight, then drop the rest; return whether every outcome is written.

        ``taking`` ends by itself, ``others`` are cancelled at the end. Waits ``answer_seconds`` for
        answers (``within`` if that is less), then for an unavailable database as long as the
        storage retry does. ``hand_back`` drops what is not on the wire; it is called where not
        everything is over after ``hand_back_seconds``, and not where that is None. Callers that
        wait for the worker get StoppedError.
        """
        began = asyncio.get_running_loop().time()
        most = answer_seconds if within is None else min(within, answer_seconds)

        def tell(level: int, what: str, number: int) -> None:
            # Who leaves in a hurry, as a program that ends, wants it handed back and hears nothing.
            _log.log(level if within is None else logging.DEBUG, what, number)

        def is_finished() -> bool:
            return taking.done() and not (self._dispatcher.tasks or self._in_flight.load.all)

        try:
            if hand_back_seconds is not None:
                soon = began + min(most, hand_back_seconds)
                if not await self._come_to_be(is_finished, began, soon):
                    hand_back()
            if not await self._come_to_be(is_finished, began, began + most):
                tell(
                    logging.WARNING, "Stopping with %d pushes unanswered", self._in_flight.load.out
                )
            await end_tasks(self._dispatcher.tasks)
            # What was answered is written down, or it would be sent a second time.
            most += self._storage_retry.seconds if within is None else _CANCEL_SECONDS
            is_written = await self._come_to_be(
                lambda: not self._book.unwritten, began, began + most
            )
        finally:
            await end_tasks([taking, *others])
            unwritten = self._book.unwritten
            self._in_flight.finish()
            self.tell()
        if not is_written:
            tell(
                logging.ERROR,
                "Database unavailable; stopped with %d outcomes unrecorded, the next start sends "
                "these again",
                unwritten,
            )
        return is_written

    def tell(self) -> None:
        """Raise StoppedError in present and later waiters."""
        self._storage_retry.end()
        self._flusher.close()

    async def _come_to_be(self, is_so: Callable[[], bool], began: float, until: float) -> bool:
        """Return whether the condition became true before ``until``."""
        loop = asyncio.get_running_loop()
        while not is_so():
            if loop.time() >= until or self._storage_retry.is_over(began):
                return False
            self._book.reported.set()
            await self._flusher.next_written(FLUSH_SECONDS)
        return True


async def end_tasks(tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Cancel tasks and return once they have ended, after a bounded wait in any case."""
    left = {task for task in tasks if not task.done()}
    deadline = asyncio.get_running_loop().time() + _CANCEL_SECONDS
    while left and asyncio.get_running_loop().time() < deadline:
        # More than once: what is awaited in there may keep a cancel to itself.
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_CANCEL_SECONDS / 8)
    for task in left:
        _log.error("Task did not stop after cancel: %r", task)
