"""The TLS server of one port: accepts connections, and lets each speak what it chooses."""

import asyncio
import contextlib
import socket
import ssl
from typing import Final, Protocol, cast

from .http1 import Http1Connection
from .http2 import PREFACE, Http2Connection
from .side import IDLE_SECONDS, Side

_HANDSHAKE_SECONDS: Final = 10.0
_CLOSING_SECONDS: Final = 1.0
"""How long a client may take to read pending data before the connection is closed."""
_HTTP2: Final = "h2"


class _Connection(Protocol):
    def shut_down(self) -> None:
        """Finish what was begun, and close."""

    def abort(self) -> None:
        """Cut the TCP connection."""


class WireServer:
    """The server of one side, on a bound socket.

    ``opened`` counts the connections since the start; ``is_away`` means that none is accepted.
    """

    def __init__(
        self, side: Side, context: ssl.SSLContext, *, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self.side = side
        self.opened = 0
        self.idle_seconds = idle_seconds
        self._context = context
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self.is_away = False
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    @property
    def connections(self) -> int:
        """Return the number of open connections."""
        return len(self._connections)

    async def start(self, bound: socket.socket) -> None:
        """Accept connections from now on."""
        self.is_away = False
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Opening(self),
            sock=bound,
            ssl=self._context,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=_CLOSING_SECONDS,
        )

    async def stop(self) -> None:
        """Announce the end on every connection, let requests finish briefly, and close."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._connections):
            connection.shut_down()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_empty.wait(), _CLOSING_SECONDS)
        for connection in list(self._connections):
            connection.abort()
        await self._server.wait_closed()

    async def leave(self) -> None:
        """Cut every connection and free the port: new connections are refused."""
        if self._server is None:
            return
        self.is_away = True
        self._server.close()
        for connection in list(self._connections):
            connection.abort()
        await self._server.wait_closed()

    def add(self, connection: _Connection) -> None:
        """Add an open connection."""
        self._connections.add(connection)
        self._is_empty.clear()

    def discard(self, connection: _Connection) -> None:
        """Remove a closed connection."""
        self._connections.discard(connection)
        if not self._connections:
            self._is_empty.set()


class _Opening(asyncio.Protocol):
    """A new connection until it is known what it speaks: by ALPN, or by its first bytes."""

    def __init__(self, server: WireServer) -> None:
        self._server = server
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have asyncio.Transport's methods but another base class.
        transport = self._transport = cast("asyncio.Transport", transport)
        self._server.opened += 1
        self._server.add(self)
        if self._server.is_away:  # the handshake took until now
            self.abort()
        elif transport.get_extra_info("ssl_object").selected_alpn_protocol() == _HTTP2:
            self._continue_as(Http2Connection(self._server))
        else:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._server.idle_seconds, self.abort)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._received:
            return
        if not PREFACE.startswith(self._received[: len(PREFACE)]):
            if self._server.side.speaks_http1:
                self._continue_as(Http1Connection(self._server))
            else:
                self.abort()
        elif len(self._received) >= len(PREFACE):
            self._continue_as(Http2Connection(self._server))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's name
        self._end()

    def shut_down(self) -> None:
        """Close: nothing was begun."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Cut the TCP connection."""
        if self._transport is not None:
            self._transport.abort()

    def _continue_as(self, connection: Http1Connection | Http2Connection) -> None:
        transport = self._transport
        if transport is None:
            return
        self._server.add(connection)
        self._end()
        transport.set_protocol(connection)
        connection.connection_made(transport)
        if self._received:
            connection.data_received(self._received)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._server.discard(self)
