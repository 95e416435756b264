"""Group commit: concurrent calls are stored together, in one transaction.

A commit waits for the disk, and costs the same for one send as for hundreds. Calls that arrive
during a commit are stored by the next one. Steady callers return a moment after their answer: a
step waits for as many callers as the last one served, but for no longer than that moment. A single
caller never waits.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

MOST_AT_ONCE: Final = 500
"""The maximum number of sends per commit; it keeps the commit, and so every wait, short."""

PAUSE_SECONDS: Final = 0.002
"""The longest wait of a step for returning callers."""

Entry = TypeVar("Entry")
Outcome = TypeVar("Outcome")


class GroupCommit(Generic[Entry, Outcome]):
    """Passes the entries of concurrent callers to ``store`` together.

    ``store`` takes entries and returns as many outcomes, in order; its errors are raised to all
    callers in that step. ``pause`` is the longest wait of a step for returning callers, in
    seconds. It belongs to one event loop and needs no closing.
    """

    def __init__(
        self,
        store: Callable[[Sequence[Entry]], Awaitable[Sequence[Outcome]]],
        *,
        most: int = MOST_AT_ONCE,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        self._store = store
        self._most = most
        self._pause = pause
        self._waiting: list[tuple[Sequence[Entry], asyncio.Future[Sequence[Outcome]]]] = []
        self._storing: asyncio.Task[None] | None = None
        self._expected = 1
        self._are_enough = asyncio.Event()

    async def bring(self, entries: Sequence[Entry]) -> Sequence[Outcome]:
        """Return the outcomes of these entries, once they are stored.

        Entries of a caller that is cancelled before their step begins are not stored.
        """
        future: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
        self._waiting.append((entries, future))
        if len(self._waiting) >= self._expected:
            self._are_enough.set()
        if self._storing is None:
            self._storing = asyncio.create_task(self._store_all())
        return await future

    async def _store_all(self) -> None:
        try:
            while self._waiting:
                await self._await_others()
                calls = self._next()
                self._expected = max(1, len(calls))
                await self._store_some(calls)
        finally:
            self._storing = None

    async def _await_others(self) -> None:
        if len(self._waiting) < self._expected:
            self._are_enough.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause):
                    await self._are_enough.wait()

    def _next(self) -> list[tuple[Sequence[Entry], "asyncio.Future[Sequence[Outcome]]"]]:
        """Return whole calls in order, until they fill one step."""
        taken = number = 0
        for entries, _ in self._waiting:
            if taken and number + len(entries) > self._most:
                break
            taken += 1
            number += len(entries)
        calls, self._waiting = self._waiting[:taken], self._waiting[taken:]
        return [call for call in calls if not call[1].done()]

    async def _store_some(
        self, calls: list[tuple[Sequence[Entry], "asyncio.Future[Sequence[Outcome]]"]]
    ) -> None:
        if not calls:
            return
        try:
            outcomes = await self._store([entry for entries, _ in calls for entry in entries])
        except BaseException as error:
            for _, future in calls:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        start = 0
        for entries, future in calls:
            if not future.done():
                future.set_result(outcomes[start : start + len(entries)])
            start += len(entries)
