"""Connections with bounds: how large a head may be, and how long a client may take.

uvicorn reads each connection with httptools and bounds neither. Here every connection notes what it
waits for, and one task looks at all of them each second, so that a request costs next to nothing
more and a slow client costs others nothing.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from handbell.errors import (
    HandbellError,
    HeadersTooLargeError,
    RateLimitedError,
    RequestError,
    RequestTimeoutError,
)

from .problems import problem_of

_HOST: Final = b"host"
_STREAM_TYPE: Final = b"application/x-ndjson"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a client may do; sizes in bytes, times in seconds.

    ``head_seconds`` bounds the time from a connection's opening, or from a request's first byte, to
    the end of its headers; ``body_seconds`` the time for a whole body that is no stream;
    ``idle_seconds`` the pause within a stream, and how long an answer may find no reader.
    ``connections`` is for one address, and not for trusted proxies; ``pipelined`` is how many
    requests may wait on one connection.
    """

    head_bytes: int = 32_768
    headers: int = 100
    head_seconds: float = 10.0
    body_seconds: float = 60.0
    idle_seconds: float = 60.0
    connections: int = 500
    pipelined: int = 100
    look_seconds: float = 1.0


class BoundedProtocol(HttpToolsProtocol):
    """A connection that keeps to :class:`Bounds`; made by :func:`bounded_protocol`."""

    bounds: ClassVar[Bounds]
    exempt: ClassVar[Any]
    """Says of an address whether it may open as many connections as it likes."""
    open_by_address: ClassVar[Counter[str]]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # uvicorn writes whole addresses, some of them secrets, as soon as any handler is there.
        self.access_log = False
        self._refusal: HandbellError | None = None
        # When what is waited for began; None while nothing is.
        self._head_since: float | None = None
        self._body_since: float | None = None
        self._fed_at = 0.0
        self._stuck_since: float | None = None
        self._closing_since: float | None = None
        # What came of a head that is not complete; what of it was parsed; what of the piece at
        # hand belongs to the head that begins in it.
        self._head_raw = 0
        self._head_begun = 0
        self._head_parsed = 0
        self._hosts = 0
        self._address = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, unless the address has too many connections already."""
        super().connection_made(transport)
        self._head_since = self.loop.time()
        self._address = self.client[0] if self.client else ""
        self.open_by_address[self._address] += 1
        too_many = self.open_by_address[self._address] > self.bounds.connections
        if too_many and not self.exempt(self._address):
            self._answer(
                RateLimitedError(
                    "There are too many connections from this address",
                    fix="Use the ones that are open",
                    retry_after=self.bounds.head_seconds,
                )
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.open_by_address[self._address] -= 1
        if not self.open_by_address[self._address]:
            del self.open_by_address[self._address]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, as long as the head is within its bounds."""
        if self.transport.is_closing():
            return
        self._fed_at = self.loop.time()
        if self._head_since is None and self._body_since is None and self._is_at_rest:
            self._head_since = self._fed_at
        # Behind a body in one piece, how much of it is the next head is not known, and not much.
        self._head_begun = 0 if self._body_since is not None else len(data)
        self._head_raw += len(data)
        super().data_received(data)
        is_over = self._head_since is not None and self._head_raw > self.bounds.head_bytes
        if is_over and not self.transport.is_closing():
            self._answer(_too_large(self.bounds))

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        super().on_message_begin()
        self._head_since = self.loop.time()
        self._head_raw, self._head_begun, self._head_parsed = self._head_begun, 0, 0
        self._hosts = 0

    def on_url(self, url: bytes) -> None:
        """Take a part of the request's target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._count(len(name) + len(value) + 4)
        if len(self.headers) >= self.bounds.headers:
            self._refuse_head()
        self._hosts += len(name) == len(_HOST) and name.lower() == _HOST
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Note that the head is done and a body may follow."""
        # RFC 9112, 3.2; before HTTP/1.1 there may be none.
        if self._hosts > 1 or (not self._hosts and self.parser.get_http_version() == "1.1"):
            self._refusal = RequestError(
                f"The request has {self._hosts or 'no'} Host headers", fix="Send exactly one"
            )
            raise self._refusal
        self._head_since = None
        self._body_since = self.loop.time()
        if len(self.pipeline) >= self.bounds.pipelined:
            # An answer would stand in the midst of another one's.
            self.transport.abort()
            raise RequestError("Too many requests wait on one connection")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that nothing more belongs to the request."""
        self._body_since = None
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Note that the client does not read what it asked for."""
        self._stuck_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that it reads again."""
        self._stuck_since = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what could not be parsed, or was refused while it was."""
        if self.transport.is_closing():
            return
        refusal = self._refusal or RequestError(
            "The request is not HTTP that can be understood", fix=f"The parser says: {msg}"
        )
        self._answer(refusal)

    def look(self, now: float) -> None:
        """End the connection when its client takes too long."""
        bounds = self.bounds
        if self.transport.is_closing():
            # What was written before the end may find no reader for ever.
            self._closing_since = self._closing_since or now
            if now - self._closing_since > bounds.idle_seconds:
                self.transport.abort()
        elif self._stuck_since is not None and now - self._stuck_since > bounds.idle_seconds:
            self.transport.abort()
        elif self._head_since is not None:
            if self._is_at_rest and now - self._head_since > bounds.head_seconds:
                self._time_out("The head of the request")
        elif self._body_since is not None:
            self._look_at_body(now)

    def _look_at_body(self, now: float) -> None:
        if self.flow.read_paused:
            # It is we who do not read: the handler is busy with what came before.
            self._body_since = self._fed_at = now
        elif any(name == b"content-type" and _STREAM_TYPE in value for name, value in self.headers):
            if now - self._fed_at > self.bounds.idle_seconds:
                self._time_out("The next line of the stream")
        elif self._body_since is not None and now - self._body_since > self.bounds.body_seconds:
            self._time_out("The body of the request")

    @property
    def _is_at_rest(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def _time_out(self, what: str) -> None:
        # Whoever has sent nothing waits for no answer, and a second answer would help nobody.
        if self._head_since is not None:
            is_pointless = self._head_raw == 0
        else:
            is_pointless = self.cycle.response_started
        if is_pointless:
            self.transport.close()
        else:
            self._answer(RequestTimeoutError(f"{what} did not arrive in time", fix="Send it again"))

    def _count(self, size: int) -> None:
        self._head_parsed += size
        if self._head_parsed > self.bounds.head_bytes:
            self._refuse_head()

    def _refuse_head(self) -> None:
        self._refusal = _too_large(self.bounds)
        raise self._refusal

    def _answer(self, error: HandbellError) -> None:
        answer = problem_of(error, {"Connection": "close", "Cache-Control": "no-store"})
        head = [STATUS_LINE[answer.status_code]]
        head += [name + b": " + value + b"\r\n" for name, value in answer.raw_headers]
        self.transport.write(b"".join([*head, b"\r\n", bytes(answer.body)]))
        self.transport.close()


def _too_large(bounds: Bounds) -> HeadersTooLargeError:
    return HeadersTooLargeError(
        f"The head of the request has more than {bounds.head_bytes} bytes or "
        f"{bounds.headers} headers",
        fix="Send less in the address and the headers",
    )


def bounded_protocol(bounds: Bounds, exempt: Any) -> type[BoundedProtocol]:
    """Return a class of connections for one server; ``exempt`` is called with an address."""
    return type(
        "ServerProtocol",
        (BoundedProtocol,),
        {"bounds": bounds, "exempt": staticmethod(exempt), "open_by_address": Counter()},
    )


async def look_after(connections: set[Any], bounds: Bounds) -> None:
    """Look at the connections of a server again and again, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(bounds.look_seconds)
        now = loop.time()
        for connection in list(connections):
            connection.look(now)
