"""One database poll shared by all callers that wait for a row to finish.

A thousand callers that each polled would be the database's main load. One query asks for all of
them: soon after this process wrote something relevant, and periodically, because other processes
write too.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final

from handbell.errors import StorageError
from handbell.storage.storage_retry import STORAGE_PAUSE

_SHARE: Final = 10
"""The pause after a query about all rows, in multiples of its duration."""
_REST: Final = 3
"""The pause after any query, in multiples of its duration, while that is short."""

_log = logging.getLogger(__name__)


class Poller:
    """Lets callers wait until a row is finished; belongs to one event loop.

    ``ask`` gets the awaited row numbers and returns the unfinished ones. It is called
    every ``seconds``, which may change, less often where a call takes long. After :meth:`tell` it
    is called at once, after a pause in proportion to the last call's duration, ``soonest`` seconds
    at most unless the call itself took longer.
    """

    def __init__(
        self,
        ask: Callable[[Collection[int]], Awaitable[Collection[int]]],
        *,
        seconds: float | Callable[[], float],
        soonest: float = 0.02,
    ) -> None:
        self._ask = ask
        self._seconds = seconds if callable(seconds) else lambda: seconds
        self._soonest = soonest
        self._waiting: dict[int, set[asyncio.Future[None]]] = {}
        self._news: set[int] = set()
        self._told = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None
        self._closed_by: Exception | None = None

    async def until_over(self, number: int) -> None:
        """Return once the row is finished. Raises the error of :meth:`close`, or of ``ask``."""
        if self._closed_by is not None:
            raise self._closed_by
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(number, set()).add(over)
        self.tell([number])
        if self._asking is None:
            self._asking = asyncio.create_task(self._keep_asking())
        try:
            await over
        finally:
            self._leave(number, over)

    def tell(self, numbers: Iterable[int] | None = None) -> None:
        """Check these rows at once, because they may be finished; None means all."""
        news = self._waiting if numbers is None else self._waiting.keys() & set(numbers)
        if news:
            self._news.update(news)
            self._told.set()

    def close(self, error: Exception) -> None:
        """Stop polling; present and later waiters get the error."""
        self._closed_by = error
        self._stop_asking()
        self._fail(error)

    def _leave(self, number: int, over: "asyncio.Future[None]") -> None:
        if (futures := self._waiting.get(number)) is not None:
            futures.discard(over)
            if not futures:
                del self._waiting[number]
        if not self._waiting:
            self._stop_asking()

    def _stop_asking(self) -> None:
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()

    def _end(self, number: int) -> None:
        for over in self._waiting.pop(number, ()):
            if not over.done():
                over.set_result(None)

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, {}
        for over in [one for futures in waiting.values() for one in futures if not one.done()]:
            over.set_exception(error)

    async def _keep_asking(self) -> None:
        loop = asyncio.get_running_loop()
        least = 0.0
        all_at = loop.time() + self._seconds()
        try:
            while self._waiting:
                all_at = min(all_at, loop.time() + max(self._seconds(), least))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(all_at):
                        await self._told.wait()
                began = loop.time()
                await self._ask_about(self._waiting.keys() if began >= all_at else self._news)
                took = loop.time() - began
                if began >= all_at:
                    least = _SHARE * took
                    all_at = loop.time() + max(self._seconds(), least)
                await asyncio.sleep(max(took, min(self._soonest, _REST * took)))
        except Exception as error:  # noqa: BLE001 - whoever waits hears of it
            self._fail(error)
        finally:
            if self._asking is asyncio.current_task():
                self._asking = None

    async def _ask_about(self, numbers: Collection[int]) -> None:
        asked = [number for number in numbers if number in self._waiting]
        self._news.clear()
        self._told.clear()
        if not asked:
            return
        try:
            not_over = set(await self._ask(asked))
        except StorageError as error:
            _log.warning("Database unavailable: %s", error)
            await asyncio.sleep(STORAGE_PAUSE)
            self.tell(asked)
            return
        for number in asked:
            if number not in not_over:
                self._end(number)
