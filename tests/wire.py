"""A session of ours without a socket, h2 as the server that hears it, and frames made at will."""

from collections import defaultdict

import h2.config
import h2.connection
import h2.events
from h2.settings import SettingCodes, Settings
from hpack import Encoder
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame

from handbell.gateways.http2_session import Http2Session
from handbell.gateways.http2_values import End, Request, StreamResponse

LAST = 2**31 - 1


class Wire:
    """A session, and h2 as the server that hears all of it."""

    def __init__(self, *, is_listening: bool = False, **settings: int) -> None:
        self.session: Http2Session[int] = Http2Session(
            "api.push.apple.com", is_listening=is_listening
        )
        self.server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        given = {SettingCodes.MAX_CONCURRENT_STREAMS: 1000}
        self.server.local_settings = Settings(client=False, initial_values=given)
        self.server.initiate_connection()
        self.server.update_settings({SettingCodes[name]: value for name, value in settings.items()})
        self.asked: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytes] = defaultdict(bytes)
        self.whole: list[int] = []
        self.resets: dict[int, int] = {}
        self.opened = 0
        self.exchange()

    def exchange(self) -> None:
        """Carry bytes to and fro until both sides are silent."""
        while out := self.session.to_send():
            self.heed(self.server.receive_data(out))
            self.session.receive(self.server.data_to_send())
        if more := self.server.data_to_send():
            self.session.receive(more)
            self.exchange()

    def hear(self) -> None:
        """Let the server judge what the session has to say, and say nothing to it."""
        self.heed(self.server.receive_data(self.session.to_send()))
        self.server.data_to_send()

    def heed(self, events: list[h2.events.Event]) -> None:
        """Note what the server has heard."""
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                self.asked[event.stream_id] = {
                    name.decode(): value.decode() for name, value in event.headers
                }
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
            elif isinstance(event, h2.events.StreamEnded):
                self.whole.append(event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.resets[event.stream_id] = int(event.error_code)

    def open(self, *bodies: bytes) -> list[int]:
        """Put requests on the wire, the stream's number being the item; return the numbers."""
        numbers = []
        for body in bodies:
            number = self.opened * 2 + 1
            self.opened += 1
            own = (("apns-id", str(number)),)
            self.session.open(number, Request(f"/3/device/{number}", (), own, body))
            numbers.append(number)
        return numbers

    @property
    def ends(self) -> dict[int, End | str]:
        """What came of each item; ``bare`` for 200 alone, ``created`` for 201; none twice."""
        session = self.session
        pairs: list[tuple[int, End | str]] = [(item, "bare") for item in session.answered]
        pairs += [(item, "created") for item in session.created]
        pairs += [(item, "refused") for item in session.refused]
        pairs += [(item, "handed back") for item in session.handed_back]
        pairs += [(item, "open") for item in session.streams.values()]
        pairs += session.ended
        assert len(dict(pairs)) == len(pairs) == self.opened
        return dict(pairs)


def block(*pairs: tuple[str, str]) -> bytes:
    """Return a header block that refers to no table but the static one."""
    encoder = Encoder()
    return b"".join(
        encoder.add((name.encode(), value.encode()), sensitive=False) for name, value in pairs
    )


PAIRS_OK = ((":status", "200"),)
PAIRS_BAD = ((":status", "400"), ("content-type", "application/json"))
OK = block(*PAIRS_OK)
BAD = block(*PAIRS_BAD)


def answer(
    status: int, body: bytes, pairs: tuple[tuple[str, str], ...], *, is_whole: bool = True
) -> StreamResponse:
    """Return the answer that these headers and this body make."""
    encoded = tuple((name.encode(), value.encode()) for name, value in pairs)
    return StreamResponse(status, body, encoded, is_whole)


def flags(**given: bool) -> list[str]:
    """Return the names that are true, as hyperframe wants them."""
    return [name for name, is_set in given.items() if is_set]


def head(
    number: int, data: bytes, *, is_end: bool, padding: int | None = None, parts: int = 1
) -> bytes:
    """Return a header block in as many frames, the first of them padded if that is asked for."""
    size = -(-len(data) // parts)
    first, *rest = [data[place : place + size] for place in range(0, len(data), size)]
    frame = HeadersFrame(
        number,
        first,
        pad_length=padding or 0,
        flags=flags(END_STREAM=is_end, END_HEADERS=not rest, PADDED=padding is not None),
    )
    frames: list[Frame] = [frame]
    for place, part in enumerate(rest, 1):
        frames.append(ContinuationFrame(number, part, flags=flags(END_HEADERS=place == len(rest))))
    return b"".join(each.serialize() for each in frames)


def data(number: int, content: bytes, *, is_end: bool, padding: int | None = None) -> bytes:
    """Return a DATA frame, padded if that is asked for."""
    names = flags(END_STREAM=is_end, PADDED=padding is not None)
    return DataFrame(number, content, pad_length=padding or 0, flags=names).serialize()
