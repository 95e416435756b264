"""One connection to the host: its capacity, the outcomes of its failures, and its end.

HTTP/2 itself is implemented by the :class:`~handbell.gateways.http2_session.Http2Session`; this
class connects it to a socket of the event loop and to the pool. Where the host speaks HTTP/1.1
alone, and the endpoint allows it, an :class:`~handbell.gateways.http1_session.Http1Session` takes
its place.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Collection
from itertools import takewhile
from typing import Final, Generic, Protocol, TypeVar, cast

from .http1_session import Http1Session
from .http2_frames import CALM, NO_ERROR, error_name
from .http2_session import Http2Session, ProtocolFault
from .http2_tls import authority, connect
from .http2_values import (
    End,
    Endpoint,
    Limits,
    Lost,
    NoConnection,
    NotSent,
    Request,
    StreamResponse,
    certificate_refused,
    connect_error_text,
    in_words,
    is_certificate_error,
    is_closed_by_peer,
)

T = TypeVar("T")

_OK: Final = 200
_CREATED: Final = 201
_BUFFER_BYTES: Final = 256 * 1024  # bytes waiting for the network; above it nothing more is begun
_PATIENCE_SECONDS: Final = 1.0
_LISTEN_SECONDS: Final = 1.0
_FAREWELL_PATIENCE: Final = 1.2  # a little longer than TLS may take to close
_BARE_OK: Final = StreamResponse(_OK)
_BARE_CREATED: Final = StreamResponse(_CREATED)
_CALM: Final = error_name(CALM)
_CLOSED_HERE: Final = Lost("ConnectionLost", "the connection was closed from here")
_REFUSED: Final = NotSent("RefusedStream", "the server refused the stream; it may be overloaded")


ENDS_THAT_TELL: Final = 5
"""How many silent ends in a row count as a refusal of a certificate that the host has accepted."""


class ConnectionPool(Protocol[T]):
    """What a connection needs from its pool."""

    endpoint: Endpoint
    limits: Limits
    wants_headers: bool
    prepare: Callable[[T], Request | None]
    may_begin: Callable[[], bool]
    requests: int
    answered_at: float
    silent_ends: int

    @property
    def is_unstable(self) -> bool:
        """Return whether the last connections ended young."""

    def tls(self) -> ssl.SSLContext:
        """Return the TLS context for the endpoint."""

    def settle(self, connection: "Http2Connection[T]") -> None:
        """Report what ended on a connection, and send more."""

    def end(self, item: T, end: End) -> None:
        """Report one item's end."""

    def again(self, item: T, why: NotSent) -> None:
        """Send a certainly unprocessed item again, or end it as ``why``."""

    def forget(self, item: T) -> None:
        """Drop the state of an item that is no longer wanted."""


class Http2Connection(asyncio.Protocol, Generic[T]):
    """A connection, which starts opening when it is constructed.

    ``made_at`` is when it opened, None before; ``answered_at`` when the last answer came, None
    before the first, and ``answers`` how many came; ``failure`` is why the connection is unusable,
    and ``noted`` whether the pool counted it; ``is_draining`` means that no request is begun on
    it. ``closed`` is done when it is closed completely.
    """

    def __init__(self, pool: ConnectionPool[T], loop: asyncio.AbstractEventLoop) -> None:
        self.pool = pool
        self.loop = loop
        self.made_at: float | None = None
        self.answered_at: float | None = None
        self.answers = 0
        self.noted: bool | None = None
        self.is_draining = False
        self.failure: NotSent | Lost | None = None
        self.closed: asyncio.Future[None] = loop.create_future()
        self._session: Http2Session[T] | Http1Session[T] = Http2Session(
            authority(pool.endpoint.url), is_listening=pool.wants_headers
        )
        self._transport: asyncio.Transport | None = None
        self._is_paused = False
        self._is_gated = True
        self._is_broken = False
        self._is_disowned = False
        self._heard_at = loop.time()
        self._asked_at: float | None = None
        self._listened_at = 0.0
        self._begun: deque[tuple[float, int]] = deque()  # start of a round, and its last stream
        self._storage_retry = min(_PATIENCE_SECONDS, pool.limits.request_timeout / 4)
        self._abort: asyncio.TimerHandle | None = None
        self._opening = loop.create_task(self._open())
        self._opening.add_done_callback(self._opened)

    @property
    def in_flight(self) -> int:
        """Return the number of requests on the wire."""
        return len(self._session.streams)

    @property
    def on_wire(self) -> Collection[T]:
        """Return the items of the requests on the wire."""
        return self._session.streams.values()

    @property
    def window(self) -> int:
        """Return how many requests may be on the wire at the same time."""
        return min(self._session.max_streams, self.pool.limits.in_flight)

    @property
    def room(self) -> int:
        """Return how many more requests may be sent now."""
        if self.is_draining or self._is_paused or self._asked_at or not self._session.is_greeted:
            return 0
        window = 1 if self._is_gated else self.window
        if self.pool.is_unstable:  # so that few requests are lost if this one dies young as well
            window = min(window, 1 + self.answers)
        return max(0, min(window - self.in_flight, self._session.room))

    @property
    def is_http1(self) -> bool:
        """Return whether the host speaks HTTP/1.1 alone."""
        return isinstance(self._session, Http1Session)

    @property
    def is_saturated(self) -> bool:
        """Return whether this connection is at its limit, so that a second one would help."""
        return not self._is_gated and self.in_flight >= self.window

    @property
    def is_throttled_by_server(self) -> bool:
        """Return whether the server left with ENHANCE_YOUR_CALM."""
        goaway = self._session.goaway
        return goaway is not None and goaway.error == _CALM

    # -- opening ---------------------------------------------------------------------------------

    async def _open(self) -> None:
        limits = self.pool.limits
        await connect(
            self.pool.endpoint,
            self.pool.tls(),
            lambda: self,
            seconds=limits.connect_timeout,
            farewell_seconds=limits.farewell_timeout,
        )

    def _opened(self, opening: asyncio.Task[None]) -> None:
        """Notify the pool of how opening ended: queued items depend on it."""
        if opening.cancelled():
            self.failure = NotSent("ConnectionClosed", "It was given up before it was open")
        elif isinstance(error := opening.exception(), NoConnection):
            self.failure = error.end
        elif isinstance(error, Exception):
            self.failure = self._refusal(error) or connect_error_text(error)
        if self.failure is not None:
            self.is_draining = True
            if self._transport is None and not self.closed.done():
                self.closed.set_result(None)
        self.pool.settle(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the protocol, if the other side agreed on HTTP/2."""
        if self.closed.done():  # it was given up at this very moment
            cast("asyncio.Transport", transport).abort()
            return
        self._transport = cast("asyncio.Transport", transport)
        chosen = transport.get_extra_info("ssl_object").selected_alpn_protocol()
        if chosen in ("http/1.1", None) and self.pool.endpoint.http1_connections:
            self._session = Http1Session(authority(self.pool.endpoint.url))
        elif chosen != "h2":
            protocol = f"the server chose {chosen}" if chosen else "the server chose no protocol"
            self.failure = NotSent(
                "NoSecureConnection", f"{protocol} by ALPN, and HTTP/2 is needed"
            )
            self.is_draining = True
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(_BUFFER_BYTES)
        self.made_at = self._heard_at = self.loop.time()
        self._flush()

    # -- sending ---------------------------------------------------------------------------------

    def take(self, backlog: deque[T]) -> bool:
        """Send a round of the backlog, as far as there is room; return whether any was sent."""
        room = min(self.room, self.pool.limits.round, len(backlog))
        if not room or not self.pool.may_begin():
            return False
        now = self.loop.time()
        if self._is_stale(now):
            self._ask(now)
            return False
        if not self.pool.wants_headers and now >= self._listened_at + _LISTEN_SECONDS:
            self._session.is_listening = True
            self._listened_at = now
        for _ in range(room):
            self._begin(backlog.popleft())
        self._begun.append((now, self._session.last_stream))
        self._flush()
        return True

    def _begin(self, item: T) -> None:
        """Write one item, unless it is unwanted or not a valid request."""
        try:
            request = self.pool.prepare(item)
            if request is None:
                self.pool.forget(item)
                return
            self._session.open(item, request)
        except Exception as error:  # noqa: BLE001 - the others go on, whatever hinders one of them
            self.pool.end(item, NotSent("RequestUnusable", str(error) or type(error).__name__))
        else:
            self.pool.requests += 1

    def _flush(self) -> None:
        if self._transport is not None and (out := self._session.to_send()):
            self._transport.write(out)

    def pause_writing(self) -> None:
        """Begin nothing more until the transport has drained."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Resume sending."""
        self._is_paused = False
        self.pool.settle(self)

    # -- receiving -------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse received bytes and let the pool act on them."""
        if self._is_broken:
            return
        self._heard_at = self.loop.time()
        self._asked_at = None
        try:
            self._session.receive(data)
        except ProtocolFault as fault:
            why = Lost("ConnectionLost", f"the server broke the protocol: {fault}")
            self._break_off(why, fault.error)
        else:
            if self._session.is_spent:
                self._leave()
        self._flush()
        self.pool.settle(self)

    def eof_received(self) -> None:
        """Begin nothing more: further writes would be lost."""
        self._note_end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the requests on the wire: whether they were processed is unknown."""
        self._note_end(exc)
        if self._abort is not None:
            self._abort.cancel()
        if not self.closed.done():
            self.closed.set_result(None)
        self.pool.settle(self)

    def _note_end(self, error: Exception | None) -> None:
        """Record why the connection is unusable, unless that is known."""
        self.is_draining = True
        if self.failure is None:
            self._is_disowned = is_certificate_error(error)
            # In TLS 1.3 the server judges our certificate after our side of the handshake is done.
            why = "the server hung up" if error is None else in_words(error)
            self.failure = self._refusal(error) or Lost("ConnectionLost", why)

    def _refusal(self, error: Exception | None, words: str = "") -> NotSent | None:
        """Return the end to report when this failure is, or may be, about our certificate."""
        if self.pool.endpoint.client_certificate is None:
            return None
        if not words and is_closed_by_peer(error):
            self.pool.silent_ends += not self.answers
        is_heard = self.answers > 0 or self.pool.silent_ends < ENDS_THAT_TELL
        return certificate_refused(error, is_heard=is_heard, words=words)

    def drain(self) -> None:
        """Report every request that has ended."""
        session, end = self._session, self.pool.end
        unanswered = session.abandon() if self.closed.done() else ()
        answers = len(session.answered) + len(session.created) + len(session.ended)
        if answers:
            self.answered_at = self.pool.answered_at = self._heard_at
            self.pool.silent_ends = 0
            self.answers += answers
            self._is_gated = False
        if session.answered:
            for item in session.answered:
                end(item, _BARE_OK)
            session.answered.clear()
        if session.created:
            for item in session.created:
                end(item, _BARE_CREATED)
            session.created.clear()
        while session.ended:
            end(*session.ended.pop())
        while session.refused:
            self.pool.again(session.refused.pop(), _REFUSED)
        while session.handed_back:
            detail = f"{self._failure.detail}, and left before it had taken the push"
            why = NotSent("GoneAway", detail)
            self.pool.again(session.handed_back.pop(), why)
        for item in unanswered:
            failure = self._failure
            is_taken = self._is_disowned and isinstance(failure, NotSent)
            end(item, failure if is_taken else Lost(failure.reason, failure.detail))

    @property
    def _failure(self) -> NotSent | Lost:
        return self.failure or Lost("ConnectionLost", "the connection is closed")

    def _leave(self) -> None:
        """Begin nothing new after GOAWAY; accepted requests may finish."""
        self.is_draining = True
        goaway = self._session.goaway
        if goaway is not None:
            said = f"{goaway.error}: {goaway.text}" if goaway.text else goaway.error
            refusal = self._refusal(None, said)
            self.failure = refusal or Lost("ConnectionLost", f"the server said {said}")

    def _break_off(self, failure: NotSent | Lost, error: int = NO_ERROR) -> None:
        self.failure = failure
        self.is_draining = self._is_broken = True
        if self._transport is not None:
            self._session.send_goaway(error)
            self._flush()
            self._transport.abort()

    def break_off(self) -> None:
        """Abort the connection; whether requests in flight were processed is unknown."""
        self._break_off(_CLOSED_HERE)

    # -- time ------------------------------------------------------------------------------------

    def _is_stale(self, now: float) -> bool:
        return not self.in_flight and now - self._heard_at > self.pool.limits.rest

    def _ask(self, now: float) -> None:
        """Send a PING; nothing is begun until it is answered, and nothing more without one."""
        if not self._session.can_ping:
            self.is_draining = not self.in_flight
            return
        self._asked_at = now
        self._session.ping()
        self._flush()

    def sweep(self, now: float) -> None:
        """End overdue requests; check the first request and a silent server."""
        self.drain()
        timeout = self.pool.limits.request_timeout
        if not self.in_flight:
            self._begun.clear()
        if self._transport is not None and not self._session.is_greeted:
            self._await_greeting(now)
        elif self._asked_at is not None:
            if now - self._asked_at > (timeout / 3 if self.in_flight else self._storage_retry):
                self._break_off(Lost("ConnectionLost", "the server did not answer a PING"))
                return
        elif self.in_flight and now - self._heard_at > timeout / 3:
            self._ask(now)
        if self.in_flight:
            self._look_after_the_oldest(now, timeout)

    def _await_greeting(self, now: float) -> None:
        """Hold requests until the server's SETTINGS arrive, within a time limit."""
        if not self._is_broken and now - self._heard_at > self.pool.limits.connect_timeout:
            self._break_off(connect_error_text(TimeoutError("The server did not speak HTTP/2")))

    def _look_after_the_oldest(self, now: float, timeout: float) -> None:
        first = self._oldest()
        if self._is_gated and now - first > self._storage_retry:
            # It may be silent for long and must not block the others, even where APNs allows one
            # stream until it has answered.
            self._is_gated = False
            self.is_draining |= self._session.max_streams <= 1
        if now - first > timeout:
            self.is_draining |= self.answered_at is None or self.answered_at < first
            self._expire(now - timeout)

    def _oldest(self) -> float:
        """Return when the oldest request in flight was begun."""
        oldest = next(iter(self._session.streams))
        while self._begun[0][1] < oldest:
            self._begun.popleft()
        return self._begun[0][0]

    def _expire(self, before: float) -> None:
        late = 0
        while self._begun and self._begun[0][0] < before:
            late = self._begun.popleft()[1]
        numbers = list(takewhile(lambda number: number <= late, self._session.streams))
        end = Lost("TimedOut", "no answer came in time")
        if self.answered_at is None:
            self.failure = end
        for item in self._session.cancel(numbers):
            self.pool.end(item, end)
        self._flush()

    def close(self) -> None:
        """Close the connection; nothing may be in flight."""
        if self._transport is None:
            self._opening.cancel()
        elif not self.closed.done():
            self.failure = self.failure or _CLOSED_HERE
            if not self._transport.is_closing():
                self._session.send_goaway()
                self._flush()
                self._transport.close()
            storage_retry = _FAREWELL_PATIENCE * self.pool.limits.farewell_timeout
            self._abort = self.loop.call_later(storage_retry, self._transport.abort)
