"""An HTTP connection: parses requests, answers them in order, enforces limits.

A connection records what it waits for, and its server checks all connections each second, so that
timeouts cost a request next to nothing.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

import httptools

from handbell.errors import HandbellError, RequestError

from . import error_responses
from .bounds import Bounds
from .request_cycle import EXTENSIONS, RequestCycle
from .request_head import BadHeadError, Head

_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}
_OVERHEAD: Final = 17
"""A chunk of one byte has six bytes of overhead, and some clients write such chunks."""

_log = logging.getLogger(__name__)


class ConnectionServer(Protocol):
    """What a connection needs from its server."""

    bounds: Bounds
    body_of: error_responses.Body
    scheme: str
    is_stopping: bool
    date_line: bytes
    now: Callable[[], float]

    def run(self, exchange: RequestCycle) -> None:
        """Have the application answer a request."""

    def forget(self, connection: "HttpConnection") -> None:
        """Remove a closed connection."""


class HttpConnection(asyncio.Protocol):
    """A connection of ``server``, from accept on; ``network`` is its address's network.

    ``arriving`` is the task of the TLS handshake, and None once that is done.
    """

    def __init__(
        self, server: ConnectionServer, client: tuple[str, int], network: str, *, is_exempt: bool
    ) -> None:
        self.server = server
        self.network = network
        self.is_exempt = is_exempt
        self.arriving: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport | None = None
        self._client = client
        self._local: tuple[str, int] | None = None
        self._parser = httptools.HttpRequestParser(self)
        # The exchanges whose request is being read, that is being answered, and that are queued.
        self._reading: RequestCycle | None = None
        self._running: RequestCycle | None = None
        self._waiting: deque[RequestCycle] = deque()
        self._error: HandbellError | None = None
        self._is_deaf = self._is_unwanted = False
        self._is_paused = False
        self._writable: asyncio.Event | None = None
        # When each wait began; None while there is none.
        now = server.now()
        self._head_since: float | None = now
        self._rest_since: float | None = None
        self._body_since = self._fed_at = now
        self._stuck_since: float | None = None
        self._linger_since: float | None = None
        self._closing_since: float | None = None
        # The request whose head is being read.
        self._head = Head(server.bounds)
        self._is_upgrade = False
        # Bytes of the head, with those of the current chunk; overhead around a body's content.
        self._head_raw = self._head_begun = self._overhead = 0

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read; a TLS handshake is complete by now."""
        # uvloop's transports are not asyncio's classes.
        self.transport = made = cast("asyncio.Transport", transport)
        if self._is_unwanted:
            made.abort()
            return
        self._local = made.get_extra_info("sockname")[:2]
        self._head_since = self.server.now()

    def connection_lost(self, _error: Exception | None) -> None:
        """Notify the running exchange that its client is gone."""
        self.server.forget(self)
        for exchange in (self._running, *self._waiting):
            if exchange is not None:
                exchange.leave()
        self._waiting.clear()
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Parse received data, as long as the head is within its limits."""
        if self._is_deaf:
            return
        self._fed_at = now = self.server.now()
        reading = self._reading
        if reading is not None:
            self._head_begun = 0
            self._overhead += len(data)
        else:
            # The first head in a chunk begins with it, unless it began before.
            self._head_begun = len(data) if self._head_raw == 0 else 0
            self._head_raw += len(data)
            if self._head_since is None:
                self._head_since, self._rest_since = now, None
        self._parse(data)
        if self._is_deaf:
            return
        if self._reading is None:
            if self._head_raw > self.server.bounds.head_bytes:
                self._refuse(error_responses.too_large(self.server.bounds))
        elif self._overhead > self.server.bounds.head_bytes:
            self._refuse(RequestError("The chunks of the body have more overhead than content"))

    def pause_writing(self) -> None:
        """Note that the client does not read its answer."""
        self._stuck_since = self.server.now()
        self._writable = asyncio.Event()

    def resume_writing(self) -> None:
        """Note that the client reads again."""
        self._stuck_since = None
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    # httptools

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._head_since = self.server.now()
        self._head_raw, self._head_begun = self._head_begun, 0
        self._head, self._is_upgrade = Head(self.server.bounds), False

    def on_url(self, url: bytes) -> None:
        """Add a part of the request target."""
        self._head.add_target(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; trailers are dropped, since headers have been checked by then.

        Their size counts as overhead of the chunks.
        """
        if self._reading is None:
            self._head.add(name, value)

    def on_headers_complete(self) -> None:
        """Start the application, while the body may still be arriving."""
        parser, server = self._parser, self.server
        if parser.should_upgrade():
            if parser.get_method() == b"CONNECT":
                no_proxy = RequestError("This server is no proxy", fix="Ask for one of its paths")
                raise BadHeadError(no_proxy)
            self._is_upgrade = True
            return
        version = parser.get_http_version()
        self._head.check(version)
        is_last = version != "1.1" or not parser.should_keep_alive()
        exchange = RequestCycle(
            self,
            self._scope(version, parser.get_method().decode("ascii")),
            is_last=is_last,
            expects_continue=self._head.expects_leave and version == "1.1",
        )
        self._reading, self._head_since, self._body_since = exchange, None, self._fed_at
        self._head_raw = self._overhead = 0
        if self._running is None:
            self._start(exchange)
        elif len(self._waiting) >= server.bounds.pipelined:
            self._reading = None
            raise BadHeadError(error_responses.too_many_waiting(server.bounds))
        else:
            self._waiting.append(exchange)
            self._pause()

    def on_body(self, body: bytes) -> None:
        """Pass on a piece of the body; drop it if the request is answered already."""
        reading = self._reading
        self._overhead -= _OVERHEAD * len(body)
        if reading is not None and not reading.is_over and reading.feed(body):
            self._pause()

    def on_message_complete(self) -> None:
        """Complete the request."""
        exchange = self._reading
        if self._is_upgrade or exchange is None:
            return
        self._reading = None
        exchange.complete()
        # Data after a last request are not a request.
        self._is_deaf = self._is_deaf or exchange.is_last
        if exchange.is_over:
            self._next()

    # Reading

    def _parse(self, data: bytes) -> None:
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # The parser stops at an Upgrade, which is ignored.
                method, version = self._parser.get_method(), self._parser.get_http_version()
                data = self._head.without_upgrade(method, version) + data[upgrade.args[0] :]
                self._parser = httptools.HttpRequestParser(self)
                self._head_raw, self._head_begun = 0, len(data)
                continue
            except httptools.HttpParserError as error:
                self._refuse_parsed(error)
            return

    def _refuse_parsed(self, error: httptools.HttpParserError) -> None:
        cause = error.__context__
        if isinstance(cause, BadHeadError):
            self._refuse(cause.why)
        elif not self._is_deaf:
            if cause is not None:
                _log.error("Could not read request", exc_info=cause)
            self._refuse(error_responses.not_http(str(error)))

    def _scope(self, version: str, method: str) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self._local,
            "client": self._client,
            "scheme": self.server.scheme,
            "method": method,
            "root_path": "",
            "extensions": EXTENSIONS,
            **self._head.asked(),
        }

    # Answering: the methods of ResponseTransport

    @property
    def is_stopping(self) -> bool:
        """Return whether the server accepts nothing new."""
        return self.server.is_stopping

    @property
    def date_line(self) -> bytes:
        """Return the Date header."""
        return self.server.date_line

    def write(self, data: bytes) -> None:
        """Write bytes of an answer."""
        if self.transport is not None:
            self.transport.write(data)

    def writable(self) -> asyncio.Event | None:
        """Return an event that is set when the client reads again; None while it does."""
        return self._writable

    def want_more(self) -> None:
        """Resume reading, unless requests are queued."""
        if not self._waiting:
            self._resume()

    def abort(self) -> None:
        """Abort the connection, or its handshake."""
        if self.transport is not None:
            self.transport.abort()
        elif self.arriving is not None and self.server.scheme == "https":
            self.arriving.cancel()
        else:
            # Its handshake ends in this iteration of the loop; uvloop would leak it when
            # cancelled.
            self._is_unwanted = True

    def done(self, exchange: RequestCycle) -> None:
        """Continue after a complete answer: with the next request, or to the end."""
        self._running = None
        if self.transport is None or self.transport.is_closing():
            return
        if exchange.is_last or self.server.is_stopping:
            # A client that detects the end by the connection's close needs a half-close.
            can_wait = self._waiting or self.transport.can_write_eof()
            if exchange.is_whole and not can_wait:
                self.transport.close()
            else:
                self._linger()
        elif exchange.is_whole:
            self._next()
        else:
            # The rest of the body is discarded to find the next request.
            self._body_since = self.server.now()
            self._resume()

    def stop(self) -> None:
        """Accept nothing new, and close after the current request."""
        if self.transport is None:
            self.abort()
        elif self._running is None:
            self.transport.close()

    def _start(self, exchange: RequestCycle) -> None:
        self._running = exchange
        self.server.run(exchange)

    def _next(self) -> None:
        if self._waiting:
            self._start(self._waiting.popleft())
        elif self._error is not None:
            self._say_refusal(self._error)
            return
        elif self._head_since is None:
            self._rest_since = self.server.now()
        else:
            self._head_since = self.server.now()
        self.want_more()

    def _refuse(self, error: HandbellError) -> None:
        """Stop reading, and send the error after earlier answers."""
        self._error, self._is_deaf = error, True
        broken, self._reading = self._reading, None
        if broken is not None:
            broken.leave()
            if broken.is_over or broken.is_started:
                self.abort()
                return
            if broken is self._running:
                self._running = None
            else:
                self._waiting.remove(broken)
        if self._running is None:
            self._say_refusal(error)

    def _say_refusal(self, error: HandbellError) -> None:
        self.write(error_responses.refusal(error, self.server.body_of))
        self._linger()

    def _linger(self) -> None:
        """Wait for the client to close: closing at once could discard the answer."""
        self._is_deaf = True
        self._linger_since = self.server.now()
        self._resume()
        if self.transport is not None and self.transport.can_write_eof():
            self.transport.write_eof()

    def _pause(self) -> None:
        if not self._is_paused and self.transport is not None and not self.transport.is_closing():
            self._is_paused = True
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self._is_paused and self.transport is not None and not self.transport.is_closing():
            self._is_paused = False
            self._fed_at = self.server.now()
            self.transport.resume_reading()

    # Limits

    def look(self, now: float) -> None:
        """End the connection when its client is too slow."""
        bounds = self.server.bounds
        if self.transport is None:
            # asyncio times out handshakes itself.
            return
        if self.transport.is_closing():
            # Data written before the close may never be read.
            self._closing_since = self._closing_since or now
            if now - self._closing_since > bounds.idle_seconds:
                self.abort()
        elif self._linger_since is not None:
            if now - self._linger_since > bounds.linger_seconds:
                self.transport.close()
        elif self._stuck_since is not None and now - self._stuck_since > bounds.idle_seconds:
            self.abort()
        elif self._running is None:
            self._look_at_rest(now)
        elif self._reading is self._running:
            self._look_at_body(self._running, now)

    def _look_at_rest(self, now: float) -> None:
        bounds = self.server.bounds
        if self._reading is not None:
            if now - self._body_since > bounds.head_seconds:
                self._linger()
        elif self._head_since is not None:
            if now - self._head_since > bounds.head_seconds:
                self._time_out("The head of the request")
        elif self._rest_since is not None and now - self._rest_since > bounds.keep_alive_seconds:
            self.stop()

    def _look_at_body(self, exchange: RequestCycle, now: float) -> None:
        bounds = self.server.bounds
        if self._is_paused:
            # Reading is paused by us: the application is busy.
            self._body_since = self._fed_at = now
        elif exchange.is_stream:
            if now - self._fed_at > bounds.idle_seconds:
                self._time_out("The next line of the stream")
        elif now - self._body_since > bounds.body_seconds:
            self._time_out("The body of the request")

    def _time_out(self, missing: str) -> None:
        # A client that has sent nothing waits for no answer.
        if self._head_since is not None and self._head_raw == 0:
            self.stop()
        else:
            self._refuse(error_responses.late(missing))

    @property
    def eviction_priority(self) -> tuple[int, float] | None:
        """Return the priority for eviction: the lower the better, None while a request runs."""
        since = (self._head_since, self._rest_since, self._linger_since, self._closing_since)
        if self._running is None:
            return 0, min((item for item in since if item is not None), default=self._body_since)
        if self._stuck_since is not None:
            return 1, self._stuck_since
        if self._reading is self._running and not self._is_paused:
            return 1, self._body_since
        return None
