"""One HTTP/2 connection, and the injected faults, frame by frame.

Built on ``h2``, so that faults can be injected. It knows no rule of a push service: complete
requests go to the side, and its answers are sent.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, cast

from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import H2Error, ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame, PingFrame

from handbell.twin.faults import Fault

from .exchange import Request, TwinResponse
from .side import Port

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
KEPT_BODY_BYTES: Final = 65_536
MAX_BODY_BYTES: Final = 1_048_576

_CLOSING_SECONDS: Final = 1.0
"""How long a client may take to read pending data before the connection is closed."""
_LAST_PING: Final = b"lastread"
_LAST_PING_ACK: Final = PingFrame(opaque_data=_LAST_PING, flags=["ACK"]).serialize()
_WINDOW_BYTES: Final = 1_048_576

logger = logging.getLogger(__name__)


class _H2(H2Connection):
    """An ``H2Connection`` without a stream limit of its own, which answers after a GOAWAY.

    h2 ends the connection for one stream too many; RFC 9113, 5.1.2, allows to refuse that stream
    only, as Apple's servers do. And h2 sends nothing after a client's GOAWAY, although RFC 9113,
    6.8, lets open streams finish.
    """

    def events_of(self, data: bytes) -> list[Event]:
        """Process data as ``receive_data`` does, except that a GOAWAY ends no stream."""
        events = self.receive_data(data)
        if any(isinstance(event, ConnectionTerminated) for event in events):
            self.state_machine.state = ConnectionState.SERVER_OPEN
        return events

    @property
    def open_inbound_streams(self) -> int:
        """Return 0, after cleaning up closed streams, which this count triggers."""
        return min(0, super().open_inbound_streams)


@dataclass(slots=True)
class _Stream:
    """A request being received, or its answer being sent."""

    headers: tuple[tuple[str, str], ...]
    body: bytearray = field(default_factory=bytearray)
    size: int = 0
    pending: bytes = b""

    def add(self, data: bytes) -> None:
        self.size += len(data)
        self.body += data[: max(0, KEPT_BODY_BYTES - len(self.body))]

    def request(self) -> Request:
        pseudo = {name: value for name, value in self.headers if name.startswith(":")}
        plain = tuple((name, value) for name, value in self.headers if not name.startswith(":"))
        return Request(
            pseudo.get(":method", ""),
            pseudo.get(":path", ""),
            plain,
            bytes(self.body),
            self.size,
            pseudo.get(":authority", "") or dict(plain).get("host", ""),
        )


class Http2Connection(asyncio.Protocol):
    """One connection. A hostile client can end this connection at worst."""

    def __init__(self, server: Port) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._h2 = _H2(H2Configuration(client_side=False, header_encoding=None))
        self._streams: dict[int, _Stream] = {}
        self._timers: set[asyncio.TimerHandle] = set()
        self._memory: Any = None
        self._limit = 0
        self._is_limited = False
        self._is_flushing = False
        self._is_closing = self._is_deaf = False
        self._last_stream: int | None = None
        self._heard_at = self._loop.time()
        self._transport: asyncio.Transport | None = None

    # Connection lifecycle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over an open connection."""
        # uvloop's transports have asyncio.Transport's methods but another base class.
        transport = self._transport = cast("asyncio.Transport", transport)
        side = self._server.side
        session = transport.get_extra_info("ssl_object")
        self._memory = side.connect(session.getpeercert(binary_form=True))
        self._limit = side.streams(self._memory)
        self._greet()
        self._watch_idle()

    def _greet(self) -> None:
        """Send the first SETTINGS."""
        self._h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: self._limit,
                SettingCodes.MAX_HEADER_LIST_SIZE: H2Connection.DEFAULT_MAX_HEADER_LIST_SIZE,
            },
        )
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_WINDOW_BYTES)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's name
        """Forget what was pending."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._streams.clear()
        self._server.discard(self)

    def pause_writing(self) -> None:
        """Stop reading from a client that does not read its answers."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        if self._transport is not None:
            self._transport.resume_reading()

    def shut_down(self) -> None:
        """Announce the shutdown, and close once open streams are answered."""
        if self._last_stream is None:
            self._go_away("Shutdown", self._h2.highest_inbound_stream_id)
        self._close_when_done()

    def abort(self) -> None:
        """Cut the TCP connection."""
        if self._transport is not None:
            self._transport.abort()

    def _later(self, seconds: float, function: Callable[..., object], *args: Any) -> None:
        def run() -> None:
            self._timers.discard(timer)
            function(*args)
            # A thousand answers may be due at once, and the client may be gone.
            if not self._is_flushing:
                self._is_flushing = True
                self._loop.call_soon(self._flush)

        timer = self._loop.call_later(seconds, run)
        self._timers.add(timer)

    def _watch_idle(self) -> None:
        left = self._heard_at + self._server.idle_seconds - self._loop.time()
        if left > 0:
            self._later(left, self._watch_idle)
        elif not self._is_closing:
            self._go_away("IdleTimeout", self._h2.highest_inbound_stream_id)
            self._close()

    # Received frames

    def data_received(self, data: bytes) -> None:
        """Process what the client sent."""
        self._heard_at = self._loop.time()
        if self._is_deaf:
            if _LAST_PING_ACK in data and self._transport is not None:
                self._transport.close()
            return
        try:
            for event in self._h2.events_of(data):
                self._on_event(event)
        except H2Error:
            self._break_off()
        except Exception:
            logger.exception("Twin connection failed on a request")
            self._break_off()
        self._flush()

    def _break_off(self) -> None:
        """Close, and ignore everything until then."""
        self._is_deaf = True
        self._close()

    def _close(self) -> None:
        """Close when the client has read everything, which its answer to a PING proves.

        Closing while the client still sends causes a TCP reset, which discards what the client has
        not read yet: an answer, or GOAWAY.
        """
        self._flush()
        if not self._is_closing and self._transport is not None:
            self._is_closing = True
            self._transport.write(PingFrame(opaque_data=_LAST_PING).serialize())
            self._later(_CLOSING_SECONDS, self._transport.close)

    def _on_event(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self._on_request(event)
            case DataReceived():
                self._on_data(event)
            case StreamEnded():
                self._on_end(event.stream_id)
            case StreamReset():
                self._streams.pop(event.stream_id, None)
            case WindowUpdated() | RemoteSettingsChanged():
                self._send_pending()
            case ConnectionTerminated():
                if self._last_stream is None:
                    self._last_stream = self._h2.highest_inbound_stream_id
                self._close_when_done()
            case PingAckReceived(ping_data=data) if self._is_closing and data == _LAST_PING:
                if self._transport is not None:
                    self._transport.close()

    def _on_request(self, event: RequestReceived) -> None:
        number = event.stream_id
        if self._last_stream is not None and number > self._last_stream:
            return
        if len(self._streams) >= self._limit:
            self._h2.reset_stream(number, ErrorCodes.REFUSED_STREAM)
            return
        self._streams[number] = _Stream(tuple(_texts(event.headers)))

    def _on_data(self, event: DataReceived) -> None:
        self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        stream.add(event.data)
        if stream.size > MAX_BODY_BYTES:
            self._reset(event.stream_id, ErrorCodes.ENHANCE_YOUR_CALM)

    def _on_end(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        side = self._server.side
        exchange, self._memory = side.handle(stream.request(), self._memory)
        stream.body.clear()
        allowed = side.streams(self._memory)
        if allowed != self._limit and not self._is_limited:
            self._set_limit(allowed)
        if exchange.fault is None:
            self._answer(number, exchange.answer)
        else:
            self._strike(number, exchange.answer, exchange.fault)

    # Sent frames

    def _strike(self, number: int, answer: TwinResponse | None, fault: Fault) -> None:
        match fault.kind:
            case "slow":
                self._later(fault.seconds or 0.0, self._answer, number, answer)
            case "silence":
                pass
            case "cut-answer":
                self._answer(number, answer, is_cut=True)
                self._reset(number, ErrorCodes.INTERNAL_ERROR)
            case "reset":
                self._reset(number, ErrorCodes.INTERNAL_ERROR)
            case "refuse-stream":
                self._reset(number, ErrorCodes.REFUSED_STREAM)
            case "stream-limit":
                self._is_limited = True
                self._set_limit(fault.limit or 0)
                self._answer(number, answer)
            case "goaway":
                self._leave(number, answer, fault)
            case "cut":
                self.abort()
            case _:
                self._answer(number, answer)

    def _leave(self, number: int, answer: TwinResponse | None, fault: Fault) -> None:
        """Send GOAWAY after this stream, or before it: then it and later ones are unprocessed."""
        self._go_away(fault.reason or "Shutdown", number if fault.graceful else number - 2)
        if fault.graceful:
            self._answer(number, answer)
        self._streams = {
            begun: stream
            for begun, stream in self._streams.items()
            if begun <= (self._last_stream or 0)
        }
        self._close_when_done()

    def _go_away(self, reason: str, last_stream: int) -> None:
        """Send GOAWAY with the reason; it bypasses ``h2``, which would send nothing after it."""
        self._last_stream = max(0, last_stream)
        self._flush()
        frame = GoAwayFrame(
            last_stream_id=self._last_stream,
            additional_data=self._server.side.farewell(reason),
        )
        if self._transport is not None:
            self._transport.write(frame.serialize())

    def _close_when_done(self) -> None:
        if self._last_stream is not None and not self._streams:
            self._close()

    def _set_limit(self, limit: int) -> None:
        self._limit = limit
        self._h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: limit})

    def _reset(self, number: int, code: ErrorCodes) -> None:
        if self._streams.pop(number, None) is not None:
            self._h2.reset_stream(number, code)
            self._close_when_done()

    def _answer(self, number: int, answer: TwinResponse | None, *, is_cut: bool = False) -> None:
        stream = self._streams.get(number)
        if stream is None or answer is None:
            return
        headers = [(":status", str(answer.status)), *answer.headers]
        try:
            self._h2.send_headers(number, headers, end_stream=not (answer.body or is_cut))
        except ProtocolError:
            self._streams.pop(number, None)
            return
        if is_cut:
            room = min(len(answer.body) // 2, self._h2.local_flow_control_window(number))
            self._h2.send_data(number, answer.body[: max(0, room)])
            return
        stream.pending = answer.body
        self._send_body(number, stream)

    def _send_body(self, number: int, stream: _Stream) -> None:
        """Send as much of the body as the client's windows allow; the rest follows later."""
        if stream.pending:
            room = self._h2.local_flow_control_window(number)
            # A client may make its window negative (RFC 9113, 6.9.2).
            part = stream.pending[: max(0, min(room, self._h2.max_outbound_frame_size))]
            stream.pending = stream.pending[len(part) :]
            if part:
                self._h2.send_data(number, part, end_stream=not stream.pending)
        if not stream.pending:
            self._streams.pop(number, None)
            self._close_when_done()

    def _send_pending(self) -> None:
        for number, stream in list(self._streams.items()):
            if stream.pending:
                self._send_body(number, stream)

    def _flush(self) -> None:
        self._is_flushing = False
        data = self._h2.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _texts(headers: Iterable[tuple[Any, Any]]) -> Iterable[tuple[str, str]]:
    for name, value in headers:
        yield name.decode(errors="replace"), value.decode(errors="replace")
