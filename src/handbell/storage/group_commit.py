"""Group commit: concurrent calls are stored together, in one transaction.

A commit waits for the disk and costs the same for one send as for hundreds. Calls that arrive
during a commit join the next one; a call that arrives alone does not wait.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

MOST_AT_ONCE: Final = 500
"""How many sends one commit takes along; the commit stays short, and so does everybody's wait."""

Entry = TypeVar("Entry")
Outcome = TypeVar("Outcome")


class GroupCommit(Generic[Entry, Outcome]):
    """Passes the entries of concurrent callers to ``store`` together.

    ``store`` takes entries and returns one outcome for each, in order; its error is raised to
    every caller of that step. ``callers`` is how many are waiting now. It belongs to one event
    loop and needs no closing.
    """

    def __init__(
        self,
        store: Callable[[Sequence[Entry]], Awaitable[Sequence[Outcome]]],
        *,
        most: int = MOST_AT_ONCE,
    ) -> None:
        self._store = store
        self._most = most
        self._waiting: list[tuple[Sequence[Entry], asyncio.Future[Sequence[Outcome]]]] = []
        self._storing: asyncio.Task[None] | None = None
        self.callers = 0

    async def bring(self, entries: Sequence[Entry]) -> Sequence[Outcome]:
        """Return the outcomes of these entries, once they are stored.

        Entries of a caller that is cancelled before their step begins are not stored.
        """
        future: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
        self._waiting.append((entries, future))
        if self._storing is None:
            self._storing = asyncio.create_task(self._store_all())
        self.callers += 1
        try:
            return await future
        finally:
            self.callers -= 1

    async def _store_all(self) -> None:
        try:
            while self._waiting:
                await self._store_some(self._next())
        finally:
            self._storing = None

    def _next(self) -> list[tuple[Sequence[Entry], "asyncio.Future[Sequence[Outcome]]"]]:
        """Return whole calls in their order, until they fill one step."""
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
