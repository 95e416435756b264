"""The sending half of HTTP/2: requests, within the peer's settings and flow-control windows.

The two frames of a push are written together, since anything else would cost more than the push. A
body held back by a window waits; nothing further is begun until it is sent.
"""

from typing import Final, Generic, TypeVar

from . import http2_frames as wire
from .http2_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    FIRST_WINDOW,
    FRAME_BYTES,
    HEADERS,
    MOST,
    ProtocolFault,
)
from .http2_headers import HeaderWriter
from .http2_values import Request

T = TypeVar("T")

MOST_BLOCK_BYTES: Final = 8192
"""The longest header block of an answer; APNs sends less than 300 bytes."""
_FIRST_STREAMS: Final = 100  # until the peer's SETTINGS (RFC 9113 advises to allow no fewer)
_LONGEST_FRAME: Final = 2**24 - 1
_write_head: Final = wire.write_head


class Http2Sender(Generic[T]):
    """The requests on the wire of one connection.

    ``streams`` holds their items by stream, the oldest first; ``max_streams`` is how many of them
    the peer allows. ``is_left`` means that no further stream may be begun.
    """

    def __init__(self, authority: str) -> None:
        self.streams: dict[int, T] = {}
        self.max_streams = _FIRST_STREAMS
        self.is_left = False
        self._writer = HeaderWriter(authority)
        self._next = 1
        self._window = FIRST_WINDOW
        self._stream_window = FIRST_WINDOW
        self._frame_bytes = FRAME_BYTES
        self._held: dict[int, tuple[bytes, int]] = {}  # the rest of a body, and its window
        settings = {
            wire.HEADER_TABLE_SIZE: 0,
            wire.ENABLE_PUSH: 0,
            wire.MAX_HEADER_LIST_SIZE: MOST_BLOCK_BYTES,
        }
        self._out: list[bytes] = [wire.PREFACE, wire.settings(settings)]

    @property
    def room(self) -> int:
        """Return how many more requests the peer accepts now."""
        if self._held or self.is_left:
            return 0
        left = (MOST - self._next) // 2 + 1
        return max(0, min(self.max_streams - len(self.streams), left))

    @property
    def is_spent(self) -> bool:
        """Return whether no further stream can be opened: GOAWAY, or stream ids exhausted."""
        return self.is_left or self._next > MOST

    @property
    def last_stream(self) -> int:
        """Return the number of the last opened stream."""
        return self._next - 2

    def to_send(self) -> bytes:
        """Return the bytes to write now, and clear them."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def open(self, item: T, request: Request) -> None:
        """Put a request on the wire; :attr:`room` has to be above 0.

        Raises ValueError or TypeError, with nothing written, when it cannot be encoded.
        """
        path, shared, own, body = request
        size = len(body)
        block = self._writer.block(path, shared, own)
        number = self._next
        self._next = number + 2
        self.streams[number] = item
        length = len(block)
        if length > FRAME_BYTES or not 0 < size <= min(
            self._window, self._stream_window, FRAME_BYTES
        ):
            self._open_in_parts(number, block, body)
            return
        self._window -= size
        self._out += (
            _write_head(length >> 8, length & 0xFF, HEADERS, END_HEADERS, number),
            block,
            _write_head(size >> 8, size & 0xFF, DATA, END_STREAM, number),
            body,
        )

    def ping(self) -> None:
        """Send a PING; any received frame counts as its answer."""
        self._out.append(wire.frame(wire.PING, 0, 0, b"handbell"))

    def send_goaway(self, error: int = wire.NO_ERROR) -> None:
        """Announce to the peer that the connection is going to be closed."""
        self._out.append(wire.goaway(error))

    def _open_in_parts(self, number: int, block: bytes, body: bytes) -> None:
        kind, flags = HEADERS, 0 if body else END_STREAM
        while len(block) > FRAME_BYTES:
            self._out.append(wire.frame(kind, flags, number, block[:FRAME_BYTES]))
            block = block[FRAME_BYTES:]
            kind, flags = wire.CONTINUATION, 0
        self._out.append(wire.frame(kind, flags | END_HEADERS, number, block))
        if body:
            self._held[number] = (body, self._stream_window)
            self._pump()

    def _pump(self) -> None:
        """Send as much of the waiting bodies as the windows allow."""
        for number, (body, window) in tuple(self._held.items()):
            sent = 0
            while (
                size := min(len(body) - sent, window - sent, self._window, self._frame_bytes)
            ) > 0:
                flags = END_STREAM if sent + size == len(body) else 0
                self._out.append(wire.frame(DATA, flags, number, body[sent : sent + size]))
                self._window -= size
                sent += size
            if sent < len(body):
                self._held[number] = (body[sent:], window - sent)
            else:
                del self._held[number]

    # -- the peer's limits -----------------------------------------------------------------------

    def _follow(self, settings: list[tuple[int, int]]) -> None:
        """Apply the peer's settings and acknowledge them."""
        for name, value in settings:
            if name == wire.MAX_CONCURRENT_STREAMS:
                self.max_streams = value
            elif name == wire.HEADER_TABLE_SIZE:
                self._writer.resize(value)
            elif name == wire.INITIAL_WINDOW_SIZE:
                self._change_stream_windows(value)
            elif name == wire.MAX_FRAME_SIZE:
                if not FRAME_BYTES <= value <= _LONGEST_FRAME:
                    raise ProtocolFault(f"the limit of a frame's length cannot be {value}")
                self._frame_bytes = value
            elif name == wire.ENABLE_PUSH and value:
                raise ProtocolFault("the server enables server push for itself")
        self._out.append(wire.frame(wire.SETTINGS, wire.ACK, 0))
        self._pump()

    def _change_stream_windows(self, size: int) -> None:
        change = size - self._stream_window
        widest = max((window for _, window in self._held.values()), default=0)
        if max(size, widest + change) > MOST:
            raise ProtocolFault(f"a window cannot be {size}", wire.FLOW_CONTROL_ERROR)
        self._stream_window = size
        for number, (body, window) in self._held.items():
            self._held[number] = (body, window + change)

    def _widen(self, increment: int) -> None:
        if not 0 < increment <= MOST - self._window:
            error = wire.FLOW_CONTROL_ERROR if increment else wire.PROTOCOL_ERROR
            raise ProtocolFault(f"the window cannot be widened by {increment}", error)
        self._window += increment
        self._pump()

    def _widen_stream(self, number: int, increment: int) -> bool:
        """Enlarge the window of one stream; return whether that was legal."""
        if not increment:
            return False
        if (held := self._held.get(number)) is not None:
            body, window = held
            if increment > MOST - window:
                return False
            self._held[number] = (body, window + increment)
            self._pump()
        return True
