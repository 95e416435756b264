"""Lingering close of sockets that were refused without a connection object."""

import asyncio
import socket
from typing import Final

_MOST: Final = 16
"""The maximum number of sockets, taken from the reserved descriptors."""
_READ_BYTES: Final = 65_536


class LingeringClose:
    """Drains sockets until their clients close, for ``seconds`` at most.

    Closing with unread input sends a TCP reset, which discards the answer at the client. When
    there are too many sockets, the oldest is closed.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._open: dict[socket.socket, asyncio.TimerHandle] = {}

    def add(self, answered: socket.socket) -> None:
        """Take over a non-blocking socket; nothing more is written to it."""
        if len(self._open) >= _MOST:
            self._close(next(iter(self._open)))
        self._open[answered] = self._loop.call_later(self._seconds, self._close, answered)
        self._loop.add_reader(answered.fileno(), self._drain, answered)

    def close(self) -> None:
        """Close all sockets."""
        for answered in list(self._open):
            self._close(answered)

    def _drain(self, answered: socket.socket) -> None:
        try:
            if answered.recv(_READ_BYTES):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self._close(answered)

    def _close(self, answered: socket.socket) -> None:
        self._open.pop(answered).cancel()
        self._loop.remove_reader(answered.fileno())
        answered.close()
