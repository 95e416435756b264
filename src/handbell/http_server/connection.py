"""One connection: what comes is parsed, requests are answered in their order, clients are bounded.

httptools reports what it parses; a connection notes what it waits for, and its server looks at all
of them each second, so that a request costs next to nothing more and a slow client costs others
nothing.
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
from .request_cycle import EXTENSIONS, Exchange
from .request_head import Head, HeadRefusedError

_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}
_OVERHEAD: Final = 17
"""A chunk of one byte takes six on the wire, and some clients write chunks so small."""

_log = logging.getLogger(__name__)


class Owner(Protocol):
    """What a connection needs of the server that accepted it."""

    bounds: Bounds
    body_of: error_responses.Body
    scheme: str
    is_stopping: bool
    date_line: bytes
    now: Callable[[], float]

    def run(self, exchange: Exchange) -> None:
        """Have the application answer a request."""

    def forget(self, connection: "HttpConnection") -> None:
        """Count a connection no more: it is closed."""


class HttpConnection(asyncio.Protocol):
    """A connection of ``server``, from accept on; ``network`` is what its address counts as.

    ``arriving`` hands the socket over to the event loop, a TLS handshake included, and is None once
    that is done.
    """

    def __init__(
        self, server: Owner, client: tuple[str, int], network: str, *, is_exempt: bool
    ) -> None:
        self.server = server
        self.network = network
        self.is_exempt = is_exempt
        self.arriving: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport | None = None
        self._client = client
        self._local: tuple[str, int] | None = None
        self._parser = httptools.HttpRequestParser(self)
        # The exchange whose request is being read, the one that is being answered, those behind it.
        self._reading: Exchange | None = None
        self._running: Exchange | None = None
        self._waiting: deque[Exchange] = deque()
        self._error: HandbellError | None = None
        self._is_deaf = self._is_unwanted = False
        self._is_paused = False
        self._writable: asyncio.Event | None = None
        # When what is waited for began; None while it is not waited for.
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
        # What of a head came, and of it with the piece at hand; what a body has around its content.
        self._head_raw = self._head_begun = self._overhead = 0

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read; a TLS handshake is done by now."""
        # uvloop's are none of asyncio's classes.
        self.transport = made = cast("asyncio.Transport", transport)
        if self._is_unwanted:
            made.abort()
            return
        self._local = made.get_extra_info("sockname")[:2]
        self._head_since = self.server.now()

    def connection_lost(self, _error: Exception | None) -> None:
        """Tell whoever works for this client that it is gone."""
        self.server.forget(self)
        for exchange in (self._running, *self._waiting):
            if exchange is not None:
                exchange.leave()
        self._waiting.clear()
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Read on, as long as the head is within its bounds."""
        if self._is_deaf:
            return
        self._fed_at = now = self.server.now()
        reading = self._reading
        if reading is not None:
            self._head_begun = 0
            self._overhead += len(data)
        else:
            # The first head of a piece begins with it, unless it began before.
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
            self._refuse(RequestError("The chunks of the body have more around them than in them"))

    def pause_writing(self) -> None:
        """Note that the client does not read what it asked for."""
        self._stuck_since = self.server.now()
        self._writable = asyncio.Event()

    def resume_writing(self) -> None:
        """Note that it reads again."""
        self._stuck_since = None
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    # httptools

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        self._head_since = self.server.now()
        self._head_raw, self._head_begun = self._head_begun, 0
        self._head, self._is_upgrade = Head(self.server.bounds), False

    def on_url(self, url: bytes) -> None:
        """Take a part of the request's target."""
        self._head.add_target(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailer fields are dropped, since who checks headers has done so by then.

        What they take counts among what is around the chunks.
        """
        if self._reading is None:
            self._head.add(name, value)

    def on_headers_complete(self) -> None:
        """Let the application answer, while a body may still come."""
        parser, server = self._parser, self.server
        if parser.should_upgrade():
            if parser.get_method() == b"CONNECT":
                no_proxy = RequestError("This server is no proxy", fix="Ask for one of its paths")
                raise HeadRefusedError(no_proxy)
            self._is_upgrade = True
            return
        version = parser.get_http_version()
        self._head.check(version)
        is_last = version != "1.1" or not parser.should_keep_alive()
        exchange = Exchange(
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
            raise HeadRefusedError(error_responses.too_many_waiting(server.bounds))
        else:
            self._waiting.append(exchange)
            self._pause()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body; of what is answered already, nothing is kept."""
        reading = self._reading
        self._overhead -= _OVERHEAD * len(body)
        if reading is not None and not reading.is_over and reading.feed(body):
            self._pause()

    def on_message_complete(self) -> None:
        """Note that nothing more belongs to the request."""
        exchange = self._reading
        if self._is_upgrade or exchange is None:
            return
        self._reading = None
        exchange.complete()
        # What follows a last request is none.
        self._is_deaf = self._is_deaf or exchange.is_last
        if exchange.is_over:
            self._next()

    # Reading

    def _parse(self, data: bytes) -> None:
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # The parser gives up at an offer to speak something else, which is not taken.
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
        if isinstance(cause, HeadRefusedError):
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

    # Answering, as Wire has it

    @property
    def is_stopping(self) -> bool:
        """Whether the server takes nothing new."""
        return self.server.is_stopping

    @property
    def date_line(self) -> bytes:
        """The header with the time."""
        return self.server.date_line

    def write(self, data: bytes) -> None:
        """Write bytes of an answer."""
        if self.transport is not None:
            self.transport.write(data)

    def writable(self) -> asyncio.Event | None:
        """Return what is set when the client reads again; None while it does."""
        return self._writable

    def want_more(self) -> None:
        """Read on, unless requests wait already."""
        if not self._waiting:
            self._resume()

    def abort(self) -> None:
        """End the connection, or its arrival, at once."""
        if self.transport is not None:
            self.transport.abort()
        elif self.arriving is not None and self.server.scheme == "https":
            self.arriving.cancel()
        else:
            # It arrives within this turn of the loop; uvloop would leak it when cancelled.
            self._is_unwanted = True

    def done(self, exchange: Exchange) -> None:
        """Go on behind a complete answer: with the next request, or to the end."""
        self._running = None
        if self.transport is None or self.transport.is_closing():
            return
        if exchange.is_last or self.server.is_stopping:
            # Without a half-close, a client that knows the end by the connection's waits for it.
            can_wait = self._waiting or self.transport.can_write_eof()
            if exchange.is_whole and not can_wait:
                self.transport.close()
            else:
                self._linger()
        elif exchange.is_whole:
            self._next()
        else:
            # The rest of the body is thrown away, so that the next request can be found.
            self._body_since = self.server.now()
            self._resume()

    def stop(self) -> None:
        """Take nothing new, and end when what runs is answered."""
        if self.transport is None:
            self.abort()
        elif self._running is None:
            self.transport.close()

    def _start(self, exchange: Exchange) -> None:
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
        """Read no more, and tell why when what came before is answered."""
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
        """Wait for the client to hang up: closing at once could take the answer from it."""
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

    # Bounds

    def look(self, now: float) -> None:
        """End the connection when its client takes too long."""
        bounds = self.server.bounds
        if self.transport is None:
            # asyncio ends handshakes itself.
            return
        if self.transport.is_closing():
            # What was written before the end may find no reader for ever.
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

    def _look_at_body(self, exchange: Exchange, now: float) -> None:
        bounds = self.server.bounds
        if self._is_paused:
            # It is we who do not read: the application is busy with what came before.
            self._body_since = self._fed_at = now
        elif exchange.is_stream:
            if now - self._fed_at > bounds.idle_seconds:
                self._time_out("The next line of the stream")
        elif now - self._body_since > bounds.body_seconds:
            self._time_out("The body of the request")

    def _time_out(self, what: str) -> None:
        # Whoever has sent nothing waits for no answer.
        if self._head_since is not None and self._head_raw == 0:
            self.stop()
        else:
            self._refuse(error_responses.late(what))

    @property
    def leisure(self) -> tuple[int, float] | None:
        """How well it can be done without: the less the better, None while we work for it."""
        since = (self._head_since, self._rest_since, self._linger_since, self._closing_since)
        if self._running is None:
            return 0, min((item for item in since if item is not None), default=self._body_since)
        if self._stuck_since is not None:
            return 1, self._stuck_since
        if self._reading is self._running and not self._is_paused:
            return 1, self._body_since
        return None
