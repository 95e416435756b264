"""One connection to the host: how much is on it, what every end means, and when it is over.

HTTP/2 itself is spoken by the :class:`~handbell.gateways.http2_session.Session`; this class joins
it to a socket of the event loop and to the pool.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from itertools import takewhile
from typing import Final, Generic, Protocol, TypeVar, cast

from .http2_session import ProtocolFault, Session
from .http2_tls import TlsUnusable, authority, connect
from .http2_values import (
    Answer,
    End,
    Endpoint,
    Limits,
    Lost,
    NotSent,
    Request,
    why_not_connected,
)

T = TypeVar("T")

_OK: Final = 200
_ROUND: Final = 128  # so many are written before the kernel is given them
_BUFFER_BYTES: Final = 256 * 1024  # what waits for the network; above it nothing more is begun
_PATIENCE_SECONDS: Final = 1.0
_LISTEN_SECONDS: Final = 1.0
_STALE_SECONDS: Final = 30.0  # a connection at rest for so long is asked before it is relied on
_FAREWELL_SECONDS: Final = 2.0
_PROTOCOL_ERROR: Final = 0x1
_BARE_OK: Final = Answer(_OK)


class Owner(Protocol[T]):
    """What a connection needs of the pool that it belongs to; see there."""

    endpoint: Endpoint
    limits: Limits
    wants_headers: bool
    prepare: Callable[[T], Request | None]
    requests: int
    answered_at: float

    def tls(self) -> ssl.SSLContext:
        """Return what makes TLS with the endpoint."""

    def settle(self, connection: "Connection[T]") -> None:
        """Report what ended on a connection, and send more."""

    def end(self, item: T, end: End) -> None:
        """Report one item's end."""

    def again(self, item: T) -> None:
        """Send an item again that was certainly not processed."""


class Connection(asyncio.Protocol, Generic[T]):
    """One connection, which begins to open when it is made.

    ``answered_at`` is when the last answer came, None before the first; ``failure`` why the
    connection is of no use; ``is_draining`` says that nothing new is begun on it. ``closed`` is
    done when nothing of it is left.
    """

    def __init__(self, pool: Owner[T], loop: asyncio.AbstractEventLoop) -> None:
        self.pool = pool
        self.loop = loop
        self.answered_at: float | None = None
        self.is_draining = False
        self.failure: NotSent | Lost | None = None
        self.closed: asyncio.Future[None] = loop.create_future()
        self._session: Session[T] = Session(
            authority(pool.endpoint.url), is_listening=pool.wants_headers
        )
        self._transport: asyncio.Transport | None = None
        self._is_paused = False
        self._is_gated = True
        self._heard_at = loop.time()
        self._asked_at: float | None = None
        self._listened_at = 0.0
        self._begun: deque[tuple[float, int]] = deque()  # when a round was begun, its last stream
        self._patience = min(_PATIENCE_SECONDS, pool.limits.request_timeout / 4)
        self._opening = loop.create_task(self._open())

    @property
    def in_flight(self) -> int:
        """How many requests are on the wire now."""
        return len(self._session.streams)

    @property
    def window(self) -> int:
        """How many requests may be on the wire at the same time."""
        return min(self._session.max_streams, self.pool.limits.in_flight)

    @property
    def room(self) -> int:
        """How many more requests would go on the wire now."""
        if self.is_draining or self._transport is None or self._is_paused or self._asked_at:
            return 0
        window = 1 if self._is_gated else self.window
        return max(0, min(window - self.in_flight, self._session.room))

    @property
    def is_stretched(self) -> bool:
        """Whether a second connection would help: this one carries all that it may."""
        return not self._is_gated and self.in_flight >= self.window

    # -- opening ---------------------------------------------------------------------------------

    async def _open(self) -> None:
        limits = self.pool.limits
        try:
            context = self.pool.tls()
            await connect(self.pool.endpoint, context, lambda: self, seconds=limits.connect_timeout)
        except TlsUnusable as error:
            self.failure = error.end
        except Exception as error:  # noqa: BLE001 - what waits for the connection must hear of it
            self.failure = why_not_connected(error)
        if self.failure is not None:
            self.is_draining = True
            if self._transport is None and not self.closed.done():
                self.closed.set_result(None)
        self.pool.settle(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to speak, if the other side speaks HTTP/2."""
        self._transport = cast("asyncio.Transport", transport)
        chosen = transport.get_extra_info("ssl_object").selected_alpn_protocol()
        if chosen != "h2":
            error = ssl.SSLError(f"the server chose {chosen or 'no protocol'} instead of h2")
            self.failure = why_not_connected(error)
            self.is_draining = True
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(_BUFFER_BYTES)
        self._heard_at = self.loop.time()
        self._flush()

    # -- sending ---------------------------------------------------------------------------------

    def take(self, backlog: deque[T]) -> bool:
        """Put a round of the backlog on the wire, as there is room; say whether any was."""
        room = min(self.room, _ROUND, len(backlog))
        if not room:
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
        """Write one item, unless it is no longer wanted or cannot be written as a request."""
        try:
            request = self.pool.prepare(item)
            if request is None:
                return
            self._session.open(item, request)
        except (ValueError, TypeError) as error:
            self.pool.end(item, NotSent("RequestUnusable", str(error)))
        else:
            self.pool.requests += 1

    def _flush(self) -> None:
        if self._transport is not None and (out := self._session.to_send()):
            self._transport.write(out)

    def pause_writing(self) -> None:
        """Begin nothing more until the network has taken what was written."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Go on."""
        self._is_paused = False
        self.pool.settle(self)

    # -- what comes back -------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Read what came and let the pool act on it."""
        self._heard_at = self.loop.time()
        self._asked_at = None
        try:
            self._session.receive(data)
        except ProtocolFault as fault:
            self._break_off(Lost("ConnectionLost", f"the server broke the protocol: {fault}"))
        if self._session.is_spent:
            self._leave()
        self._flush()
        self.pool.settle(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End what was on the wire: whether it was processed is not known."""
        self.is_draining = True
        if self.failure is None:
            self.failure = Lost("ConnectionLost", str(exc or "the server hung up"))
        if not self.closed.done():
            self.closed.set_result(None)
        self.pool.settle(self)

    def drain(self) -> None:
        """Report every request that has ended."""
        session, end = self._session, self.pool.end
        if session.answered or session.ended:
            self.answered_at = self.pool.answered_at = self._heard_at
            self._is_gated = False
        if session.answered:
            for item in session.answered:
                end(item, _BARE_OK)
            session.answered.clear()
        while session.ended:
            end(*session.ended.pop())
        while session.refused:
            self.pool.again(session.refused.pop())
        if self.closed.done() and session.streams:
            lost = Lost(self._failure.reason, self._failure.detail)
            for item in list(session.streams.values()):
                end(item, lost)
            session.streams.clear()

    @property
    def _failure(self) -> NotSent | Lost:
        return self.failure or Lost("ConnectionLost", "the connection is closed")

    def _leave(self) -> None:
        """Begin nothing new after GOAWAY; what the server took may finish."""
        self.is_draining = True
        farewell = self._session.farewell
        if farewell is not None and self.failure is None:
            said = f": {farewell.text}" if farewell.text else ""
            self.failure = Lost("ConnectionLost", f"the server said {farewell.error}{said}")

    def _break_off(self, failure: Lost) -> None:
        self.failure = failure
        self.is_draining = True
        if self._transport is not None:
            self._session.say_goodbye(_PROTOCOL_ERROR)
            self._flush()
            self._transport.abort()

    # -- time ------------------------------------------------------------------------------------

    def _is_stale(self, now: float) -> bool:
        return not self.in_flight and now - self._heard_at > _STALE_SECONDS

    def _ask(self, now: float) -> None:
        """Ask for a sign of life; until it comes nothing is begun."""
        self._asked_at = now
        self._session.ping()
        self._flush()

    def sweep(self, now: float) -> None:
        """End what has taken too long; look after the first request and a silent server."""
        self.drain()
        timeout = self.pool.limits.request_timeout
        if self._asked_at is not None:
            if now - self._asked_at > (timeout / 3 if self.in_flight else self._patience):
                self._break_off(Lost("ConnectionLost", "the server did not answer a PING"))
            return
        if not self.in_flight:
            return
        if now - self._heard_at > timeout / 3:
            self._ask(now)
        first = self._oldest()
        if self._is_gated and now - first > self._patience:
            # It may be silent for long, and must not hold up the others; not even where APNs
            # allows one stream until it has answered.
            self._is_gated = False
            self.is_draining |= self._session.max_streams <= 1
        if now - first > timeout:
            self.is_draining |= self.answered_at is None or self.answered_at < first
            self._expire(now - timeout)

    def _oldest(self) -> float:
        """Return when the oldest request that is in flight was begun."""
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
        for item in self._session.cancel(numbers):
            self.pool.end(item, end)
        self._flush()

    def close(self) -> None:
        """Close the connection; nothing may be in flight."""
        self._opening.cancel()
        if self._transport is None:
            if not self.closed.done():
                self.closed.set_result(None)
        elif not self._transport.is_closing():
            self._session.say_goodbye()
            self._flush()
            self._transport.close()
            self.loop.call_later(_FAREWELL_SECONDS, self._transport.abort)
