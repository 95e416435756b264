"""A request and its response, as ASGI events."""

import asyncio
import logging
from http import HTTPStatus
from typing import Any, Final, Protocol

from .error_responses import STATUS_LINES

STREAM: Final = "handbell.request.stream"
"""An ASGI extension: a message of this type declares that the body is a stream.

Its total time is not limited then, only each pause in it. The sender has checked that the
route takes streams and that its caller may use it.
"""
EXTENSIONS: Final[dict[str, dict[str, Any]]] = {STREAM: {}}
HELD_BYTES: Final = 65_536
"""The size of unread body data at which reading from the client pauses."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_NO_BODY: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})
_MISTAKE: Final = b"Internal Server Error"

_log = logging.getLogger(__name__)


class ResponseTransport(Protocol):
    """What an exchange needs from its connection."""

    @property
    def is_stopping(self) -> bool:
        """Return whether connections close after the current response."""

    @property
    def date_line(self) -> bytes:
        """Return the Date header."""

    def write(self, data: bytes) -> None:
        """Write bytes of the response."""

    def want_more(self) -> None:
        """Resume reading."""

    def writable(self) -> asyncio.Event | None:
        """Return an event that is set when the client reads again; None while it does."""

    def done(self, exchange: "RequestCycle") -> None:
        """Handle the end of a response."""

    def abort(self) -> None:
        """Abort the connection."""


class RequestCycle:
    """A request and its response. ``is_last`` means that the connection closes afterwards.

    ``is_whole`` means that the request is complete, ``is_gone`` that the client has left,
    ``is_started`` that the response has begun, ``is_over`` that it is complete.
    """

    __slots__ = (
        "_expects",
        "_has_body",
        "_head",
        "_held",
        "_is_chunked",
        "_is_end_received",
        "_is_head",
        "_left",
        "_pieces",
        "_signal",
        "_wire",
        "is_answering",
        "is_gone",
        "is_last",
        "is_over",
        "is_started",
        "is_stream",
        "is_whole",
        "scope",
    )

    def __init__(
        self,
        wire: ResponseTransport,
        scope: dict[str, Any],
        *,
        is_last: bool,
        expects_continue: bool,
    ) -> None:
        self._wire = wire
        self.scope = scope
        self.is_last = is_last
        self._expects = expects_continue
        self._pieces: list[bytes] = []
        self._held = 0
        self._is_end_received = False
        # An application may treat HEAD as GET, and change the scope.
        self._is_head = scope["method"] == "HEAD"
        self._signal: asyncio.Event | None = None
        self.is_whole = self.is_gone = self.is_stream = False
        self.is_answering = self.is_started = self.is_over = False
        # A head with a known length is written together with its body.
        self._head = b""
        self._has_body = self._is_chunked = False
        self._left: int | None = None

    # Input from the connection

    def feed(self, piece: bytes) -> bool:
        """Add a piece of the body; return whether reading should pause."""
        self._pieces.append(piece)
        self._held += len(piece)
        self._wake()
        return self._held > HELD_BYTES

    def complete(self) -> None:
        """Mark the request as complete."""
        self.is_whole = True
        self._wake()

    def leave(self) -> None:
        """Mark the client as gone."""
        self.is_gone = True
        self._wake()

    def _wake(self) -> None:
        if self._signal is not None:
            self._signal.set()

    # ASGI

    async def run(self, app: Any) -> None:
        """Run the application; an incomplete response becomes a 500."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._wire.abort()
            raise
        except Exception:  # noqa: BLE001 - whatever it is, its client gets an answer
            _log.exception("Application raised an error")
        else:
            if not (self.is_over or self.is_gone):
                _log.error("Application returned without a complete response")
        if not (self.is_over or self.is_gone):
            self._fail()

    async def receive(self) -> dict[str, Any]:
        """Return the next ASGI event: body received since the last call, or a disconnect."""
        if self._expects:
            self._expects = False
            if not (self.is_whole or self.is_answering or self.is_gone):
                self._wire.write(_CONTINUE)
        while not (
            self._pieces
            or (self.is_whole and not self._is_end_received)
            or self.is_gone
            or self.is_over
        ):
            if self._signal is None:
                self._signal = asyncio.Event()
            self._signal.clear()
            self._wire.want_more()
            await self._signal.wait()
        if self.is_gone or self.is_over:
            return {"type": "http.disconnect"}
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces, self._held = [], 0
        self._is_end_received = self.is_whole
        return {"type": "http.request", "body": body, "more_body": not self.is_whole}

    async def send(self, message: Any) -> None:
        """Write a part of the response, once the client has read the earlier ones."""
        while not self.is_gone and (writable := self._wire.writable()) is not None:
            await writable.wait()
        kind = message["type"]
        if kind == STREAM:
            self.is_stream = True
        elif self.is_gone or (self._is_head and self.is_over):
            return
        elif kind == "http.response.start" and not self.is_answering:
            self._start(message["status"], message.get("headers", ()))
        elif kind == "http.response.body" and self.is_answering and not self.is_over:
            self._write(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"{kind} was not expected")

    def _start(self, status: int, headers: Any) -> None:
        wire = self._wire
        self.is_answering = True
        lines = [STATUS_LINES[status], wire.date_line]
        length: int | None = None
        for name, value in headers:
            if name == b"content-length":
                length = int(value)
            elif name == b"connection":
                self.is_last = self.is_last or value.lower() == b"close"
                continue
            lines.append(b"%b: %b\r\n" % (name, value))
        # A client that waits for 100 Continue may send another request instead of the body.
        if wire.is_stopping or (self._expects and not self.is_whole):
            self.is_last = True
        self._has_body = status not in _NO_BODY and not self._is_head
        if length is None and self._has_body:
            self._is_chunked = self.scope["http_version"] == "1.1"
            self.is_last = self.is_last or not self._is_chunked
            if self._is_chunked:
                lines.append(b"transfer-encoding: chunked\r\n")
        if self.is_last:
            lines.append(b"connection: close\r\n")
        head = b"".join(lines)
        if not head.count(b"\n") == head.count(b"\r") == len(lines):
            self.is_answering = False
            raise RuntimeError("A header of the response contains a line break")
        self._left = length
        self._head = head + b"\r\n"
        if length is None:
            self._flush(b"")

    def _write(self, body: bytes, *, more: bool) -> None:
        data = b""
        if self._is_chunked:
            data = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            data += b"" if more else b"0\r\n\r\n"
        elif self._has_body:
            data = body
            if self._left is not None:
                self._left -= len(body)
                if self._left < 0 or (self._left and not more):
                    raise RuntimeError("The length of the response differs from its Content-Length")
        self._flush(data)
        if not more or self._is_head:
            self.is_over = True
            self._wake()
            self._wire.done(self)

    def _flush(self, data: bytes) -> None:
        if self._head or data:
            self.is_started = True
            self._wire.write(self._head + data)
            self._head = b""

    def _fail(self) -> None:
        if self.is_started:
            self._wire.abort()
            return
        self._head, self._is_chunked, self.is_last = b"", False, True
        self._start(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            [
                (b"content-type", b"text/plain"),
                (b"content-length", str(len(_MISTAKE)).encode("ascii")),
            ],
        )
        self._write(_MISTAKE, more=False)
