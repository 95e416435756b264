"""A client HTTP/1.1 session (RFC 9112), one request after the other: bytes in, ends out, no socket.

For hosts that speak nothing else, such as some that people run for UnifiedPush. It has the form of
the :class:`~handbell.gateways.http2_session.Http2Session`, so that a connection can have either;
the library ``h11`` writes requests and reads answers. Nothing is pipelined: a request whose answer
did not come is the only one in doubt.
"""

from collections.abc import Iterable
from typing import Final, Generic, TypeVar

import h11

from .http2_frames import NO_ERROR, ProtocolFault
from .http2_values import MAX_BODY_BYTES, End, Request, StreamResponse

T = TypeVar("T")

MOST_HEAD_BYTES: Final = 16 * 1024
"""The longest head of an answer; longer ones end the connection."""


class Http1Session(Generic[T]):
    """One connection's request and its answer, seen from the client.

    ``streams`` holds the item of the request that is out, by a number that only grows; ``ended``
    the ends of those before. There is no PING, so a connection that has rested is not used again;
    nor is one that answers without being asked.
    """

    can_ping: Final = False

    def __init__(self, authority: str) -> None:
        self.streams: dict[int, T] = {}
        self.max_streams = 1
        self.answered: list[T] = []
        self.created: list[T] = []
        self.ended: list[tuple[T, End]] = []
        self.refused: list[T] = []
        self.handed_back: list[T] = []
        self.is_listening = True
        self.is_greeted = True
        self.is_left = False
        self.goaway: Final = None
        self.last_stream = -1
        self._authority = authority
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MOST_HEAD_BYTES)
        self._out: list[bytes] = []
        self._head: h11.Response | None = None
        self._body = b""

    @property
    def room(self) -> int:
        """Return how many more requests may be sent now."""
        return 0 if self.streams or self.is_left else 1

    @property
    def is_spent(self) -> bool:
        """Return whether no further request can be sent."""
        return self.is_left

    def to_send(self) -> bytes:
        """Return the bytes to write now, and clear them."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def open(self, item: T, request: Request) -> None:
        """Put a request on the wire; :attr:`room` has to be above 0.

        Raises ValueError, with nothing written, when it cannot be encoded.
        """
        head = h11.Request(
            method="POST",
            target=request.path,
            headers=[
                ("host", self._authority),
                ("content-length", str(len(request.body))),
                *request.shared,
                *request.own,
            ],
        )
        parts = (head, h11.Data(data=request.body), h11.EndOfMessage())
        self._out += [self._h11.send(part) or b"" for part in parts]
        self.last_stream += 2
        self.streams[self.last_stream] = item

    def ping(self) -> None:
        """Do nothing: HTTP/1.1 has no such thing."""

    def send_goaway(self, error: int = NO_ERROR) -> None:
        """Do nothing: HTTP/1.1 has no such thing."""

    def cancel(self, numbers: Iterable[int]) -> list[T]:
        """Give up requests, and the connection; return their items that have no answer."""
        self.is_left = True
        return [item for number in numbers for item in self._give_up(number)]

    def abandon(self) -> list[T]:
        """Return the items without an answer when the connection is gone."""
        if self._head is not None:
            self._read(b"")  # the end of the connection may be that of the answer
        return [item for number in tuple(self.streams) for item in self._give_up(number)]

    def receive(self, data: bytes) -> None:
        """Parse received bytes; raises :class:`~.http2_frames.ProtocolFault`."""
        why = self._read(data)
        if why is not None:
            raise ProtocolFault(why)

    def _read(self, data: bytes) -> str | None:
        """Read on; return how the peer broke the protocol, or None."""
        try:
            self._h11.receive_data(data)
            while self._take_event(self._h11.next_event()):
                pass
        except h11.RemoteProtocolError as error:
            self.is_left = True
            return f"its answer is not HTTP/1.1: {error}"
        return None

    def _take_event(self, event: object) -> bool:
        """Act on what was read; return whether there may be more."""
        match event:
            case h11.Response() if self.streams:
                self._head = event
            case h11.Response():
                self.is_left = True
            case h11.Data():
                self._body += event.data
                if len(self._body) > MAX_BODY_BYTES:
                    self._end(is_whole=False)
                    return False
            case h11.EndOfMessage():
                self._end(is_whole=True)
            case h11.ConnectionClosed():
                self.is_left = True
                return False
            case h11.NEED_DATA | h11.PAUSED:
                return False
        return not self.is_left

    def _end(self, *, is_whole: bool) -> None:
        head, self._head = self._head, None
        body, self._body = self._body[:MAX_BODY_BYTES], b""
        if head is not None and self.streams:
            _, item = self.streams.popitem()
            pairs = tuple((bytes(name), bytes(value)) for name, value in head.headers)
            answer = StreamResponse(head.status_code, body, pairs, is_whole)
            self.ended.append((item, answer))
        may_go_on = is_whole and self._h11.their_state is h11.DONE
        if may_go_on and self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
        else:
            self.is_left = True

    def _give_up(self, number: int) -> list[T]:
        """Return the item of a request that is over, unless its answer has begun."""
        if number not in self.streams:
            return []
        if self._head is not None:
            self._end(is_whole=False)
            return []
        return [self.streams.pop(number)]
