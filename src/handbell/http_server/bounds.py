"""Limits for clients: sizes, times and numbers of connections."""

import resource
from dataclasses import dataclass
from typing import Final

_MOST: Final = 20_000
_LEAST: Final = 8
_RESERVE: Final = 48
"""File descriptors that are reserved for databases, push services, mails and files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Limits for clients; sizes in bytes, times in seconds.

    ``head_seconds`` bounds the time from accept, or from a request's first byte, to the end of its
    headers; a TLS handshake has the same time. ``body_seconds`` is for a whole body that is not
    streamed; ``idle_seconds`` for a pause within a stream or in reading an answer;
    ``keep_alive_seconds`` for the pause between two requests, longer than the 60 seconds of common
    proxies, so that these close first. ``linger_seconds`` is for draining a refused client.

    ``connections`` is for one network, which is an IPv4 address or an IPv6 /64; exempt addresses
    have no such limit. ``all_connections`` is the total; None allows as many as there are file
    descriptors. ``pipelined`` is how many requests may wait on one connection.
    """

    head_bytes: int = 32_768
    headers: int = 100
    head_seconds: float = 10.0
    body_seconds: float = 60.0
    idle_seconds: float = 60.0
    keep_alive_seconds: float = 75.0
    linger_seconds: float = 2.0
    connections: int = 500
    all_connections: int | None = None
    pipelined: int = 100
    look_seconds: float = 1.0

    @property
    def ceiling(self) -> int:
        """Return the maximum number of connections."""
        return most_connections() if self.all_connections is None else self.all_connections

    def share_of(self, ceiling: int) -> int:
        """Return the limit of one network: at most a quarter of all."""
        return min(self.connections, max(_LEAST, ceiling // 4))


def most_connections() -> int:
    """Return how many connections the process has file descriptors for."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return _MOST
    return min(_MOST, max(_LEAST, files - max(_RESERVE, files // 4)))


def raise_file_limit() -> None:
    """Raise the soft limit of open files, up to what the connections can need."""
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST * 2 if most == resource.RLIM_INFINITY else min(most, _MOST * 2)
    if files != resource.RLIM_INFINITY and files < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
