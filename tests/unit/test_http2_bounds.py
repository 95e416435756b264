"""What a server may cost: frames that lead nowhere, blocks without end, texts that are kept."""

from contextlib import suppress

import pytest
from hpack.hpack import encode_integer
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
from handbell.gateways.http2_values import StreamResponse

COMPRESSION, CALM = 9, 11
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


MOST = 8192
OPEN = 2 << 20
TOO_LONG = {
    "a value": block((":status", "403"), ("x-long", "y" * MOST)),
    "a name": block((":status", "403"), ("x" * MOST, "y")),
    "many headers": block((":status", "403")) + block(("x", "y")) * 2000,
    "a byte for each header": block((":status", "403")) + b"\x88" * 1000,
    "a text that Huffman shortens": block((":status", "403"))
    + b"\x00\x01x\xff"
    + bytes(encode_integer(5200, 7))[1:]
    + bytes(5200),
}


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("long", TOO_LONG.values(), ids=TOO_LONG)
def test_headers_that_are_too_long_end_the_connection(long: bytes, parts: int) -> None:
    """However they are made: the server is told to be calm, and what it answered before counts."""
    wire = Wire()
    wire.open(b"1", b"2", b"3")
    wire.session.receive(head(3, OK, is_end=True))
    with pytest.raises(ProtocolFault) as fault:
        wire.session.receive(head(1, long, is_end=True, parts=parts))
    assert fault.value.error in {CALM, COMPRESSION}
    assert wire.session.answered == [3]
    assert sorted(wire.session.abandon()) == [1, 5]
    assert not wire.session.ended


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("is_listening", [True, False])
def test_what_an_overlong_head_says_first_counts(parts: int, *, is_listening: bool) -> None:
    """A 200 was said, whatever follows it; what comes after it is not read."""
    wire = Wire(is_listening=is_listening)
    wire.open(b"1")
    with suppress(ProtocolFault):
        wire.session.receive(head(1, OK + block(("x", "y")) * 2000, is_end=True, parts=parts))
    assert wire.ends[1] == "bare"


def test_trailers_that_are_too_long_do_not_undo_the_answer() -> None:
    """The answer was whole before them; the connection is given up all the same."""
    wire = Wire()
    wire.open(b"1", b"2")
    wire.session.receive(head(1, BAD, is_end=False) + data(1, b"{}", is_end=False))
    with pytest.raises(ProtocolFault):
        wire.session.receive(head(1, block(("x", "y")) * 2000, is_end=True, parts=5))
    pairs = ((":status", "400"), ("content-type", "application/json"))
    assert wire.ends[1] == answer(400, b"{}", pairs)
    assert wire.session.abandon() == [3]


@pytest.mark.parametrize(
    ("begun", "pieces"),
    [
        pytest.param(BAD + block(("x", "y")) * 150, [], id="headers"),
        pytest.param(BAD, [b"x" * 4000] * 2, id="bodies"),
        pytest.param(block((":status", "200")) + block(("x", "y")) * 150, [], id="of 200"),
    ],
)
def test_answers_that_begin_and_do_not_end_hold_a_bounded_memory(
    begun: bytes, pieces: list[bytes]
) -> None:
    """Above 2 MiB the connection is given up; those that were said to be 200 count as such."""
    wire = Wire(is_listening=True)  # a 200 that nobody listens to is not held at all
    numbers = wire.open(*[b"{}"] * 3000)
    said = [
        head(number, begun, is_end=False)
        + b"".join(data(number, piece, is_end=False) for piece in pieces)
        for number in numbers
    ]
    with pytest.raises(ProtocolFault) as fault:
        receive(wire, b"".join(said), 4096)
    assert fault.value.error == CALM
    held = sum(
        len(part.body) + sum(len(name) + len(value) + 32 for name, value in part.pairs)
        for part in wire.session._partial.values()  # noqa: SLF001 - what is held is what counts
    )
    assert OPEN < held < OPEN + MOST * 2
    wire.session.abandon()
    ended = [end for _, end in wire.session.ended if isinstance(end, StreamResponse)]
    assert {end.is_whole for end in ended} == {ended[0].status == 200}


def test_answers_one_after_the_other_hold_nothing() -> None:
    """What ended is not counted any more: a connection may carry long answers for ever."""
    wire = Wire()
    for _ in range(600):
        (number,) = wire.open(b"{}")
        wire.session.receive(
            head(number, BAD, is_end=False) + data(number, b"x" * 8000, is_end=False)
        )
        wire.session.cancel([number])
    assert wire.session._open_bytes == 0  # noqa: SLF001 - nothing else would show it


def test_long_heads_that_announce_an_answer_for_ever_end_the_connection() -> None:
    """Interim heads of the length that is allowed cost too much to be read by the thousand."""
    wire = Wire()
    wire.open(b"1")
    said = head(1, INTERIM + block(("x", "y" * 8000)), is_end=False)
    with pytest.raises(ProtocolFault) as fault:
        receive(wire, said * 300)
    assert fault.value.error == CALM


def test_answers_with_as_many_headers_as_are_allowed_go_on() -> None:
    """A proxy that adds kilobytes to each answer is slow, and no reason to give up."""
    wire = Wire()
    for _ in range(400):
        (number,) = wire.open(b"{}")
        wire.session.receive(head(number, BAD + block(("x", "y" * 7900)), is_end=True))
        assert wire.session.ended.pop()[0] == number


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
