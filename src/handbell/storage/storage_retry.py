"""Retry of database calls until the database is available again."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

from handbell._thread_pool import ThreadPool
from handbell.errors import ContradictionError, StatementError, StoppedError, StorageError

STOP_SECONDS: Final = 10.0
"""How long a stop waits for an unavailable database."""

STORAGE_PAUSE: Final = 0.5
"""The pause between attempts on an unavailable database, in seconds."""

_log = logging.getLogger(__name__)

T = TypeVar("T")


class StorageRetry:
    """Runs store calls of one worker in its ``threads``, with retries.

    ``seconds`` is how long a stop waits for the database, ``pause`` the seconds between tries.
    """

    def __init__(
        self, threads: ThreadPool, seconds: float = STOP_SECONDS, pause: float = STORAGE_PAUSE
    ) -> None:
        self.seconds = seconds
        self.pause = pause
        self._threads = threads
        self._failing: dict[object, float] = {}
        self._is_over = False

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a store call in a thread, and retry while the database is unavailable.

        Raises errors that a retry cannot fix, and StoppedError when the database is unavailable
        after the worker has stopped.
        """
        call = object()
        try:
            while True:
                try:
                    return await self._threads.run(function, *arguments)
                except (ContradictionError, StatementError):
                    raise
                except StorageError as error:
                    if self._is_over:
                        raise stopped() from error
                    self._failing.setdefault(call, asyncio.get_running_loop().time())
                    _log.warning("Database unavailable: %s", error)
                    await asyncio.sleep(self.pause)
        finally:
            self._failing.pop(call, None)

    def end(self) -> None:
        """Stop retrying: the worker has stopped."""
        self._is_over = True

    def is_over(self, began: float) -> bool:
        """Return whether a stop that ``began`` (loop time) has waited long enough."""
        since = min(self._failing.values(), default=None)
        now = asyncio.get_running_loop().time()
        return since is not None and now - max(began, since) > self.seconds


def stopped() -> StoppedError:
    """Return the error for callers that wait for a stopped worker."""
    return StoppedError(
        "Sending was stopped here before all of it was done",
        fix="Nothing is lost: the next start of a sender or a worker sends the rest",
    )
