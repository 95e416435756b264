"""Systems shared by all senders of one event loop.

Apple treats rapid connects and disconnects as an attack, so there is one system per event loop and
settings, for any number of push objects. It is closed with its last user, and with the event loop,
even if a program leaves ``asyncio.run`` without closing anything.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from weakref import WeakSet

from ._portal import EXIT_SECONDS, at_end, ignore_loop_error
from ._thread_pool import ThreadPool
from .settings import Settings
from .system import System

_Key = tuple[asyncio.AbstractEventLoop, int, Settings]


@dataclass(slots=True, eq=False)
class _Shared:
    """A system with its users and the number of running calls."""

    key: _Key
    system: System
    guard: AsyncGenerator[None]
    users: WeakSet[object] = field(default_factory=WeakSet)
    calls: int = 0

    @property
    def is_left(self) -> bool:
        """Return whether nobody needs it any more."""
        return not self.users and not self.calls


_shared: Final[dict[_Key, _Shared]] = {}
_abandoning: Final = ThreadPool(1, "handbell-abandon")


@asynccontextmanager
async def using(settings: Settings, user: object) -> AsyncIterator[System]:
    """Yield the running loop's system for these settings; create it on first use.

    It stays open until each ``user`` has called :func:`leave` or is collected, and no such block
    is running. A forked process gets its own.
    """
    shared = await _find(settings)
    shared.users.add(user)
    shared.calls += 1
    try:
        yield shared.system
    finally:
        shared.calls -= 1
        await _close_if_left(shared)


async def leave(user: object, *, within: float | None = None) -> None:
    """Close the running loop's systems that only this user needs.

    Deliveries in flight are finished, or given back after ``within`` seconds.
    """
    for shared in _of_this_loop():
        if user in shared.users:
            shared.users.discard(user)
            await _close_if_left(shared, within=within)


async def close_all(*, within: float) -> None:
    """Close every system of the running event loop, within about ``within`` seconds."""
    closing = [_close(shared, within=within) for shared in _of_this_loop()]
    await asyncio.gather(*closing, return_exceptions=True)


async def _find(settings: Settings) -> _Shared:
    _abandon_closed_loops()
    key = (asyncio.get_running_loop(), os.getpid(), settings)
    if key not in _shared:
        system = System(settings)
        guard = _close_with_loop(key, system)
        _shared[key] = _Shared(key, system, guard)
        # The event loop tracks it from its first step on.
        await anext(guard)
    return _shared[key]


async def _close_with_loop(key: _Key, system: System) -> AsyncGenerator[None]:
    """Close a system when its event loop shuts down its asynchronous generators."""
    try:
        yield
    finally:
        # Another one may have been opened while this one was closing.
        if (shared := _shared.get(key)) is not None and shared.system is system:
            del _shared[key]
            await system.close(within=EXIT_SECONDS)


async def _close_if_left(shared: _Shared, *, within: float | None = None) -> None:
    if shared.is_left:
        await _close(shared, within=within)


async def _close(shared: _Shared, *, within: float | None = None) -> None:
    if _shared.get(shared.key) is not shared:
        return
    del _shared[shared.key]
    try:
        await shared.system.close(within=within)
    finally:
        await shared.guard.aclose()


def _of_this_loop() -> list[_Shared]:
    loop = asyncio.get_running_loop()
    return [shared for shared in list(_shared.values()) if shared.key[0] is loop]


def _abandon_closed_loops() -> None:
    for key in [key for key in list(_shared) if key[0].is_closed()]:
        gone = _shared.pop(key, None)
        if gone is not None:
            key[0].set_exception_handler(ignore_loop_error)
            _abandoning.submit(gone.system.abandon)


def silence() -> None:
    """Suppress the loops' warnings, at exit, about our pending tasks."""
    for loop, pid, _ in list(_shared):
        if pid == os.getpid() and not loop.is_running():
            loop.set_exception_handler(ignore_loop_error)


at_end(partial(close_all, within=EXIT_SECONDS), silence)
