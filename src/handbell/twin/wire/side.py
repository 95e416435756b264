"""What a push service's side says to the server of its port."""

from collections.abc import Callable
from typing import Any, Final, Protocol

from .exchange import Request, TwinExchange

IDLE_SECONDS: Final = 3600.0
"""Idle time after which a connection is closed. No service states one; our choice."""
STREAMS: Final = 100
"""Concurrent streams of a connection, the least that RFC 9113, 6.5.2, recommends."""


class Side:
    """The behaviour of one port; a service's own class overrides what is different there.

    ``name`` is what faults and the history call it. ``speaks_http1`` means that HTTP/1.1 is
    answered as well as HTTP/2. What :meth:`connect` returns is passed to :meth:`handle` with each
    request of that connection, and replaced by what that returns.
    """

    name = ""
    speaks_http1 = True

    def connect(self, certificate: bytes | None) -> Any:  # noqa: ARG002 - a service's own
        """Return the memory of a new connection; ``certificate`` is the client's, in DER."""
        return None

    def handle(self, request: Request, memory: Any) -> tuple[TwinExchange, Any]:
        """Return the answer to a complete request, and the connection's memory afterwards."""
        raise NotImplementedError

    def streams(self, memory: Any) -> int:  # noqa: ARG002 - a service's own
        """Return how many concurrent streams a connection may open."""
        return STREAMS

    def farewell(self, reason: str) -> bytes:
        """Return the debug data of a GOAWAY with this reason."""
        return reason.encode()


class PlainSide(Side):
    """A side whose connections have no memory: each request is answered by a function."""

    def __init__(self, name: str, answer: Callable[[Request], TwinExchange]) -> None:
        self.name = name
        self._answer = answer

    def handle(self, request: Request, memory: Any) -> tuple[TwinExchange, Any]:
        """Return the function's answer."""
        return self._answer(request), memory


class Port(Protocol):
    """What a connection needs of the server that accepted it."""

    side: Side
    idle_seconds: float

    def discard(self, connection: Any) -> None:
        """Remove a closed connection."""
