"""How a program that runs until it is told to stop is told so."""

import asyncio
import signal
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def stop_on_signal() -> asyncio.Event:
    """Return what is set by Ctrl-C or SIGTERM; the next one has its usual effect."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def end() -> None:
        stop.set()
        for each in _SIGNALS:
            # For whoever cannot wait.
            loop.remove_signal_handler(each)

    for each in _SIGNALS:
        loop.add_signal_handler(each, end)
    return stop
