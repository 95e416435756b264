"""HTTP/2 over TLS for gateways: libcurl's multi interface, driven by the running asyncio loop.

A :class:`Pool` sends items to one host. The caller gives two functions: ``prepare`` turns an item
into a :class:`Request` at the moment it goes on the wire, ``finish`` is told its :data:`End`, once
for each item, in the event loop. There is no future and no task per request.

What is relied on, and what is prevented (measured with libcurl 8.23, see
docs/decisions/0001-libcurl-through-pycurl.md):

- One ``CurlMulti`` carries one connection. libcurl would quietly repeat a POST on a new connection
  when a used one breaks before an answer came, which could notify a person twice. A second
  connection is therefore refused in ``OPENSOCKETFUNCTION``: the repeat fails, and we decide.
- ``CURLINFO_REQUEST_SIZE`` survives such a repeat. Zero: nothing was sent. More than zero, while
  TCP was still open at the moment libcurl asked for the second connection: the server refused the
  stream (REFUSED_STREAM, or a GOAWAY below it), it was certainly not processed and is sent again.
  Otherwise the end is unknown, even where it was a GOAWAY and the server hung up right after it.
- libcurl obeys SETTINGS_MAX_CONCURRENT_STREAMS. A request above the limit would want a second
  connection, so the same refusal tells us the limit, and the window follows it.
"""

import asyncio
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

import pycurl

from handbell.errors import GatewayError

T = TypeVar("T")

MAX_BODY_BYTES: Final = 8192
"""The answer's body is kept up to this size; push services answer with less than 200 bytes."""

_HTTP2_STREAM: Final = 92  # CURLE_HTTP2_STREAM, which pycurl does not name
_STREAM_ONLY: Final = frozenset({_HTTP2_STREAM, pycurl.E_FILESIZE_EXCEEDED, pycurl.E_PARTIAL_FILE})
_OK: Final = 200
_ROUND: Final = 64  # requests that go out together: more would let the server wait for the first
_FIRST_WINDOW: Final = 16
_PATIENCE_SECONDS: Final = 1.0
_RESENDS: Final = 3
_MAX_IDLE_SECONDS: Final = 24 * 3600  # libcurl alone would not use it again after two minutes
_CONNECTION_TRIES: Final = 3
_REST_SECONDS: Final = 0.1
_MAX_REST_SECONDS: Final = 15.0
_TCP_CORK: Final[int | None] = getattr(socket, "TCP_CORK", None)  # Linux only
_CA_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One host to send to: ``url`` is ``https://host[:port]`` without a path.

    ``ca_file`` is trusted instead of the system's certificates (a private CA, the twin's).
    ``client_certificate`` is PEM, certificate and key together. ``proxy`` is used only when given
    here: the environment's proxies are not.
    """

    url: str
    ca_file: Path | None = None
    client_certificate: bytes | None = None
    proxy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much at once, and for how long. Times are in seconds.

    ``in_flight`` is per connection. A request ends within ``request_timeout`` after it was handed
    to the connection; what still waits for its turn ends as not sent when nothing at all was
    answered for twice as long.
    """

    connections: int = 1
    in_flight: int = 256
    connect_timeout: float = 10.0
    request_timeout: float = 30.0


class Request(NamedTuple):
    """What goes on the wire for one item: the path, ``name: value`` lines, and the body."""

    path: str
    headers: Sequence[bytes]
    body: bytes


class Answer(NamedTuple):
    """The server's answer. ``lines`` are the raw header lines; :meth:`headers` reads them."""

    status: int
    body: bytes = b""
    lines: Sequence[bytes] = ()

    def headers(self) -> dict[str, str]:
        """Return the headers by lower-case name."""
        pairs = (line.partition(b":") for line in self.lines if b":" in line)
        return {
            name.decode("latin-1").strip().lower(): value.decode("latin-1").strip()
            for name, _, value in pairs
        }


class NotSent(NamedTuple):
    """The request was certainly not processed, and may be sent again."""

    reason: str
    detail: str = ""


class Lost(NamedTuple):
    """The request went out and no answer came: it may or may not have been processed."""

    reason: str
    detail: str = ""


End = Answer | NotSent | Lost
_BARE_OK: Final = Answer(_OK)


def trusted_certificates() -> Path:
    """Return the file of certificates that the machine trusts; ``SSL_CERT_FILE`` comes first.

    pycurl's wheel carries its own OpenSSL, which does not know where this machine keeps them.
    Raises :class:`~handbell.errors.GatewayError` when there is none.
    """
    candidates = [os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile]
    for candidate in (*candidates, *_CA_BUNDLES):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    raise GatewayError(
        "No file with trusted certificates was found on this machine",
        fix="Install the package ca-certificates, or name a PEM file in SSL_CERT_FILE",
    )


class _Address(Protocol):
    """What libcurl wants to connect to."""

    family: int
    socktype: int
    protocol: int


class _Slot(Generic[T]):
    """One easy handle with what it is carrying; reused for one request after the other."""

    __slots__ = (
        "body",
        "chunks",
        "easy",
        "getinfo",
        "is_refused",
        "item",
        "lines",
        "setopt",
        "shelf",
        "started",
    )

    def __init__(self, easy: pycurl.Curl, shelf: "list[_Slot[T]]") -> None:
        self.easy = easy
        # Bound once: pycurl looks its methods up in several places each time.
        self.setopt = easy.setopt
        self.getinfo = easy.getinfo
        self.shelf = shelf
        self.lines: list[bytes] = []
        self.chunks: list[bytes] = []
        self.body: bytes | None = None
        self.item: T
        self.started = 0.0
        self.is_refused = False


class _Window:
    """How many requests may be on the wire of one connection.

    One until the first answer, then doubling with each round of answers up to ``most``. When the
    server's own limit shows, the window falls to what the server takes, and feels its way up: by
    one after a full round, by two after the next, and so on.
    """

    __slots__ = ("_answers", "_is_doubling", "_most", "_step", "size")

    def __init__(self, most: int) -> None:
        self.size = 1
        self._most = most
        self._is_doubling = True
        self._step = 1
        self._answers = 0

    def open(self) -> None:
        """Leave the first-request gate."""
        self.size = max(self.size, min(_FIRST_WINDOW, self._most))

    def widen(self) -> None:
        """Count one answer."""
        if self.size >= self._most:
            return
        self._answers += 1
        if self._is_doubling:
            self.size += 1
        elif self._answers >= self.size:
            self.size = min(self._most, self.size + self._step)
            self._step *= 2
            self._answers = 0

    def shrink(self, size: int) -> None:
        """Take the server's limit as it shows."""
        self.size = max(1, size)
        self._is_doubling = False
        self._step = 1
        self._answers = 0


class _Connection(Generic[T]):
    """One connection: a ``CurlMulti`` that is allowed to connect once."""

    def __init__(self, pool: "Pool[T]", loop: asyncio.AbstractEventLoop) -> None:
        self.pool = pool
        self.loop = loop
        self.in_flight: dict[pycurl.Curl, _Slot[T]] = {}
        self.window = _Window(pool.limits.in_flight)
        self._patience = min(_PATIENCE_SECONDS, pool.limits.request_timeout / 4)
        self.answered_at: float | None = None
        self.is_draining = False
        self.failure: NotSent | Lost | None = None
        self._is_gated = True
        self._doubted_at: float | None = None
        self._fed_up_to = 0
        self._proven = 0
        self._silent: list[_Slot[T]] = []
        self._listening: list[_Slot[T]] = []
        self._sockets: list[socket.socket] = []
        self._timer: asyncio.Handle | None = None
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self._multi.setopt(pycurl.M_MAX_CONCURRENT_STREAMS, max(100, pool.limits.in_flight))
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self._add, self._remove = self._multi.add_handle, self._multi.remove_handle

    @property
    def has_room(self) -> bool:
        """Whether one more request would go on the wire now."""
        return not self.is_draining and len(self.in_flight) < self.window.size

    # -- sending ---------------------------------------------------------------------------------

    def take(self, backlog: deque[T]) -> bool:
        """Put a round of the backlog on the wire, as the window allows; say whether any was."""
        if self._fed_up_to:
            self._doubted_at = None
            self._proven = max(self._proven, self._fed_up_to)
            self._fed_up_to = 0
        if not self.has_room or not backlog:
            return False
        room = 1 if self._doubted_at else self.window.size - len(self.in_flight)
        now = self.loop.time()
        started = self._begin_round(backlog, min(room, _ROUND), now)
        if started:
            self._fed_up_to = len(self.in_flight)
            self._cork(1)
            self._act(pycurl.SOCKET_TIMEOUT, 0)
            self._cork(0)
        return started > 0

    def _begin_round(self, backlog: deque[T], room: int, now: float) -> int:
        shelf = self._listening
        started = 0
        while started < room and backlog:
            if self._begin(backlog.popleft(), now, shelf):
                started += 1
                if not self.pool.wants_headers:
                    shelf = self._silent
        return started

    def _begin(self, item: T, now: float, shelf: list[_Slot[T]]) -> bool:
        """Start one item, unless it is no longer wanted or cannot be written as a request."""
        try:
            request = self.pool.prepare(item)
            if request is not None:
                self._start(item, request, now, shelf)
        except (ValueError, TypeError, pycurl.error) as error:
            self.pool.end(item, NotSent("RequestUnusable", str(error)))
            return False
        return request is not None

    def _cork(self, is_on: int) -> None:
        """Let the kernel send a round of requests together: a quarter less CPU for each."""
        if _TCP_CORK is not None and self.answered_at is not None:
            for each in self._sockets:
                each.setsockopt(socket.IPPROTO_TCP, _TCP_CORK, is_on)

    def _start(self, item: T, request: Request, now: float, shelf: list[_Slot[T]]) -> None:
        path, headers, body = request
        if path.split() != [path]:
            raise ValueError("the path is empty or has white space, which cannot be sent")
        slot = shelf.pop() if shelf else self._new_slot(shelf)
        # Not a URL of its own: libcurl would take it apart anew for each request.
        slot.setopt(pycurl.REQUEST_TARGET, path)
        slot.setopt(pycurl.HTTPHEADER, headers)
        if slot.body is not body:
            slot.setopt(pycurl.POSTFIELDS, body)
            slot.body = body
        slot.item = item
        slot.started = now
        slot.is_refused = False
        self._add(slot.easy)
        self.in_flight[slot.easy] = slot
        self.pool.requests += 1

    def _new_slot(self, shelf: list[_Slot[T]]) -> _Slot[T]:
        slot = _Slot(self.pool.new_handle(), shelf)
        # Built-in methods as callbacks: no Python frame for each line of an answer.
        if shelf is self._listening:
            slot.setopt(pycurl.HEADERFUNCTION, slot.lines.append)
        slot.setopt(pycurl.WRITEFUNCTION, slot.chunks.append)
        slot.setopt(pycurl.OPENSOCKETFUNCTION, partial(self._open_socket, slot))
        return slot

    def _open_socket(self, slot: _Slot[T], _purpose: int, address: _Address) -> socket.socket | int:
        """Give libcurl its socket, but never one for a second connection."""
        if self._is_connected():
            slot.is_refused |= any(_is_open(each) for each in self._sockets)
            return int(pycurl.SOCKET_BAD)
        try:
            opened = socket.socket(address.family, address.socktype, address.protocol)
        except OSError:
            return int(pycurl.SOCKET_BAD)
        self._sockets.append(opened)
        return opened

    # -- the event loop --------------------------------------------------------------------------

    def _on_socket(self, what: int, fd: int, _multi: object, _data: object) -> None:
        if what in (pycurl.POLL_IN, pycurl.POLL_INOUT):
            self.loop.add_reader(fd, self.pump, fd, pycurl.CSELECT_IN)
        else:
            self.loop.remove_reader(fd)
        if what in (pycurl.POLL_OUT, pycurl.POLL_INOUT):
            self.loop.add_writer(fd, self.pump, fd, pycurl.CSELECT_OUT)
        else:
            self.loop.remove_writer(fd)

    def pump(self, fd: int = pycurl.SOCKET_TIMEOUT, events: int = 0) -> None:
        """Let libcurl work on what is ready, report what has ended, and send more."""
        if not self._multi.closed:
            self._act(fd, events)
            self.pool.settle(self)

    def _act(self, fd: int, events: int) -> None:
        self._multi.socket_action(fd, events)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        milliseconds = self._multi.timeout()
        if milliseconds == 0:
            self._timer = self.loop.call_soon(self.pump)
        elif milliseconds > 0:
            self._timer = self.loop.call_later(milliseconds / 1000, self.pump)

    # -- the end of a request --------------------------------------------------------------------

    def drain(self) -> None:
        """Report every request that libcurl has finished with."""
        waiting = 1
        while waiting:
            waiting, done, failed = self._multi.info_read()
            if done:
                self.answered_at = self.pool.answered_at = self.loop.time()
            for easy in done:
                self._finish(easy)
            if failed:
                self._sort_out(failed)

    def _finish(self, easy: pycurl.Curl) -> None:
        slot = self._release(easy)
        if self._is_gated:
            self._first_answer(easy)
        self.window.widen()
        status = slot.getinfo(pycurl.RESPONSE_CODE)
        if status == _OK and not slot.lines and not slot.chunks:
            answer = _BARE_OK
        else:
            answer = _read_answer(slot, status)
        self.pool.end(slot.item, answer)

    def _release(self, easy: pycurl.Curl) -> _Slot[T]:
        self._remove(easy)
        slot = self.in_flight.pop(easy)
        slot.shelf.append(slot)
        return slot

    def _first_answer(self, easy: pycurl.Curl) -> None:
        self._is_gated = False
        self.window.open()
        port = easy.getinfo(pycurl.LOCAL_PORT)
        # Of the addresses that were tried at the same time, only one carries the connection.
        for each in [each for each in self._sockets if _local_port(each) != port]:
            self._sockets.remove(each)
            each.close()

    def _sort_out(self, failed: Sequence[tuple[pycurl.Curl, int, str]]) -> None:
        crowded: list[T] = []
        for easy, code, text in failed:
            if easy.getinfo(pycurl.RESPONSE_CODE) >= 200:  # noqa: PLR2004
                self._finish(easy)
                continue
            is_sent = easy.getinfo(pycurl.REQUEST_SIZE) > 0
            is_second = code == pycurl.E_COULDNT_CONNECT and self._is_connected()
            is_refused = self.in_flight[easy].is_refused
            item = self._forget(easy)
            if is_second and not is_sent:
                crowded.append(item)
                continue
            self.is_draining |= code not in _STREAM_ONLY
            if is_second and is_refused:
                self.pool.again(item)
            else:
                self.failure = _failure(code, text, is_sent=is_sent)
                self.pool.end(item, self.failure)
        if crowded:
            self._make_room(crowded)

    def _forget(self, easy: pycurl.Curl) -> T:
        slot = self._release(easy)
        slot.lines.clear()
        slot.chunks.clear()
        return slot.item

    def _make_room(self, crowded: list[T]) -> None:
        """Put back what the connection did not take: its limit is reached, or it is closing."""
        self.pool.put_back(crowded)
        self._fed_up_to = 0
        left = len(self.in_flight)
        if left < self._proven or self.answered_at is None:
            # It took more before, or never answered: has its limit fallen, or is it closing? The
            # next try will show.
            self._doubted_at = self._doubted_at or self.loop.time()
        self._proven = left
        self.window.shrink(left)
        self.is_draining |= not left

    def _is_connected(self) -> bool:
        return self.answered_at is not None or self._has_peer()

    def _has_peer(self) -> bool:
        """Whether TCP is connected and was not reset."""
        return any(_has_peer(each) for each in self._sockets)

    # -- time ------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """End what has taken too long; look after the gate and a connection in doubt."""
        if self._doubted_at is not None and now - self._doubted_at > self._patience:
            self.is_draining = True
        oldest = next(iter(self.in_flight.values()), None)
        if oldest is None:
            return
        if self._is_gated and now - oldest.started > self._patience:
            self._open_gate(oldest)
        if now - oldest.started > self.pool.limits.request_timeout:
            self.is_draining |= self.answered_at is None or self.answered_at < oldest.started
            self._expire(now - self.pool.limits.request_timeout)

    def _open_gate(self, oldest: _Slot[T]) -> None:
        if oldest.easy.getinfo(pycurl.REQUEST_SIZE) > 0 and self._doubted_at is None:
            self.window.open()

    def _expire(self, started_before: float) -> None:
        late = [slot for slot in self.in_flight.values() if slot.started < started_before]
        for slot in late:
            is_sent = slot.easy.getinfo(pycurl.REQUEST_SIZE) > 0
            end = _failure(pycurl.E_OPERATION_TIMEDOUT, "", is_sent=is_sent)
            self.failure = end
            self.pool.end(self._forget(slot.easy), end)

    def close(self) -> None:
        """Close the connection; nothing may be in flight."""
        if self._timer is not None:
            self._timer.cancel()
        self._multi.close()
        for slot in self._silent + self._listening:
            slot.easy.close()
        for each in self._sockets:
            each.close()


class Pool(Generic[T]):
    """The connections to one host, and the items that wait for their turn.

    ``prepare`` is called when an item goes on the wire (again, when it has to be sent again) and
    may return None for an item that is no longer wanted. ``finish`` is told each item's end exactly
    once and may call :meth:`submit` and :meth:`renew`. Use a pool inside one running event loop.

    Without ``wants_headers`` an answer has no ``lines`` but ``retry-after``, in seconds; only those
    to the first request of each round have all. Reading them costs a twentieth of a request.

    ``opened``, ``requests`` and ``resent`` count since the start: connections opened, requests put
    on the wire, and requests sent again because the server certainly had not processed them.
    ``generation`` counts the calls of :meth:`renew`.
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
        self.opened = 0
        self.requests = 0
        self.resent = 0
        self.generation = 0
        self.answered_at = 0.0
        self._finish = finish
        self._backlog: deque[T] = deque()
        self._connections: list[_Connection[T]] = []
        self._tries: dict[int, int] = {}
        self._failures = 0
        self._rests_until = 0.0
        self._cannot_connect: NotSent | None = None
        self._is_settling = False
        self._is_closed = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._became_idle: asyncio.Future[None] | None = None

    @property
    def connected(self) -> int:
        """How many connections are open now, those that are being closed among them."""
        return len(self._connections)

    @property
    def in_flight(self) -> int:
        """How many requests are on the wire now."""
        return sum(len(connection.in_flight) for connection in self._connections)

    def submit(self, items: Iterable[T]) -> None:
        """Send the items as soon as there is room; returns at once.

        Raises :class:`~handbell.errors.GatewayError` after :meth:`close`.
        """
        if self._is_closed:
            raise GatewayError("The connection pool is closed", fix="Open the gateway again")
        if not self._backlog:
            self.answered_at = asyncio.get_running_loop().time()
        self._backlog.extend(items)
        if not self._is_settling:
            self._settle()

    def renew(self) -> None:
        """Send what follows over a new connection; what is in flight finishes on the old one."""
        self.generation += 1
        for connection in self._connections:
            connection.is_draining = True

    async def close(self) -> None:
        """Finish what was submitted, each within its timeout, then close the connections."""
        if self._backlog or self.in_flight:
            self._became_idle = asyncio.get_running_loop().create_future()
            await self._became_idle
        self._is_closed = True
        self.renew()
        self._retire()
        if self._sweeper is not None:
            self._sweeper.cancel()

    # -- what connections tell -------------------------------------------------------------------

    def end(self, item: T, end: End) -> None:
        """Report one item's end."""
        if self._tries:
            self._tries.pop(id(item), None)
        self._finish(item, end)

    def again(self, item: T) -> None:
        """Send an item again that was certainly not processed, unless that happened too often."""
        tries = self._tries.get(id(item), 0)
        if tries >= _RESENDS:
            detail = f"The server refused the stream {tries + 1} times; it may be overloaded"
            self.end(item, NotSent("RefusedStream", detail))
            return
        self._tries[id(item)] = tries + 1
        self.resent += 1
        self._backlog.appendleft(item)

    def put_back(self, items: list[T]) -> None:
        """Put items back to the head of the backlog, in their order."""
        self._backlog.extendleft(reversed(items))
        self.requests -= len(items)

    def settle(self, connection: _Connection[T]) -> None:
        """Report what ended on a connection, and send more."""
        if self._is_settling:
            return
        self._is_settling = True
        try:
            connection.drain()
            while connection.take(self._backlog):
                connection.drain()
        finally:
            self._is_settling = False
        if self._backlog or connection.is_draining or not connection.in_flight:
            self._settle()

    # -- connections -----------------------------------------------------------------------------

    def _settle(self) -> None:
        self._is_settling = True
        try:
            self._retire()
            while self._backlog and (connection := self._usable()) is not None:
                while connection.take(self._backlog):
                    connection.drain()
                self._retire()
        finally:
            self._is_settling = False
        is_idle = not self._backlog and not self.in_flight
        if is_idle and self._became_idle is not None and not self._became_idle.done():
            self._became_idle.set_result(None)
        if not is_idle and self._sweeper is None:
            self._sweep_later()

    def _usable(self) -> _Connection[T] | None:
        """Return a connection with room, opening one where that is due, or None for now."""
        usable = [each for each in self._connections if not each.is_draining]
        for connection in usable:
            if connection.has_room:
                return connection
        if len(usable) >= self.limits.connections:
            return None
        if any(each.answered_at is None for each in usable):
            return None
        if asyncio.get_running_loop().time() >= self._rests_until:
            return self._open()
        if not usable and self._cannot_connect is not None:
            self._give_up(self._cannot_connect)
        return None

    def _open(self) -> _Connection[T]:
        connection = _Connection(self, asyncio.get_running_loop())
        self._connections.append(connection)
        self.opened += 1
        return connection

    def _retire(self) -> None:
        """Close what is drained; a connection that never answered makes the next one wait."""
        over = [each for each in self._connections if each.is_draining and not each.in_flight]
        for connection in over:
            self._connections.remove(connection)
            connection.close()
            if connection.answered_at is not None:
                self._failures = 0
                self._cannot_connect = None
            elif connection.failure is not None:
                self._rest(connection.failure)

    def _rest(self, failure: NotSent | Lost) -> None:
        self._failures += 1
        pause = min(_MAX_REST_SECONDS, _REST_SECONDS * 2 ** (self._failures - 1))
        self._rests_until = asyncio.get_running_loop().time() + pause
        if isinstance(failure, NotSent) or self._failures >= _CONNECTION_TRIES:
            self._cannot_connect = NotSent(failure.reason, failure.detail)
            if not any(not each.is_draining for each in self._connections):
                self._give_up(self._cannot_connect)

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
            if now - self.answered_at > 2 * self.limits.request_timeout:
                self._give_up(NotSent("Stalled", "The server has stopped answering; try later"))
        finally:
            self._is_settling = False
        self._settle()

    # -- handles ---------------------------------------------------------------------------------

    def new_handle(self) -> pycurl.Curl:
        """Return an easy handle with everything set that does not change."""
        easy = pycurl.Curl()
        for option, value in self._options():
            easy.setopt(option, value)
        return easy

    def _options(self) -> list[tuple[int, object]]:
        endpoint = self.endpoint
        options: list[tuple[int, object]] = [
            (pycurl.URL, endpoint.url),
            (pycurl.POST, 1),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE),
            (pycurl.PIPEWAIT, 1),
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTPS),
            (pycurl.FOLLOWLOCATION, 0),
            (pycurl.NOSIGNAL, 1),
            (pycurl.PROXY, endpoint.proxy),
            (pycurl.SSL_VERIFYPEER, 1),
            (pycurl.SSL_VERIFYHOST, 2),
            (pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2),
            (pycurl.CAINFO, str(endpoint.ca_file or trusted_certificates())),
            (pycurl.CONNECTTIMEOUT_MS, max(1, int(self.limits.connect_timeout * 1000))),
            (pycurl.DNS_CACHE_TIMEOUT, -1),
            (pycurl.MAXAGE_CONN, _MAX_IDLE_SECONDS),
            (pycurl.TCP_KEEPALIVE, 1),
            (pycurl.TCP_KEEPIDLE, 60),
            (pycurl.TCP_KEEPINTVL, 20),
            (pycurl.MAXFILESIZE, MAX_BODY_BYTES),
        ]
        if endpoint.client_certificate is not None:
            options += [
                (pycurl.SSLCERT_BLOB, endpoint.client_certificate),
                (pycurl.SSLKEY_BLOB, endpoint.client_certificate),
            ]
        return options


def _read_answer(slot: _Slot[T], status: int) -> Answer:
    lines = tuple(slot.lines)
    if not lines and (seconds := slot.getinfo(pycurl.RETRY_AFTER)) > 0:
        lines = (b"retry-after: %d" % seconds,)
    answer = Answer(status, b"".join(slot.chunks), lines)
    slot.lines.clear()
    slot.chunks.clear()
    return answer


_ADVICE: Final = {
    pycurl.E_COULDNT_RESOLVE_HOST: (
        "HostNotFound",
        "Check the address and that this machine can resolve names",
    ),
    pycurl.E_COULDNT_CONNECT: (
        "CannotConnect",
        "Check that the network and the firewall let this machine reach that port",
    ),
    pycurl.E_SSL_CACERT: (
        "CertificateNotTrusted",
        "Check the machine's clock and its trusted certificates (SSL_CERT_FILE)",
    ),
    pycurl.E_SSL_CACERT_BADFILE: (
        "NoTrustedCertificates",
        "Check that the file with trusted certificates exists and can be read",
    ),
    pycurl.E_SSL_CERTPROBLEM: (
        "ClientCertificateUnusable",
        "Check the certificate and its key, and that they belong together",
    ),
    pycurl.E_SSL_CONNECT_ERROR: (
        "NoSecureConnection",
        "The other side does not speak TLS with HTTP/2; check the address and the port",
    ),
    pycurl.E_OPERATION_TIMEDOUT: (
        "TimedOut",
        "Check that the network and the firewall let this machine reach that port",
    ),
}


def _failure(code: int, text: str, *, is_sent: bool) -> NotSent | Lost:
    reason, advice = _ADVICE.get(code, ("ConnectionLost", "It will be tried again"))
    if is_sent:
        reason = "TimedOut" if code == pycurl.E_OPERATION_TIMEDOUT else "ConnectionLost"
        reason = "StreamReset" if code == _HTTP2_STREAM else reason
        return Lost(reason, text)
    return NotSent(reason, f"{text}. {advice}" if text else advice)


def _has_peer(opened: socket.socket) -> bool:
    try:
        opened.getpeername()
    except OSError:
        return False
    return True


def _is_open(opened: socket.socket) -> bool:
    """Return whether the other side has neither ended nor reset the connection, as far as read."""
    try:
        return opened.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _local_port(opened: socket.socket) -> int | None:
    try:
        return int(opened.getsockname()[1])
    except OSError:
        return None
