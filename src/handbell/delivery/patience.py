"""Patience with the database: what it does not take now is tried again until it does."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

from handbell._threads import in_thread
from handbell.errors import ContradictionError, StorageError

STOP_SECONDS: Final = 10.0
"""How long a stop waits for a database that takes nothing."""

STORAGE_PAUSE: Final = 0.5
"""After how long a database that took nothing is tried again, in seconds."""

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Patience:
    """Calls the stores for one worker; ``seconds`` is how long a stop waits for the database."""

    def __init__(self, seconds: float = STOP_SECONDS) -> None:
        self.seconds = seconds
        self._failing: dict[object, float] = {}

    async def call(self, what: Callable[..., T], *arguments: Any) -> T:
        """Call something of the stores in a thread, again and again until the database takes it.

        What it will never take is raised, as is every mistake of the stores' own.
        """
        call = object()
        try:
            while True:
                try:
                    return await in_thread(what, *arguments)
                except ContradictionError:
                    raise
                except StorageError as error:
                    self._failing.setdefault(call, asyncio.get_running_loop().time())
                    _log.warning("The database cannot be used now: %s", error)
                    await asyncio.sleep(STORAGE_PAUSE)
        finally:
            self._failing.pop(call, None)

    def is_over(self, began: float) -> bool:
        """Return whether a call has waited in vain since a stop ``began``, by the loop's clock."""
        since = min(self._failing.values(), default=None)
        now = asyncio.get_running_loop().time()
        return since is not None and now - max(began, since) > self.seconds
