"""HTTP/2 (RFC 9113) as a sender of small requests speaks it: bytes in, ends out, without a socket.

This is the half of the protocol that a gateway needs: POST requests whose body is at hand, answers
that are short. Frames that come seldom are read and written by ``hyperframe``, header blocks by
``hpack``; the two that make up a push, and the one that answers it, are written and read here, as
everything else would cost more than the push. An answer 200 without a body is known by its first
byte.
"""

import struct
from collections.abc import Iterable
from typing import Final, Generic, NamedTuple, TypeVar

from hpack import HPACKError
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from .http2_headers import HeaderWriter, header_reader, read_block
from .http2_values import MAX_BODY_BYTES, Answer, End, Lost, Request

T = TypeVar("T")

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MOST_STREAM_ID: Final = 2**31 - 1

_MOST_FRAME_BYTES: Final = 16384  # the smallest limit there is: ours, and the other side's at first
_FIRST_WINDOW: Final = 65535
_MOST_WINDOW: Final = 2**31 - 1
_MOST_BLOCK_BYTES: Final = 65536
_FIRST_STREAMS: Final = 100  # until the other side says (RFC 9113 advises to allow no fewer)
_OK: Final = 200
_FINAL: Final = 200  # a status below is an interim one
_STATUS_200: Final = 0x88  # entry 8 of HPACK's static table

_DATA: Final = 0x0
_HEADERS: Final = 0x1
_RST_STREAM: Final = 0x3
_CONTINUATION: Final = 0x9
_END_STREAM: Final = 0x1
_END_HEADERS: Final = 0x4
_WHOLE: Final = _END_STREAM | _END_HEADERS

_NO_ERROR: Final = 0x0
_PROTOCOL_ERROR: Final = 0x1
_REFUSED_STREAM: Final = 0x7
_CANCEL: Final = 0x8
_ERRORS: Final = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)

_BARE_OK: Final = Answer(_OK)
_head: Final = struct.Struct(">HBBBL")  # length (upper and lower part), type, flags, stream
_read_head: Final = _head.unpack_from
_write_head: Final = _head.pack


class ProtocolFault(Exception):  # noqa: N818 - not an error of ours: what the other side did
    """The other side broke the protocol; the connection cannot be used any more."""


class Farewell(NamedTuple):
    """A GOAWAY: the name of its code, and what the server says about it."""

    error: str
    text: str


class _Partial:
    """An answer of which the head has come."""

    __slots__ = ("body", "pairs", "status")

    def __init__(self, status: int, pairs: tuple[tuple[bytes, bytes], ...]) -> None:
        self.status = status
        self.pairs = pairs
        self.body = b""


class Session(Generic[T]):
    """One connection's streams, windows and settings, seen from the client.

    ``streams`` holds the items on the wire by stream, the oldest first. What came of them since
    the last look is in ``answered`` (200 and nothing else said), ``ended`` and ``refused`` (the
    server certainly did not process it). ``is_listening`` has the next answer read in full.
    """

    def __init__(self, authority: str, *, is_listening: bool) -> None:
        self.streams: dict[int, T] = {}
        self.answered: list[T] = []
        self.ended: list[tuple[T, End]] = []
        self.refused: list[T] = []
        self.is_listening = is_listening
        self.max_streams = _FIRST_STREAMS
        self.farewell: Farewell | None = None
        self._keeps_listening = is_listening
        self._writer = HeaderWriter(authority)
        self._reader = header_reader()
        self._next = 1
        self._rest = b""
        self._partial: dict[int, _Partial] = {}
        self._block: tuple[int, int, bytearray] | None = None
        self._window = _FIRST_WINDOW
        self._stream_window = _FIRST_WINDOW
        self._frame_bytes = _MOST_FRAME_BYTES
        self._held: dict[int, tuple[bytes, int]] = {}  # what is left of a body, and its window
        self._unread = 0
        settings = {
            SettingsFrame.HEADER_TABLE_SIZE: 0,
            SettingsFrame.ENABLE_PUSH: 0,
            SettingsFrame.MAX_HEADER_LIST_SIZE: _MOST_BLOCK_BYTES,
        }
        self._out: list[bytes] = [PREFACE, SettingsFrame(settings=settings).serialize()]

    @property
    def room(self) -> int:
        """How many more requests the other side would take now."""
        if self._held or self.is_spent:
            return 0
        return max(0, self.max_streams - len(self.streams))

    @property
    def is_spent(self) -> bool:
        """Whether no further stream can be opened: GOAWAY, or the numbers have run out."""
        return self.farewell is not None or self._next > MOST_STREAM_ID

    @property
    def last_stream(self) -> int:
        """The number of the stream that was opened last."""
        return self._next - 2

    def to_send(self) -> bytes:
        """Return what is to be written now; it is forgotten here."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    # -- out -------------------------------------------------------------------------------------

    def open(self, item: T, request: Request) -> None:
        """Put a request on the wire; :attr:`room` has to be more than none.

        Raises ValueError or TypeError, with nothing written, where it cannot be sent as it is.
        """
        path, shared, own, body = request
        block = self._writer.block(path, shared, own)
        number = self._next
        self._next = number + 2
        self.streams[number] = item
        size = len(body)
        length = len(block)
        if length > _MOST_FRAME_BYTES or not 0 < size <= min(
            self._window, self._stream_window, _MOST_FRAME_BYTES
        ):
            self._open_in_parts(number, block, body)
            return
        self._window -= size
        self._out += (
            _write_head(length >> 8, length & 0xFF, _HEADERS, _END_HEADERS, number),
            block,
            _write_head(size >> 8, size & 0xFF, _DATA, _END_STREAM, number),
            body,
        )

    def _open_in_parts(self, number: int, block: bytes, body: bytes) -> None:
        kind, flags = _HEADERS, 0 if body else _END_STREAM
        while len(block) > _MOST_FRAME_BYTES:
            self._write(kind, flags, number, block[:_MOST_FRAME_BYTES])
            block = block[_MOST_FRAME_BYTES:]
            kind, flags = _CONTINUATION, 0
        self._write(kind, flags | _END_HEADERS, number, block)
        if body:
            self._held[number] = (body, self._stream_window)
            self._pump()

    def _pump(self) -> None:
        """Send of the bodies that wait what the windows allow."""
        for number, (body, window) in tuple(self._held.items()):
            sent = 0
            while size := min(len(body) - sent, window - sent, self._window, self._frame_bytes):
                if size < 0:
                    break
                flags = _END_STREAM if sent + size == len(body) else 0
                self._write(_DATA, flags, number, body[sent : sent + size])
                self._window -= size
                sent += size
            if sent < len(body):
                self._held[number] = (body[sent:], window - sent)
            else:
                del self._held[number]

    def cancel(self, numbers: Iterable[int]) -> list[T]:
        """Give up streams, tell the other side, and return what they carried."""
        given_up: list[T] = []
        for number in numbers:
            given_up.append(self._take(number))
            self._out.append(RstStreamFrame(number, error_code=_CANCEL).serialize())
        return given_up

    def ping(self) -> None:
        """Ask for a sign of life; any frame that comes is one."""
        self._out.append(PingFrame(opaque_data=b"handbell").serialize())

    def say_goodbye(self, error: int = _NO_ERROR) -> None:
        """Tell the other side that the connection is going to be closed."""
        self._out.append(GoAwayFrame(error_code=error).serialize())

    def _write(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._out += (_write_head(size >> 8, size & 0xFF, kind, flags, number), payload)

    def _take(self, number: int) -> T:
        self._partial.pop(number, None)
        self._held.pop(number, None)
        return self.streams.pop(number)

    # -- in --------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Read what came; a frame that is not yet whole waits for the rest.

        Raises :class:`ProtocolFault`; what was read before it is still there.
        """
        if self._rest:
            data = self._rest + data
        place, size = 0, len(data)
        take, answered = self.streams.pop, self.answered
        while size - place >= 9:  # noqa: PLR2004 - a frame's head
            high, low, kind, flags, number = _read_head(data, place)
            begin = place + 9
            place = begin + (high << 8 | low)
            if place > size:
                place = begin - 9
                self._check_length(high << 8 | low)
                break
            if (
                kind == _HEADERS
                and flags == _WHOLE
                and data[begin] == _STATUS_200
                and not self.is_listening
                and number in self.streams
                and not self._partial
                and not self._held
                and self._block is None
            ):
                answered.append(take(number))
            elif kind == _RST_STREAM and place - begin == 4 and self._is_over(number):  # noqa: PLR2004
                continue  # some servers end each stream so when they have answered early
            else:
                self._check_length(place - begin)
                self._read(kind, flags, number & _MOST_WINDOW, data[begin - 9 : place])
        self._rest = data[place:]

    def _is_over(self, number: int) -> bool:
        is_ours = number % 2 == 1 and number < self._next
        return is_ours and number not in self.streams and self._block is None

    def _check_length(self, length: int) -> None:
        if length > _MOST_FRAME_BYTES:
            raise ProtocolFault("a frame is longer than allowed")

    def _read(self, kind: int, flags: int, number: int, frame: bytes) -> None:
        if self._block is not None or kind == _CONTINUATION:
            self._continue_block(kind, flags, number, frame[9:])
            return
        try:
            parsed, _ = Frame.parse_frame_header(memoryview(frame)[:9])
            parsed.parse_body(memoryview(frame)[9:])
        except HyperframeError as error:
            raise ProtocolFault(str(error)) from None
        self._handle(parsed, number, len(frame) - 9)

    def _handle(self, frame: Frame, number: int, length: int) -> None:
        match frame:
            case HeadersFrame():
                self._begin_block(frame, number)
            case DataFrame():
                self._read_data(frame, number, length)
            case RstStreamFrame():
                self._reset(number, frame.error_code)
            case WindowUpdateFrame():
                self._widen(number, frame.window_increment)
            case _:
                self._handle_control(frame)

    def _handle_control(self, frame: Frame) -> None:
        match frame:
            case SettingsFrame() if "ACK" not in frame.flags:
                self._follow(frame.settings)
            case PingFrame() if "ACK" not in frame.flags:
                ack = PingFrame(opaque_data=frame.opaque_data, flags=["ACK"])
                self._out.append(ack.serialize())
            case GoAwayFrame():
                self._read_farewell(frame)
            case PushPromiseFrame():
                raise ProtocolFault("a push promise came, though none was allowed")

    def _check_opened(self, number: int) -> None:
        if number % 2 == 0 or number >= self._next:
            raise ProtocolFault(f"a frame came for stream {number}, which was never opened")

    # -- settings and windows --------------------------------------------------------------------

    def _follow(self, settings: dict[int, int]) -> None:
        for name, value in settings.items():
            if name == SettingsFrame.MAX_CONCURRENT_STREAMS:
                self.max_streams = value
            elif name == SettingsFrame.HEADER_TABLE_SIZE:
                self._writer.resize(value)
            elif name == SettingsFrame.INITIAL_WINDOW_SIZE:
                self._change_stream_windows(value)
            elif name == SettingsFrame.MAX_FRAME_SIZE:
                if not _MOST_FRAME_BYTES <= value < 2**24:
                    raise ProtocolFault(f"the limit of a frame's size cannot be {value}")
                self._frame_bytes = value
        self._out.append(SettingsFrame(flags=["ACK"]).serialize())
        self._pump()

    def _change_stream_windows(self, size: int) -> None:
        if size > _MOST_WINDOW:
            raise ProtocolFault(f"a window cannot be {size}")
        change = size - self._stream_window
        self._stream_window = size
        for number, (body, window) in self._held.items():
            self._held[number] = (body, window + change)

    def _widen(self, number: int, increment: int) -> None:
        if number == 0:
            self._window += increment
            if self._window > _MOST_WINDOW:
                raise ProtocolFault("the window has grown beyond what is allowed")
        elif (held := self._held.get(number)) is not None:
            body, window = held
            self._held[number] = (body, window + increment)
        else:
            return
        self._pump()

    # -- answers ---------------------------------------------------------------------------------

    def _begin_block(self, frame: HeadersFrame, number: int) -> None:
        self._check_opened(number)
        flags = _END_STREAM if "END_STREAM" in frame.flags else 0
        if "END_HEADERS" in frame.flags:
            self._read_head(number, bytes(frame.data), is_end=bool(flags))
        else:
            self._block = (number, flags, bytearray(frame.data))

    def _continue_block(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is None or kind != _CONTINUATION or number != self._block[0]:
            raise ProtocolFault("a header block was not finished, or never begun")
        _, first_flags, block = self._block
        block += payload
        if len(block) > _MOST_BLOCK_BYTES:
            raise ProtocolFault("a header block is longer than allowed")
        if flags & _END_HEADERS:
            self._block = None
            self._read_head(number, bytes(block), is_end=bool(first_flags))

    def _read_head(self, number: int, block: bytes, *, is_end: bool) -> None:
        if number not in self.streams:
            return  # it was cancelled; nothing later refers to what its block says
        try:
            pairs = tuple(read_block(self._reader, block))
        except HPACKError as error:
            raise ProtocolFault(f"a header block cannot be read: {error}") from None
        partial = self._partial.get(number)
        if partial is None:
            status = _status(pairs)
            if status is None:
                self._spoil(number)
                return
            if status < _FINAL:
                return
            self.is_listening = self._keeps_listening
            partial = self._partial[number] = _Partial(status, pairs)
        if is_end:
            self._answer(number)

    def _read_data(self, frame: DataFrame, number: int, length: int) -> None:
        self._check_opened(number)
        self._unread += length
        if self._unread >= _FIRST_WINDOW // 2:
            self._out.append(WindowUpdateFrame(0, window_increment=self._unread).serialize())
            self._unread = 0
        if number not in self.streams:
            return
        partial = self._partial.get(number)
        if partial is None:
            self._spoil(number)
            return
        partial.body += frame.data
        if "END_STREAM" in frame.flags:
            self._answer(number)
        elif len(partial.body) >= MAX_BODY_BYTES:
            self._answer(number, is_cut=True)

    def _answer(self, number: int, *, is_cut: bool = False) -> None:
        partial = self._partial[number]
        if is_cut or number in self._held:  # what is left of either body is not wanted any more
            self._out.append(RstStreamFrame(number, error_code=_CANCEL).serialize())
        answer = Answer(partial.status, partial.body[:MAX_BODY_BYTES], partial.pairs)
        self.ended.append((self._take(number), answer))

    def _spoil(self, number: int) -> None:
        self._out.append(RstStreamFrame(number, error_code=_PROTOCOL_ERROR).serialize())
        self.ended.append((self._take(number), Lost("StreamReset", "the answer has no status")))

    def _reset(self, number: int, error: int) -> None:
        self._check_opened(number)
        if number not in self.streams:
            return
        if number in self._partial:  # the receiver has said what it had to say
            self._answer(number)
        elif error == _REFUSED_STREAM:
            self.refused.append(self._take(number))
        else:
            end = Lost("StreamReset", f"the server ended the stream: {_error_name(error)}")
            self.ended.append((self._take(number), end))

    def _read_farewell(self, frame: GoAwayFrame) -> None:
        text = frame.additional_data.decode("utf-8", "replace")
        self.farewell = Farewell(_error_name(frame.error_code), text)
        for number in [each for each in self.streams if each > frame.last_stream_id]:
            self.refused.append(self._take(number))


def _status(pairs: Iterable[tuple[bytes, bytes]]) -> int | None:
    for name, value in pairs:
        if name == b":status":
            return int(value) if value.isdigit() and len(value) == 3 else None  # noqa: PLR2004
    return None


def _error_name(code: int) -> str:
    return _ERRORS[code] if code < len(_ERRORS) else f"error {code}"
