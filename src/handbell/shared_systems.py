"""The systems that everybody who sends in one event loop shares.

Apple takes connections that come and go for an attack, so there is one system for each event loop
and settings, however many front doors there are. It is closed when the last of its users closes,
and with the event loop: where a program leaves ``asyncio.run`` without closing anything, too.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from weakref import WeakSet

from ._portal import EXIT_SECONDS, at_end, tell_nobody
from ._threads import Threads
from .settings import Settings
from .system import System

_Key = tuple[asyncio.AbstractEventLoop, int, Settings]


@dataclass(slots=True, eq=False)
class _Shared:
    """A system, who has it open, and how many calls it is about."""

    key: _Key
    system: System
    guard: AsyncGenerator[None]
    users: WeakSet[object] = field(default_factory=WeakSet)
    calls: int = 0

    @property
    def is_left(self) -> bool:
        """Whether nobody needs it any more."""
        return not self.users and not self.calls


_shared: Final[dict[_Key, _Shared]] = {}
_abandoning: Final = Threads(1, "handbell-abandon")


@asynccontextmanager
async def using(settings: Settings, user: object) -> AsyncIterator[System]:
    """Give the system of the running event loop for these settings, made when first asked for.

    It stays open until each ``user`` has called :func:`leave` or is gone, and no block like this
    one is left. A forked process gets its own.
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
    """Close the systems of the running event loop that nobody but this user needs.

    What is on its way is finished, or handed back after ``within`` seconds.
    """
    for shared in _of_this_loop():
        if user in shared.users:
            shared.users.discard(user)
            await _close_if_left(shared, within=within)


async def close_all(*, within: float) -> None:
    """Close every system of the running event loop, used or not, within about so many seconds."""
    closing = [_close(shared, within=within) for shared in _of_this_loop()]
    await asyncio.gather(*closing, return_exceptions=True)


async def _find(settings: Settings) -> _Shared:
    _abandon_closed_loops()
    key = (asyncio.get_running_loop(), os.getpid(), settings)
    if key not in _shared:
        system = System(settings)
        guard = _close_with_loop(key, system)
        _shared[key] = _Shared(key, system, guard)
        # From its first step on the event loop knows it.
        await anext(guard)
    return _shared[key]


async def _close_with_loop(key: _Key, system: System) -> AsyncGenerator[None]:
    """Close a system when its event loop ends its asynchronous generators, which are at the end."""
    try:
        yield
    finally:
        # Others may have opened the next one while this one was being closed.
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
            key[0].set_exception_handler(tell_nobody)
            _abandoning.submit(gone.system.abandon)


def silence() -> None:
    """Have no event loop complain, at the end of the program, that it was left with our tasks."""
    for loop, pid, _ in list(_shared):
        if pid == os.getpid() and not loop.is_running():
            loop.set_exception_handler(tell_nobody)


at_end(partial(close_all, within=EXIT_SECONDS), silence)
