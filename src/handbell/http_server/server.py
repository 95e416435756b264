"""The HTTP server: accepts and supervises connections, and stops within a bounded time."""

import asyncio
import contextlib
import heapq
import logging
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate
from functools import partial
from typing import Any, Final

from handbell.errors import HandbellError, UnavailableError

from . import error_responses
from .bounds import Bounds
from .connection import HttpConnection
from .lingering_close import LingeringClose
from .networks import network_of
from .request_cycle import RequestCycle

_AT_ONCE: Final = 64
"""The number of connections that are accepted before other events are handled."""
_EVICTED_PART: Final = 32
_ABORT_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


def _nobody(_address: str) -> bool:
    return False


class HttpServer:
    """Serves an ASGI application on a listening socket.

    ``is_exempt`` returns whether an address is exempt from the connection limit. ``body_of``
    formats an error as the application does. At the total limit, idle connections are evicted,
    those of the network with most of them and the oldest first.
    """

    def __init__(
        self,
        application: Any,
        *,
        bounds: Bounds | None = None,
        tls: ssl.SSLContext | None = None,
        is_exempt: Callable[[str], bool] = _nobody,
        body_of: error_responses.Body = error_responses.plain_body,
    ) -> None:
        self.bounds = bounds or Bounds()
        self.body_of = body_of
        self.scheme = "http" if tls is None else "https"
        self.is_stopping = False
        self.date_line = b""
        self.connections: set[HttpConnection] = set()
        """The connections that count: from accept on, until they are closed."""
        self._application = application
        self._tls = tls
        self._is_exempt = is_exempt
        self._by_network: Counter[str] = Counter()
        self._ceiling = self.bounds.ceiling
        self._share = self.bounds.share_of(self._ceiling)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self._bound: socket.socket | None = None
        self._looking: asyncio.Task[None] | None = None
        self._turned_away = LingeringClose(self.bounds.linger_seconds)
        self._empty = asyncio.Event()

    def start(self, bound: socket.socket) -> None:
        """Accept connections on a listening socket, which is closed at the stop."""
        bound.setblocking(False)
        self._bound = bound
        self._set_date()
        self._loop.add_reader(bound.fileno(), self._accept)
        self._looking = self._loop.create_task(self._look())

    async def stop(self, grace: float) -> None:
        """Accept nothing new; abort requests that still run after ``grace`` seconds."""
        self.is_stopping = True
        if self._bound is not None:
            self._loop.remove_reader(self._bound.fileno())
            self._bound.close()
        for connection in list(self.connections):
            connection.stop()
        await self._drained(grace)
        for connection in list(self.connections):
            connection.abort()
        self._turned_away.close()
        await self._drained(_ABORT_SECONDS)
        for task in self._tasks:
            task.cancel()
        if self._looking is not None:
            self._looking.cancel()

    async def _drained(self, seconds: float) -> None:
        """Wait until there are no connections and requests left, or for ``seconds``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.connections:
                    self._empty.clear()
                    await self._empty.wait()
                if self._tasks:
                    await asyncio.wait(self._tasks)

    def run(self, exchange: RequestCycle) -> None:
        """Let the application answer a request."""
        task = self._loop.create_task(exchange.run(self._application))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def forget(self, connection: HttpConnection) -> None:
        """Remove a connection; idempotent."""
        if connection not in self.connections:
            return
        self.connections.discard(connection)
        self._by_network[connection.network] -= 1
        if not self._by_network[connection.network]:
            del self._by_network[connection.network]
        if not self.connections:
            self._empty.set()

    # Accepting

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if self._bound is None or self.is_stopping:
                return
            try:
                accepted, peer = self._bound.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue
            except OSError as error:
                # No descriptors or no memory: clients are accepted when some are free again.
                _log.warning("Could not accept connections: %s", error.strerror)
                self._make_room()
                self._rest()
                return
            if not self._welcome(accepted, peer):
                # A closed connection frees its descriptor in the next iteration of the loop.
                return

    def _rest(self) -> None:
        bound = self._bound
        if bound is None:
            return
        self._loop.remove_reader(bound.fileno())

        def again() -> None:
            if not self.is_stopping:
                self._loop.add_reader(bound.fileno(), self._accept)

        self._loop.call_later(self.bounds.look_seconds, again)

    def _welcome(self, accepted: socket.socket, peer: Any) -> bool:
        """Take over a connection; return whether there is room for another one at once."""
        accepted.setblocking(False)
        address = str(peer[0]).removeprefix("::ffff:")
        network = network_of(address)
        is_exempt = self._is_exempt(address)
        if self._by_network[network] >= self._share and not is_exempt:
            self._turn_away(accepted, error_responses.too_many(self.bounds))
            return True
        is_full = len(self.connections) >= self._ceiling
        if is_full and not self._make_room():
            busy = UnavailableError(
                "The server has no room for a further connection", fix="Try again soon"
            )
            self._turn_away(accepted, busy)
            return True
        connection = HttpConnection(self, (address, peer[1]), network, is_exempt=is_exempt)
        self.connections.add(connection)
        self._by_network[network] += 1
        arriving = self._loop.create_task(self._hand_over(accepted, connection))
        # A task cancelled before its first step runs no cleanup of its own.
        arriving.add_done_callback(partial(self._arrived, accepted, connection))
        connection.arriving = arriving
        return not is_full

    async def _hand_over(self, accepted: socket.socket, connection: HttpConnection) -> None:
        seconds = None if self._tls is None else self.bounds.head_seconds
        closing = None if self._tls is None else self.bounds.linger_seconds
        await self._loop.connect_accepted_socket(
            lambda: connection,
            accepted,
            ssl=self._tls,
            ssl_handshake_timeout=seconds,
            ssl_shutdown_timeout=closing,
        )

    def _arrived(
        self, accepted: socket.socket, connection: HttpConnection, arriving: asyncio.Task[None]
    ) -> None:
        connection.arriving = None
        error = None if arriving.cancelled() else arriving.exception()
        # A failed or slow handshake is the client's problem.
        if error is not None and not isinstance(error, OSError):
            _log.error("Could not accept connection", exc_info=error)
        if connection.transport is None:
            self.forget(connection)
            accepted.close()

    def _turn_away(self, accepted: socket.socket, error: HandbellError) -> None:
        if self._tls is not None:
            accepted.close()
            return
        with contextlib.suppress(OSError):
            accepted.send(error_responses.refusal(error, self.body_of))
            accepted.shutdown(socket.SHUT_WR)
        self._turned_away.add(accepted)

    def _make_room(self) -> bool:
        """Evict some idle connections; return whether there were any."""
        ranked = [
            (item, eviction_priority)
            for item in self.connections
            if (eviction_priority := item.eviction_priority)
        ]
        chosen = heapq.nsmallest(
            max(1, self._ceiling // _EVICTED_PART),
            ranked,
            key=lambda pair: (pair[1][0], -self._weight(pair[0]), pair[1][1]),
        )
        for connection, _ in chosen:
            self.forget(connection)
            connection.abort()
        return bool(chosen)

    def _weight(self, connection: HttpConnection) -> int:
        return 0 if connection.is_exempt else self._by_network[connection.network]

    # Supervision

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self.bounds.look_seconds)
            self._set_date()
            now = self.now()
            for connection in list(self.connections):
                try:
                    connection.look(now)
                except Exception:  # noqa: BLE001 - the other connections are looked at too
                    _log.exception("HttpConnection timeout check failed")
                    connection.abort()

    def _set_date(self) -> None:
        self.date_line = f"date: {formatdate(usegmt=True)}\r\n".encode("ascii")


@contextlib.asynccontextmanager
async def serving_on(
    bound: socket.socket, application: Any, *, grace: float, **options: Any
) -> AsyncIterator[HttpServer]:
    """Serve an application on a socket while the block runs; ``options`` are HttpServer's."""
    server = HttpServer(application, **options)
    server.start(bound)
    try:
        yield server
    finally:
        await server.stop(grace)
