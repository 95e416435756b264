"""Frames of HTTP/2 (RFC 9113, sections 4, 6 and 7): encoding, decoding and validation."""

import struct
from typing import Final

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
WITH_PRIORITY: Final = 0x20

HEADER_TABLE_SIZE: Final = 0x1
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6

NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
FLOW_CONTROL_ERROR: Final = 0x3
FRAME_SIZE_ERROR: Final = 0x6
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
COMPRESSION_ERROR: Final = 0x9
CALM: Final = 0xB
"""ENHANCE_YOUR_CALM: the peer causes excessive load."""
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

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FIRST_WINDOW: Final = 65535
MOST: Final = 2**31 - 1
"""The largest stream number, and the largest window; the bit above is ignored."""
FRAME_BYTES: Final = 16384
"""The smallest allowed limit of a frame's length: ours, and the peer's initial one."""

HEAD_BYTES: Final = 9
_head: Final = struct.Struct(">HBBBL")  # length (upper and lower part), type, flags, stream
_number: Final = struct.Struct(">L")
_setting: Final = struct.Struct(">HL")
_farewell: Final = struct.Struct(">LL")
write_head: Final = _head.pack

_PRIORITY_BYTES: Final = 5
_EXACT: Final = {PRIORITY: _PRIORITY_BYTES, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
_OF_STREAMS: Final = frozenset({DATA, HEADERS, PRIORITY, RST_STREAM, PUSH_PROMISE, CONTINUATION})
_OF_CONNECTION: Final = frozenset({SETTINGS, PING, GOAWAY})


class ProtocolFault(Exception):  # noqa: N818 - not an error of ours: what the other side did
    """The peer violated the protocol; the connection is unusable.

    ``error`` is the code to report to it.
    """

    def __init__(self, message: str, error: int = PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.error = error


def error_name(code: int) -> str:
    """Return RFC 9113's name of an error code."""
    return _ERRORS[code] if code < len(_ERRORS) else f"error {code}"


def frame(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    """Return an encoded frame."""
    size = len(payload)
    return write_head(size >> 8, size & 0xFF, kind, flags, number) + payload


def rst_stream(number: int, error: int) -> bytes:
    """Return the RST_STREAM that ends a stream."""
    return frame(RST_STREAM, 0, number, _number.pack(error))


def window_update(number: int, increment: int) -> bytes:
    """Return the WINDOW_UPDATE that enlarges the peer's window."""
    return frame(WINDOW_UPDATE, 0, number, _number.pack(increment))


def settings(values: dict[int, int]) -> bytes:
    """Return the SETTINGS frame for the peer."""
    return frame(SETTINGS, 0, 0, b"".join(_setting.pack(*pair) for pair in values.items()))


def goaway(error: int) -> bytes:
    """Return the GOAWAY of a client: a server opens no streams, so none was processed."""
    return frame(GOAWAY, 0, 0, _farewell.pack(0, error))


def check(kind: int, flags: int, number: int, size: int) -> None:
    """Raise :class:`ProtocolFault` for a frame of a wrong length or in a wrong place."""
    wanted = _EXACT.get(kind, size)
    if kind == SETTINGS:
        wanted = 0 if flags & ACK else size - size % _setting.size
    elif kind == GOAWAY:
        wanted = max(size, _farewell.size)
    if size != wanted:
        raise ProtocolFault(f"a frame of type {kind} is {size} bytes long", FRAME_SIZE_ERROR)
    if number and kind in _OF_CONNECTION:
        raise ProtocolFault(f"a frame of type {kind} came on stream {number}")
    if not number and kind in _OF_STREAMS:
        raise ProtocolFault(f"a frame of type {kind} came without a stream")


def unpadded(kind: int, flags: int, payload: bytes) -> bytes:
    """Return the content of a DATA or HEADERS frame; raises :class:`ProtocolFault`."""
    begin, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise ProtocolFault("a frame has no room for its padding", FRAME_SIZE_ERROR)
        begin, end = 1, end - payload[0]
    if kind == HEADERS and flags & WITH_PRIORITY:
        begin += _PRIORITY_BYTES
    if begin > end:
        raise ProtocolFault("the padding is longer than its frame")
    return payload[begin:end]


def read_increment(payload: bytes) -> int:
    """Return the increment of a WINDOW_UPDATE."""
    return int.from_bytes(payload, "big") & MOST


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return the pairs of a SETTINGS frame, in order."""
    return list(_setting.iter_unpack(payload))


def read_goaway(payload: bytes) -> tuple[int, int, bytes]:
    """Return the last stream, the error and the debug text of a GOAWAY."""
    last, error = _farewell.unpack_from(payload)
    return last & MOST, error, payload[_farewell.size :]
