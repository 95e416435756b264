"""Group commit: concurrent calls are stored together, in one transaction.

A commit waits for the disk, and costs the same for one send as for hundreds. Calls that arrive
during a commit are stored by the next one. Steady callers return a moment after their answer: a
step waits for as many callers as the last one served, but for no longer than that moment. A single
caller never waits. Where more wait than fit in one commit, the next step need not wait for the end
of this one: two halves of a step can overlap, such as checking sends and storing them.
"""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

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
    seconds. Up to ``overlapping`` steps run at once, begun in order; a further one begins beside
    others only when it is full. It belongs to one event loop and needs no closing.
    """

    def __init__(
        self,
        store: Callable[[Sequence[Entry]], Awaitable[Sequence[Outcome]]],
        *,
        most: int = MOST_AT_ONCE,
        pause: float = PAUSE_SECONDS,
        overlapping: int = 1,
    ) -> None:
        self._store = store
        self._most = most
        self._pause = pause
        self._waiting: list[tuple[Sequence[Entry], asyncio.Future[Sequence[Outcome]]]] = []
        self._overlapping = overlapping
        self._beginning: asyncio.Task[None] | None = None
        self._storing: set[asyncio.Task[None]] = set()
        self._expected = 1
        self._are_enough = asyncio.Event()
        self._may_begin = asyncio.Event()

    async def bring(self, entries: Sequence[Entry]) -> Sequence[Outcome]:
        """Return the outcomes of these entries, once they are stored.

        Entries of a caller that is cancelled before their step begins are not stored.
        """
        future: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
        self._waiting.append((entries, future))
        if len(self._waiting) >= self._expected:
            self._are_enough.set()
        if self._beginning is None:
            self._beginning = asyncio.create_task(self._begin_all())
        elif self._is_full():
            self._may_begin.set()
        return await future

    async def _begin_all(self) -> None:
        try:
            while self._waiting:
                await self._await_others()
                calls = self._next()
                self._expected = max(1, len(calls))
                self._begin(calls)
                await self._await_turn()
        finally:
            self._beginning = None

    def _begin(
        self, calls: list[tuple[Sequence[Entry], "asyncio.Future[Sequence[Outcome]]"]]
    ) -> None:
        step = asyncio.create_task(self._store_some(calls))
        self._storing.add(step)
        step.add_done_callback(self._end)

    def _end(self, step: asyncio.Task[None]) -> None:
        self._storing.discard(step)
        self._may_begin.set()

    async def _await_turn(self) -> None:
        """Return when nothing is being stored, or when what waits fills another step."""
        while self._storing and (len(self._storing) >= self._overlapping or not self._is_full()):
            self._may_begin.clear()
            await self._may_begin.wait()

    def _is_full(self) -> bool:
        return sum(len(entries) for entries, _ in self._waiting) >= self._most

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


class Turn:
    """The place of a step in the order of steps that overlap; entered while the step runs.

    The ``former`` step is the one that comes before it.
    """

    def __init__(self, former: "Turn | None" = None) -> None:
        self._former = former
        self.is_over = threading.Event()

    def __enter__(self) -> Self:
        """Begin the step."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the step."""
        self.is_over.set()

    def wait(self) -> None:
        """Block until each step before this one is over."""
        if (former := self._former) is not None:
            former.wait()
            former.is_over.wait()
            # A step must not keep all that ever came before it.
            self._former = None
