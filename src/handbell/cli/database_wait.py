"""Waiting for a database server that is not there yet."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from handbell.errors import DatabaseUnavailableError

from .output import say

if TYPE_CHECKING:
    from handbell.system import System

WAIT_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 1.0


async def wait_for_database(start: Callable[[], Awaitable[object]], stop: asyncio.Event) -> None:
    """Call ``start`` until the database server can be reached, for :data:`WAIT_SECONDS` at most.

    Machines come up in any order, and a server that fails over is back within seconds. Raises the
    last DatabaseUnavailableError after that time, or once ``stop`` is set.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WAIT_SECONDS
    is_told = False
    while True:
        try:
            await start()
        except DatabaseUnavailableError as error:
            if stop.is_set() or loop.time() >= deadline:
                raise
            if not is_told:
                say(f"Waiting for the database, up to {WAIT_SECONDS:g} s: {error}", err=True)
                is_told = True
        else:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PAUSE_SECONDS):
                await stop.wait()


async def start_engine(parts: "System", stop: asyncio.Event) -> None:
    """Start the engine once the database server can be reached."""

    async def start() -> None:
        await parts.engine.start()  # even to make it, the database is asked

    await wait_for_database(start, stop)
