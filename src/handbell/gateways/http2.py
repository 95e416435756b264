"""HTTP/2 over TLS for gateways, in the event loop, without a future or task per request.

A :class:`Pool` sends items to one host. The caller gives two functions: ``prepare`` turns an item
into a :class:`Request` at the moment it goes on the wire, ``finish`` gets its :data:`End`, once
for each item.

A request that may have been processed is never repeated. Only certainly unprocessed requests are
sent again: refused streams, and those above the last stream of a GOAWAY.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, Generic, TypeVar

from handbell.errors import GatewayError

from .http2_connection import ENDS_THAT_TELL, Http2Connection
from .http2_headers import Headers
from .http2_reconnect import ReconnectBackOff
from .http2_tls import tls_context
from .http2_values import (
    MAX_BODY_BYTES,
    End,
    Endpoint,
    Limits,
    Lost,
    NotSent,
    Request,
    StreamResponse,
    trusted_certificates,
)

__all__ = [
    "MAX_BODY_BYTES",
    "End",
    "Endpoint",
    "Headers",
    "Limits",
    "Lost",
    "NotSent",
    "Pool",
    "Request",
    "StreamResponse",
    "trusted_certificates",
]

T = TypeVar("T")

_RESENDS: Final = 3
_CONNECTION_TRIES: Final = 3
_MOST_DRAINING: Final = 16  # a server may leave each connection without ending any request on it
_WARY: Final = 0.5  # levels of the pace: one connection ended young recently
_TOO_OFTEN: Final = 2.5  # three did, less what others earned: requests do not wait here


class Pool(Generic[T]):
    """A pool of connections to one host, and its queue of items.

    ``prepare`` is called when an item goes on the wire (again, when it has to be sent again) and
    may return None for an item that is no longer wanted. ``finish`` gets each item's end exactly
    once and may call :meth:`submit` and :meth:`renew`. Use a pool inside one running event loop.

    Without ``wants_headers`` the headers of a 200 or a 201 are skipped, except for one a second on
    each connection: reading them would cost more than the rest of a push. All other answers have
    headers.

    Where connections end soon after they were opened, the next is opened after a growing pause
    (:class:`~.http2_reconnect.ReconnectBackOff`); queued items go there first, or are given back if
    the wait would be long: as :class:`NotSent`, with the time for another try. ``may_begin`` is
    called before each round of requests; while it returns false, submitted items wait. It may be
    set at any time.

    ``opened``, ``requests`` and ``resent`` count since the start: connections opened, requests put
    on the wire, and requests sent again because the server certainly had not processed them.
    ``generation`` counts the calls of :meth:`renew`; ``silent_ends`` the connections in a row that
    the host ended without an answer: :data:`~.http2_connection.ENDS_THAT_TELL` of them, and before
    the first answer one, may mean that it refuses the certificate.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        limits: Limits,
        *,
        prepare: Callable[[T], Request | None],
        finish: Callable[[T, End], None],
        wants_headers: bool = True,
    ) -> None:
        self.endpoint = endpoint
        self.wants_headers = wants_headers
        self.limits = limits
        self.prepare = prepare
        self.may_begin: Callable[[], bool] = lambda: True
        self.opened = 0
        self.requests = 0
        self.resent = 0
        self.generation = 0
        self.answered_at = 0.0
        self.silent_ends = ENDS_THAT_TELL  # a host that never answered is not trusted yet
        self._finish = finish
        self._backlog: deque[T] = deque()
        self._connections: list[Http2Connection[T]] = []
        self._closing: list[Http2Connection[T]] = []
        self._tries: dict[int, int] = {}
        self._pace = ReconnectBackOff()
        self._cannot_connect: NotSent | None = None
        self._is_settling = False
        self._is_closed = False
        self._tls: ssl.SSLContext | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._next_round: asyncio.Handle | None = None
        self._became_idle: asyncio.Future[None] | None = None

    @property
    def connected(self) -> int:
        """Return the number of connections, those being opened or drained included."""
        return len(self._connections)

    @property
    def in_flight(self) -> int:
        """Return the number of requests on the wire."""
        return sum(connection.in_flight for connection in self._connections)

    @property
    def is_idle(self) -> bool:
        """Return whether nothing is waiting or on the wire."""
        return not self._backlog and not self.in_flight

    @property
    def is_unstable(self) -> bool:
        """Return whether the last connections ended young, so that this one has to prove itself."""
        return self._pace.level > _WARY

    def submit(self, items: Iterable[T]) -> None:
        """Queue the items for sending; return at once.

        Raises :class:`~handbell.errors.GatewayError` after :meth:`close`.
        """
        if self._is_closed:
            raise GatewayError("The connection pool is closed", fix="Open the gateway again")
        if not self._backlog:
            self.answered_at = asyncio.get_running_loop().time()
        self._backlog.extend(items)
        if not self._is_settling:
            self._settle()

    def withdraw(self, is_meant: Callable[[T], bool]) -> tuple[list[T], list[T]]:
        """Withdraw items; return those dropped without an end, and those on the wire.

        The latter still get their end, and may be prepared once more before that.
        """
        waiting = [item for item in self._backlog if is_meant(item)]
        if waiting:
            kept = [item for item in self._backlog if not is_meant(item)]
            self._backlog.clear()
            self._backlog.extend(kept)
            for item in waiting:
                self.forget(item)
            self._settle()
        on_wire = [item for each in self._connections for item in each.on_wire if is_meant(item)]
        return waiting, on_wire

    def limit_connections(self, most: int) -> None:
        """Open no more than so many connections; what is beyond finishes its requests and ends."""
        self.limits = replace(self.limits, connections=most)
        usable = [each for each in self._connections if not each.is_draining]
        for connection in usable[most:]:
            connection.is_draining = True
        if not self._is_settling:
            self._settle()

    def renew(self) -> None:
        """Use a new connection from now on; requests in flight finish on the old one."""
        self.generation += 1
        for connection in self._connections:
            connection.is_draining = True

    async def close(self, *, within: float | None = None) -> None:
        """Finish what was submitted, each within its timeout, then close the connections.

        After ``within`` seconds everything left is given up, and connections are cut.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        while self._backlog or self.in_flight:
            if self._became_idle is None or self._became_idle.done():
                self._became_idle = loop.create_future()
            left = None if within is None else max(0.0, began + within - loop.time())
            idle, _ = await asyncio.wait([self._became_idle], timeout=left)
            if not idle:
                break
        self._is_closed = True
        self._give_up(NotSent("ConnectionClosed", "The connection pool was closed"))
        self.renew()
        open_still = [*self._connections, *self._closing]
        for connection in [each for each in self._connections if each.in_flight]:
            connection.break_off()
        self._retire()
        if self._sweeper is not None:
            self._sweeper.cancel()
        if not open_still:
            return
        _, late = await asyncio.wait([each.closed for each in open_still], timeout=within)
        if late:
            for connection in open_still:
                connection.break_off()
            await asyncio.wait(late, timeout=within)

    # -- called by connections -------------------------------------------------------------------

    def end(self, item: T, end: End) -> None:
        """Report an item's end; an error of ``finish`` goes to the loop's handler."""
        if self._tries:
            self._tries.pop(id(item), None)
        try:
            self._finish(item, end)
        except Exception as error:  # noqa: BLE001 - the ends of the others must be told
            context = {"message": "Could not report the end of a request", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    def forget(self, item: T) -> None:
        """Drop the state of an item that is no longer wanted."""
        self._tries.pop(id(item), None)

    def again(self, item: T, why: NotSent) -> None:
        """Send a certainly unprocessed item again, unless that happened too often.

        Then it ends as ``why``, the last cause.
        """
        tries = self._tries.get(id(item), 0)
        if tries >= _RESENDS:
            self.end(item, why._replace(detail=f"{why.detail}, as {tries} times before"))
            return
        self._tries[id(item)] = tries + 1
        self.resent += 1
        self._backlog.appendleft(item)

    def tls(self) -> ssl.SSLContext:
        """Return the TLS context for the endpoint; see :func:`~.http2_tls.tls_context`."""
        if self._tls is None:
            self._tls = tls_context(self.endpoint)
        return self._tls

    def settle(self, connection: Http2Connection[T]) -> None:
        """Report what ended on a connection, and send more."""
        if self._is_settling:
            return
        self._is_settling = True
        try:
            connection.drain()
            self._fill(connection)
        finally:
            self._is_settling = False
        if self._backlog or connection.is_draining or not connection.in_flight:
            self._settle()

    # -- connections -----------------------------------------------------------------------------

    def _settle(self) -> None:
        self._is_settling = True
        try:
            self._note_ends()
            self._retire()
            while self._backlog and self.may_begin() and (connection := self._usable()) is not None:
                if not self._fill(connection):
                    break
        finally:
            self._is_settling = False
        is_idle = self.is_idle
        if is_idle and self._became_idle is not None and not self._became_idle.done():
            self._became_idle.set_result(None)
        if not is_idle and self._sweeper is None:
            self._sweep_later()

    def _fill(self, connection: Http2Connection[T]) -> bool:
        """Send as much as a connection takes; return False where the event loop is due first."""
        if self._next_round is not None:
            return False
        while connection.take(self._backlog):
            if self.limits.is_slow_to_prepare and self._backlog:
                self._next_round = asyncio.get_running_loop().call_soon(self._go_on)
                return False
        return True

    def _go_on(self) -> None:
        self._next_round = None
        self._settle()

    def _usable(self) -> Http2Connection[T] | None:
        """Return a connection with room, opening one where that is due, or None for now."""
        usable = [each for each in self._connections if not each.is_draining]
        for connection in usable:
            if connection.room:
                return connection
        draining = len(self._connections) - len(usable)
        most = self.limits.connections
        if any(each.is_http1 for each in self._connections):
            most = max(most, self.endpoint.http1_connections)
        if len(usable) >= most or draining >= _MOST_DRAINING:
            return None
        if not all(each.is_saturated for each in usable):
            return None
        unanswered = [each for each in self._connections if each.answered_at is None]
        if len(unanswered) >= _CONNECTION_TRIES:
            return None  # it accepts connections and is silent: wait
        if asyncio.get_running_loop().time() >= self._pace.until:
            return self._open()
        if not usable:
            self._give_back()
        return None

    def _open(self) -> Http2Connection[T]:
        connection = Http2Connection(self, asyncio.get_running_loop())
        self._connections.append(connection)
        self.opened += 1
        return connection

    def _note_ends(self) -> None:
        """Make the next connection wait for those that ended, whatever they answered."""
        for connection in self._connections:
            is_calm = connection.is_throttled_by_server
            if connection.failure is not None and connection.noted is not is_calm:
                connection.noted = is_calm
                self._rest(connection, connection.failure)

    def _retire(self) -> None:
        """Close drained connections."""
        over = [each for each in self._connections if each.is_draining and not each.in_flight]
        for connection in over:
            self._connections.remove(connection)
            connection.close()
            self._closing = [each for each in self._closing if not each.closed.done()]
            self._closing.append(connection)

    def _rest(self, connection: Http2Connection[T], failure: NotSent | Lost) -> None:
        now = asyncio.get_running_loop().time()
        self._pace.ended(
            now,
            lived=now - (connection.made_at or now),
            answers=connection.answers,
            is_calm=connection.is_throttled_by_server,
        )
        is_hopeless = isinstance(failure, NotSent) or self._pace.level > _TOO_OFTEN
        has_answered = connection.answered_at is not None
        self._cannot_connect = _not_sent(failure, has_answered) if is_hopeless else None
        if not any(not each.is_draining for each in self._connections):
            self._give_back()

    def _give_back(self) -> None:
        """End the items that are not worth the wait for a connection."""
        if self._cannot_connect is not None and self._backlog:
            after = max(0.0, self._pace.until - asyncio.get_running_loop().time())
            self._give_up(self._cannot_connect._replace(after=after))

    def _give_up(self, failure: NotSent) -> None:
        waiting = list(self._backlog)
        self._backlog.clear()
        for item in waiting:
            self.end(item, failure)

    # -- time ------------------------------------------------------------------------------------

    def _sweep_later(self) -> None:
        period = min(0.1, self.limits.request_timeout / 8)
        self._sweeper = asyncio.get_running_loop().call_later(period, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now = asyncio.get_running_loop().time()
        self._is_settling = True
        try:
            for connection in self._connections:
                connection.sweep(now)
            if self._backlog and now - self.answered_at > 2 * self.limits.request_timeout:
                for connection in self._connections:
                    connection.is_draining = True
                self._give_up(NotSent("Stalled", "The server has stopped answering; try later"))
        finally:
            self._is_settling = False
        self._settle()


def _not_sent(failure: NotSent | Lost, has_answered: bool) -> NotSent:  # noqa: FBT001
    """Return the end of requests that a failed connection left in the queue."""
    if isinstance(failure, NotSent):
        return failure
    if has_answered:
        context = "the push service ends each connection soon after it has opened"
        return NotSent("ConnectionClosed", f"{context}; the last time {failure.detail}")
    reason = "Stalled" if failure.reason == "TimedOut" else "ConnectionClosed"
    return NotSent(reason, failure.detail)
