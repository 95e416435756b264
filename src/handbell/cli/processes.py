"""Several processes of one command, started again where one dies."""

import asyncio
import signal
import sys
from collections.abc import Sequence
from random import Random
from typing import Final

from handbell._back_off import BackOff

from .output import say
from .signals import stop_on_signal

RESTARTS: Final = BackOff(1, 2, 60)
"""The pauses before a process that died is started again, in seconds."""

_STEADY_SECONDS: Final = 60.0
_WRONG_USE: Final = 2


async def run_processes(each: Sequence[Sequence[str]]) -> int:
    """Run processes of ``handbell``, each with its words; return the exit code.

    A signal is passed on, and all of them are waited for; a second one ends the waiting. One that
    was killed is started again. Where one ends by itself in good order, or because it is used
    wrongly, its code is the result once all have ended.
    """
    stop = stop_on_signal()
    codes = await asyncio.gather(*(_keep_running(words, stop) for words in each))
    return max(codes)


async def _keep_running(words: Sequence[str], stop: asyncio.Event) -> int:
    loop, rng, deaths = asyncio.get_running_loop(), Random(), 0  # noqa: S311 - not for secrets
    while True:
        began = loop.time()
        # A session of its own: Ctrl-C comes from here alone, and so once.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "handbell", *words, start_new_session=True
        )
        code = await _end_of(process, stop)
        if stop.is_set() or 0 <= code <= _WRONG_USE:
            return max(0, code)
        deaths = 0 if loop.time() - began > _STEADY_SECONDS else deaths
        pause = RESTARTS.spread(deaths, rng)
        deaths += 1
        say(f"A process ended with {code}; it is started again in {pause:.0f} s.", err=True)
        try:
            async with asyncio.timeout(pause):
                await stop.wait()
        except TimeoutError:
            continue
        return 0


async def _end_of(process: asyncio.subprocess.Process, stop: asyncio.Event) -> int:
    """Return the exit code of a process; it is told to end when everything is to."""
    ending, stopping = asyncio.create_task(process.wait()), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([ending, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            process.send_signal(signal.SIGTERM)
        return await ending
    finally:
        stopping.cancel()
        if process.returncode is None:
            process.kill()
