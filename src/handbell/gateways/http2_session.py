"""A client HTTP/2 session (RFC 9113) for small requests: bytes in, ends out, no socket.

It covers what a gateway needs: POST requests with a ready body, and short answers. Requests are
written by the :class:`~handbell.gateways.http2_sender.Http2Sender`; answers are read here. A 200
is recognised by its first bytes, with or without a body, and a 201 without one: reading all of it
would cost more than the push.

An answer is judged by its status and its frames. Whether its headers are in the right order, or
its length is what ``content-length`` said, makes no difference to a push and is not checked.
"""

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple, NoReturn, TypeVar

from hpack import HPACKError, OversizedHeaderListError

from . import http2_frames as wire
from .http2_frames import (
    ACK,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    FIRST_WINDOW,
    FRAME_BYTES,
    HEAD_BYTES,
    HEADERS,
    MOST,
    RST_STREAM,
    ProtocolFault,
)
from .http2_headers import header_reader, read_block
from .http2_sender import MOST_BLOCK_BYTES, Http2Sender
from .http2_values import MAX_BODY_BYTES, End, Lost, StreamResponse

__all__ = ["GoAway", "Http2Session", "ProtocolFault"]

T = TypeVar("T")

_INTERIM: Final = 200  # a status below is an interim one
_OK: Final = 200
_STATUS_200: Final = 0x88  # entry 8 of HPACK's static table
_FIRST_OF_200: Final = bytes([_STATUS_200])
# A 201 is no entry of that table: entry 8's name, to be indexed, not indexed or never, and the
# value, as it is or in Huffman's code. Our own table is empty, so no later block refers to it.
_FIRST_OF_201: Final = tuple(
    name + value for name in (b"\x48", b"\x08", b"\x18") for value in (b"\x82\x10\x03", b"\x03201")
)
_WHOLE: Final = END_STREAM | END_HEADERS
_MOST_TEXT: Final = 200
_MOST_VAIN: Final = 10_000
_PAID_BY_AN_END: Final = 100
_HEAD_BYTES_READ_LIKE_A_FRAME: Final = 128
_MOST_OPEN_BYTES: Final = 2 << 20  # bytes of unfinished answers on one connection
_PER_HEADER: Final = 32  # RFC 9113, 6.5.2

_read_head: Final = struct.Struct(">IBI").unpack_from  # length and type in one, flags, stream
_LEAST_HEADERS: Final = 1 << 8 | HEADERS
_MOST_HEADERS: Final = FRAME_BYTES << 8 | HEADERS
_MOST_DATA: Final = FRAME_BYTES << 8
_RESET: Final = 4 << 8 | RST_STREAM


class GoAway(NamedTuple):
    """A GOAWAY: the name of its code, and the server's explanation."""

    error: str
    text: str


class _Partial:
    """An answer whose head has arrived."""

    __slots__ = ("body", "pairs", "size", "status")

    def __init__(self, status: int, pairs: tuple[tuple[bytes, bytes], ...]) -> None:
        self.status = status
        self.pairs = pairs
        self.body = b""
        self.size = sum(len(name) + len(value) + _PER_HEADER for name, value in pairs)


class Http2Session(Http2Sender[T]):
    """One connection's streams, windows and settings, seen from the client.

    The ends of the items in ``streams`` are in ``answered`` (a 200, unread), ``created`` (a plain
    201), ``ended``, and, where the server certainly did not process them, ``refused`` (by
    REFUSED_STREAM) and ``handed_back`` (by GOAWAY). ``is_listening`` has the next answer read in
    full. ``is_greeted`` means that the server has sent its settings, ``goaway`` is its last GOAWAY.

    A 200 counts from its head on, however its stream ends. Any other incomplete answer is marked
    (``StreamResponse.is_whole``).

    Frames that end no request, such as PING and SETTINGS, cost work and need replies. After 10,000
    of them the connection is given up; every end compensates for 100, and headers count by their
    length. Headers of more than 8 KiB, and more than 2 MiB of unfinished answers, end it too.
    """

    can_ping: Final = True

    def __init__(self, authority: str, *, is_listening: bool) -> None:
        super().__init__(authority)
        self.answered: list[T] = []
        self.created: list[T] = []
        self.ended: list[tuple[T, End]] = []
        self.refused: list[T] = []
        self.handed_back: list[T] = []
        self.is_listening = is_listening
        self.is_greeted = False
        self.goaway: GoAway | None = None
        self._keeps_listening = is_listening
        self._reader = header_reader(MOST_BLOCK_BYTES)
        self._rest = b""
        self._partial: dict[int, _Partial] = {}
        self._taken: set[int] = set()  # streams answered by a 200, unread, whose body is to come
        self._block: tuple[int, int, bytearray] | None = None
        self._unread = 0
        self._open_bytes = 0
        self._vain = 0

    def cancel(self, numbers: Iterable[int]) -> list[T]:
        """Reset streams; return their items that have no answer."""
        given_up: list[T] = []
        for number in numbers:
            self._out.append(wire.rst_stream(number, wire.CANCEL))
            given_up += self._give_up(number)
        return given_up

    def abandon(self) -> list[T]:
        """Return the items without an answer when the connection is gone."""
        return [item for number in tuple(self.streams) for item in self._give_up(number)]

    def receive(self, data: bytes) -> None:
        """Parse received bytes; an incomplete frame waits for the rest.

        Raises :class:`ProtocolFault`; ends read before it stay available.
        """
        data = self._rest + data
        if not self.is_greeted:
            _check_greeting(data)
        place, size = 0, len(data)
        take, answered, created = self.streams.pop, self.answered, self.created
        taken, partial, held = self._taken, self._partial, self._held
        while size - place >= HEAD_BYTES:
            word, flags, number = _read_head(data, place)
            begin = place + HEAD_BYTES
            place = begin + (word >> 8)
            if place > size:
                place = begin - HEAD_BYTES
                _check_length(word >> 8)
                break
            if (
                word & 0xFF == HEADERS
                and flags | END_STREAM == _WHOLE
                and _LEAST_HEADERS <= word <= _MOST_HEADERS
                and not self.is_listening
                and number in self.streams
                and not (
                    (partial or held or taken)
                    and (number in partial or number in held or number in taken)
                )
                and self._block is None
                and (
                    data[begin] == _STATUS_200
                    or (flags == _WHOLE and data.startswith(_FIRST_OF_201, begin, place))
                )
            ):
                if flags == _WHOLE:
                    (answered if data[begin] == _STATUS_200 else created).append(take(number))
                else:
                    taken.add(number)
            elif word <= _MOST_DATA and not word & 0xFF and flags <= END_STREAM and number in taken:
                self._skim(number, word >> 8, is_end=bool(flags))
            elif word == _RESET and self._is_over(number):
                self._vain += 1  # some servers end streams this way after an early answer
            else:
                _check_length(word >> 8)
                self._read(word & 0xFF, flags, number & MOST, data[begin:place])
        self._rest = data[place:]
        if self._vain:
            self._weigh()

    def _weigh(self) -> None:
        """Offset idle frames by ended requests; raise when there are too many."""
        plain = len(self.answered) + len(self.created)
        ends = plain + len(self.ended) + len(self.refused) + len(self.handed_back)
        self._vain = max(0, self._vain - _PAID_BY_AN_END * ends)
        if self._vain > _MOST_VAIN:
            raise ProtocolFault("it sends frames without end, and no answer", wire.CALM)

    def _is_over(self, number: int) -> bool:
        is_ours = number % 2 == 1 and number < self._next
        return is_ours and number not in self.streams and self._block is None

    def _read(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        self._vain += 1
        if self._block is not None or kind == CONTINUATION:
            self._continue_block(kind, flags, number, payload)
            return
        wire.check(kind, flags, number, len(payload))
        if number and kind in (HEADERS, wire.DATA, RST_STREAM, wire.WINDOW_UPDATE):
            self._check_opened(number)
        match kind:
            case wire.HEADERS:
                self._begin_block(flags, number, payload)
            case wire.DATA:
                self._read_data(flags, number, payload)
            case wire.RST_STREAM:
                self._reset(number, int.from_bytes(payload, "big"))
            case wire.WINDOW_UPDATE:
                written = len(self._out)
                self._widen_one(number, wire.read_increment(payload))
                self._vain -= len(self._out) > written  # a waiting body can use it
            case _:
                self._read_control(kind, flags, payload)

    def _read_control(self, kind: int, flags: int, payload: bytes) -> None:
        match kind:
            case wire.SETTINGS if not flags & ACK:
                self.is_greeted = True
                settings = wire.read_settings(payload)
                self._vain += len(settings)
                self._follow(settings)
            case wire.PING if not flags & ACK:
                self._out.append(wire.frame(wire.PING, ACK, 0, payload))
            case wire.GOAWAY:
                self._read_goaway(payload)
            case wire.PUSH_PROMISE:
                raise ProtocolFault("a push promise came, though none was allowed")

    def _check_opened(self, number: int) -> None:
        if number % 2 == 0 or number >= self._next:
            raise ProtocolFault(f"a frame came for stream {number}, which was never opened")

    def _widen_one(self, number: int, increment: int) -> None:
        if not number:
            self._widen(increment)
        elif not self._widen_stream(number, increment) and number in self.streams:
            error = wire.FLOW_CONTROL_ERROR if increment else wire.PROTOCOL_ERROR
            self._spoil(number, f"its window cannot be widened by {increment}", error)

    # -- answers ---------------------------------------------------------------------------------

    def _begin_block(self, flags: int, number: int, payload: bytes) -> None:
        part = wire.unpadded(HEADERS, flags, payload)
        self._block = (number, flags, bytearray())
        self._add_to_block(part, is_last=bool(flags & END_HEADERS))

    def _continue_block(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is None or kind != CONTINUATION or number != self._block[0]:
            raise ProtocolFault("a header block was not finished, or never begun")
        self._add_to_block(payload, is_last=bool(flags & END_HEADERS))

    def _add_to_block(self, part: bytes, *, is_last: bool) -> None:
        if self._block is None:
            return
        number, flags, block = self._block
        block += part
        if len(block) > MOST_BLOCK_BYTES:
            self._refuse_head(number, bytes(block[:1]), is_end=bool(flags & END_STREAM))
        if is_last:
            self._block = None
            self._read_head(number, bytes(block), is_end=bool(flags & END_STREAM))

    def _read_head(self, number: int, block: bytes, *, is_end: bool) -> None:
        if number not in self.streams:
            return  # it was cancelled; no later block refers to this one
        self._vain += len(block) // _HEAD_BYTES_READ_LIKE_A_FRAME
        try:
            pairs = tuple(read_block(self._reader, block))
        except OversizedHeaderListError:
            self._refuse_head(number, block[:1], is_end=is_end)
        except HPACKError as error:  # its text may hold the whole block
            message = f"a header block cannot be read: {error}"[:_MOST_TEXT]
            raise ProtocolFault(message, wire.COMPRESSION_ERROR) from None
        if number in self._partial or number in self._taken:
            self._read_trailers(number, is_end=is_end)
            return
        status = _status(pairs)
        if status is None or (status < _INTERIM and is_end):
            self._spoil(number, "the answer has no status")
        elif status >= _INTERIM:
            self.is_listening = self._keeps_listening
            partial = self._partial[number] = _Partial(status, pairs)
            self._open_bytes += partial.size
            if is_end:
                self._answer(number)
            elif self._open_bytes > _MOST_OPEN_BYTES:
                raise ProtocolFault("it begins answers without end, and ends none", wire.CALM)

    def _refuse_head(self, number: int, first: bytes, *, is_end: bool) -> NoReturn:
        """Give up the connection for oversized headers; the part that is certain counts."""
        self._block = None
        if number in self._taken:
            self._give_up(number)
        elif number in self._partial:
            self._end_answered(number, is_whole=is_end)  # trailers: the body before them is whole
        elif number in self.streams and first == _FIRST_OF_200:
            self.answered.append(self._take(number))
        raise ProtocolFault("the answer's headers are longer than allowed", wire.CALM)

    def _read_trailers(self, number: int, *, is_end: bool) -> None:
        if is_end and number in self._taken:
            self._give_up(number)
        elif is_end:
            self._answer(number)
        else:
            self._spoil(number, "the answer has two heads")

    def _read_data(self, flags: int, number: int, payload: bytes) -> None:
        data = wire.unpadded(wire.DATA, flags, payload)
        if number in self._taken:
            self._vain -= 1  # counted below
            self._skim(number, len(payload), is_end=bool(flags & END_STREAM))
            return
        self._count_unread(len(payload))
        if number not in self.streams:
            return
        partial = self._partial.get(number)
        if partial is None:
            self._spoil(number, "the answer has no status")
            return
        partial.body += data
        partial.size += len(data)
        self._open_bytes += len(data)
        self._vain -= bool(data)
        is_ended, is_long = bool(flags & END_STREAM), len(partial.body) > MAX_BODY_BYTES
        if is_ended or is_long:
            self._answer(number, is_ended=is_ended, is_whole=not is_long)
        elif self._open_bytes > _MOST_OPEN_BYTES:
            raise ProtocolFault("it begins answers without end, and ends none", wire.CALM)

    def _count_unread(self, length: int) -> None:
        self._unread += length
        if self._unread >= FIRST_WINDOW // 2:
            self._out.append(wire.window_update(0, self._unread))
            self._unread = 0

    def _skim(self, number: int, length: int, *, is_end: bool) -> None:
        """Go on with a 200 of which nothing but its end matters."""
        self._count_unread(length)
        self._vain += not length
        if is_end:
            self.answered.append(self._take(number))

    def _answer(self, number: int, *, is_ended: bool = True, is_whole: bool = True) -> None:
        if not is_ended or number in self._held:  # the rest of either body is not needed
            self._out.append(wire.rst_stream(number, wire.CANCEL))
        self._end_answered(number, is_whole=is_whole)

    def _end_answered(self, number: int, *, is_whole: bool) -> None:
        partial = self._partial[number]
        body = partial.body[:MAX_BODY_BYTES]
        is_whole = is_whole or partial.status == _OK
        answer = StreamResponse(partial.status, body, partial.pairs, is_whole)
        self.ended.append((self._take(number), answer))

    def _spoil(self, number: int, why: str, error: int = wire.PROTOCOL_ERROR) -> None:
        self._out.append(wire.rst_stream(number, error))
        self.ended += [(item, Lost("StreamReset", why)) for item in self._give_up(number)]

    def _give_up(self, number: int) -> list[T]:
        """Return the item of an ended stream, unless its answer has begun."""
        if number in self._taken:
            self.answered.append(self._take(number))
            return []
        if number in self._partial:
            self._end_answered(number, is_whole=False)
            return []
        return [self._take(number)]

    def _reset(self, number: int, error: int) -> None:
        if number not in self.streams:
            return
        for item in self._give_up(number):
            if error == wire.REFUSED_STREAM:
                self.refused.append(item)
            else:
                why = f"the server ended the stream: {wire.error_name(error)}"
                self.ended.append((item, Lost("StreamReset", why)))

    def _read_goaway(self, payload: bytes) -> None:
        last, error, data = wire.read_goaway(payload)
        text = "".join(
            each if each.isprintable() else " "
            for each in data[:_MOST_TEXT].decode(errors="replace")
        )
        self.is_left = True
        if text or error or self.goaway is None:
            self.goaway = GoAway(wire.error_name(error), text.strip())
        for number in [each for each in self.streams if each > last]:
            self.handed_back += self._give_up(number)

    def _take(self, number: int) -> T:
        if (partial := self._partial.pop(number, None)) is not None:
            self._open_bytes -= partial.size
        self._held.pop(number, None)
        self._taken.discard(number)
        return self.streams.pop(number)


def _check_greeting(data: bytes) -> None:
    """Check that the server begins with SETTINGS; another protocol would not."""
    if len(data) >= HEAD_BYTES and (data[3] != wire.SETTINGS or data[4] & ACK):
        raise ProtocolFault("the server does not begin with its settings")


def _check_length(length: int) -> None:
    if length > FRAME_BYTES:
        raise ProtocolFault("a frame is longer than allowed", wire.FRAME_SIZE_ERROR)


def _status(pairs: Iterable[tuple[bytes, bytes]]) -> int | None:
    for name, value in pairs:
        if name == b":status":
            is_status = value.isdigit() and len(value) == 3 and value >= b"100"  # noqa: PLR2004
            return int(value) if is_status else None
    return None
