"""What a server may cost: frames that lead nowhere, blocks without end, texts that are kept."""

import pytest
from hyperframe.frame import (
    AltSvcFrame,
    ContinuationFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from tests.wire import BAD, OK, Wire, answer, block, data, head

from handbell.gateways.http2_session import ProtocolFault
from handbell.gateways.http2_values import Lost

CALM = 11
INTERIM = block((":status", "103"))
FLOODS = {
    "ping": PingFrame().serialize(),
    "an answer to a ping": PingFrame(flags=["ACK"]).serialize(),
    "settings": SettingsFrame().serialize(),
    "many settings in a frame": SettingsFrame(
        settings=dict.fromkeys(range(100, 250), 0)
    ).serialize(),
    "the connection's window": WindowUpdateFrame(0, window_increment=1).serialize(),
    "a stream's window": WindowUpdateFrame(1, window_increment=1).serialize(),
    "priority": PriorityFrame(1).serialize(),
    "farewell": GoAwayFrame(last_stream_id=99).serialize(),
    "reset of what is over": RstStreamFrame(5).serialize(),
    "interim heads": head(1, INTERIM, is_end=False),
    "data of what is over": data(5, b"x", is_end=False),
    "data without data": data(3, b"", is_end=False),
    "padding": data(3, b"", is_end=False, padding=9),
    "where else to go": AltSvcFrame(0, b"example.com", b"h2").serialize(),
    "a frame of no known type": b"\0\0\0\xbb\0\0\0\0\0",
}


def receive(wire: Wire, said: bytes, size: int = 65536) -> None:
    """Let the session read what is said, in pieces as a socket gives them."""
    for begin in range(0, len(said), size):
        wire.session.receive(said[begin : begin + size])


@pytest.mark.parametrize("frame", FLOODS.values(), ids=FLOODS)
def test_frames_that_lead_nowhere_end_the_connection(frame: bytes) -> None:
    """After some thousands of them the server is told to be calm; answers before them count.

    What it was told until then is not much.
    """
    wire = Wire()
    wire.open(b"1", b"2", b"3", b"4")
    wire.session.receive(head(5, OK, is_end=True) + head(3, BAD, is_end=False))
    with pytest.raises(ProtocolFault) as fault:
        receive(wire, frame * 30_000)
    assert fault.value.error == CALM
    assert len(wire.session.to_send()) < 300_000
    assert sorted(wire.session.abandon()) == [1, 7]
    assert wire.session.answered == [5]


def test_a_block_that_is_continued_by_nothing_ends_the_connection() -> None:
    """CONTINUATION frames without a byte are no way to hold a connection."""
    wire = Wire()
    wire.open(b"1")
    wire.session.receive(HeadersFrame(1, BAD).serialize())
    with pytest.raises(ProtocolFault) as fault:
        receive(wire, ContinuationFrame(1).serialize() * 30_000)
    assert fault.value.error == CALM


def test_a_server_that_answers_may_say_much_beside_it() -> None:
    """Dozens of frames around each answer are lawful, for as long as answers come."""
    wire = Wire()
    beside = PingFrame().serialize() * 40 + SettingsFrame().serialize() * 40
    for _ in range(300):
        (number,) = wire.open(b"{}")
        wire.session.receive(beside + head(number, OK, is_end=True))
        wire.session.to_send()
        assert wire.session.answered.pop() == number


def test_a_long_body_may_be_taken_bit_by_bit() -> None:
    """What lets a body that waits go on is never too much, however small the steps."""
    wire = Wire(INITIAL_WINDOW_SIZE=0)
    (number,) = wire.open(b"x" * 20_000)
    wire.exchange()
    receive(wire, WindowUpdateFrame(number, window_increment=1).serialize() * 20_000)
    assert not wire.session._held  # noqa: SLF001 - h2 would take seconds to hear so many frames
    wire.session.receive(head(number, OK, is_end=True))
    assert wire.session.answered == [number]


def test_a_window_that_lets_nothing_go_is_no_use() -> None:
    """While the streams' windows keep a body back, the connection's may not be widened for ever."""
    wire = Wire(INITIAL_WINDOW_SIZE=0)
    wire.open(b"x")
    wire.exchange()
    with pytest.raises(ProtocolFault) as fault:
        receive(wire, WindowUpdateFrame(0, window_increment=1).serialize() * 30_000)
    assert fault.value.error == CALM


LONG = block(("x", "y")) * 2000


def test_headers_that_are_too_long_cost_their_answer_alone() -> None:
    """An answer with more headers than we allow is reset; the others on its connection go on."""
    wire = Wire()
    wire.open(b"1", b"2")
    wire.exchange()
    wire.session.receive(head(1, OK + LONG, is_end=False, parts=5) + data(1, b"{}", is_end=True))
    wire.session.receive(head(3, OK, is_end=True))
    wire.hear()
    assert wire.ends[1] == Lost("StreamReset", "the answer's headers are longer than allowed")
    assert wire.ends[3] == "bare"
    assert wire.resets == {1: CALM}


def test_trailers_that_are_too_long_do_not_undo_the_answer() -> None:
    """What came before them counts, and no more of it is wanted."""
    wire = Wire()
    wire.open(b"1")
    wire.exchange()
    wire.session.receive(head(1, BAD, is_end=False) + data(1, b"{}", is_end=False))
    wire.session.receive(head(1, LONG, is_end=True, parts=5))
    pairs = ((":status", "400"), ("content-type", "application/json"))
    assert wire.ends[1] == answer(400, b"{}", pairs)


@pytest.mark.parametrize(
    "said", [b"\x0f" + b"\xff" * 16000, b"\xff" * 16000, b"\x00\x01\xff\xff" + b"\xff" * 16000]
)
def test_what_is_told_of_a_block_that_cannot_be_read_is_short(said: bytes) -> None:
    """The reason is kept with every push that is lost by it, and does not repeat the block."""
    wire = Wire()
    wire.open(b"1")
    with pytest.raises(ProtocolFault) as fault:
        wire.session.receive(head(1, said, is_end=True))
    assert len(str(fault.value)) <= 200
