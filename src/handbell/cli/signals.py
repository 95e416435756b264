"""How a program that runs until it is told to stop is told so."""

import asyncio
import signal
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def stop_on_signal() -> asyncio.Event:
    """Return what is set by Ctrl-C or SIGTERM; the next one ends the process at once."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def end() -> None:
        stop.set()
        for each in _SIGNALS:
            loop.remove_signal_handler(each)
            # For whoever cannot wait. Python's own way for Ctrl-C would clean up first, and wait.
            signal.signal(each, signal.SIG_DFL)

    for each in _SIGNALS:
        loop.add_signal_handler(each, end)
    return stop
