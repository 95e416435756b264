"""Signals that stop a long-running program."""

import asyncio
import signal
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def stop_on_signal() -> asyncio.Event:
    """Return an event that Ctrl-C or SIGTERM sets; the next signal ends the process at once."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def end() -> None:
        stop.set()
        for each in _SIGNALS:
            loop.remove_signal_handler(each)
            # For impatient users: Python's own handling of Ctrl-C would clean up first, and wait.
            signal.signal(each, signal.SIG_DFL)

    for each in _SIGNALS:
        loop.add_signal_handler(each, end)
    return stop
