"""What breaks HTTP/2, and that nothing a server may send does worse than end the connection."""

from contextlib import suppress

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st
from tests.wire import BAD, LAST, OK, Wire, data, head

from handbell.gateways.http2_session import Http2Session, ProtocolFault
from handbell.gateways.http2_values import Request

PROTOCOL, FLOW, SIZE, COMPRESSION, CALM = 1, 3, 6, 9, 11
GREETING = SettingsFrame().serialize()


def raw(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    """Return a frame that hyperframe would not make."""
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + number.to_bytes(4, "big") + payload
    )


def setting(name: int, value: int) -> bytes:
    """Return a SETTINGS frame of one setting."""
    return SettingsFrame(settings={name: value}).serialize()


FAULTS = {
    "a frame that is too long": (raw(0xBB, 0, 0, b"x" * 16385), SIZE),
    "the head of a frame that is too long": (b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", SIZE),
    "a bare answer that is too long": (raw(1, 5, 1, OK + b"\x00" * 16384), SIZE),
    "an answer on stream 0": (raw(1, 5, 0, OK), PROTOCOL),
    "an answer on a stream that was never opened": (head(9, OK, is_end=True), PROTOCOL),
    "an answer on a stream of the server": (head(2, OK, is_end=True), PROTOCOL),
    "data on a stream that was never opened": (data(9, b"x", is_end=True), PROTOCOL),
    "data on stream 0": (raw(0, 0, 0, b"x"), PROTOCOL),
    "a reset of a stream that was never opened": (RstStreamFrame(9).serialize(), PROTOCOL),
    "a reset of a stream of the server": (RstStreamFrame(2).serialize(), PROTOCOL),
    "a reset of stream 0": (raw(3, 0, 0, b"\0" * 4), PROTOCOL),
    "a reset of a wrong length": (raw(3, 0, 1, b"\0" * 5), SIZE),
    "a window of a stream that was never opened": (
        WindowUpdateFrame(9, window_increment=1).serialize(),
        PROTOCOL,
    ),
    "a window widened by nothing": (raw(8, 0, 0, b"\0" * 4), PROTOCOL),
    "a window widened too far": (WindowUpdateFrame(0, window_increment=LAST).serialize(), FLOW),
    "a window of a wrong length": (raw(8, 0, 0, b"\0" * 3), SIZE),
    "settings on a stream": (raw(4, 0, 1, b""), PROTOCOL),
    "settings of a wrong length": (raw(4, 0, 0, b"\0" * 5), SIZE),
    "an acknowledgement with settings": (raw(4, 1, 0, b"\0" * 6), SIZE),
    "a permission to push": (setting(2, 1), PROTOCOL),
    "a first window too large": (setting(4, 2**31), FLOW),
    "a frame's limit too small": (setting(5, 16383), PROTOCOL),
    "a frame's limit too large": (setting(5, 2**24), PROTOCOL),
    "a wrong value that a right one follows": (
        raw(4, 0, 0, b"\0\5\0\0\0\0" + b"\0\5\0\0\x40\0"),
        PROTOCOL,
    ),
    "a ping on a stream": (raw(6, 0, 1, b"\0" * 8), PROTOCOL),
    "a ping of a wrong length": (raw(6, 0, 0, b"\0" * 7), SIZE),
    "a farewell on a stream": (raw(7, 0, 1, b"\0" * 8), PROTOCOL),
    "a farewell that is too short": (raw(7, 0, 0, b"\0" * 7), SIZE),
    "a priority of a wrong length": (raw(2, 0, 1, b"\0" * 4), SIZE),
    "a push promise": (
        PushPromiseFrame(1, promised_stream_id=2, data=BAD, flags=["END_HEADERS"]).serialize(),
        PROTOCOL,
    ),
    "a continuation of nothing": (ContinuationFrame(1, BAD).serialize(), PROTOCOL),
    "a block that another frame cuts": (
        HeadersFrame(1, BAD).serialize() + PingFrame().serialize(),
        PROTOCOL,
    ),
    "a block that another answer cuts": (
        HeadersFrame(1, BAD).serialize() + head(3, OK, is_end=True),
        PROTOCOL,
    ),
    "a block that a reset cuts": (
        HeadersFrame(1, BAD).serialize() + RstStreamFrame(1).serialize(),
        PROTOCOL,
    ),
    "a block that an unknown frame cuts": (
        HeadersFrame(1, BAD).serialize() + raw(0xBB, 0, 0, b""),
        PROTOCOL,
    ),
    "a block continued on another stream": (
        HeadersFrame(1, BAD).serialize() + ContinuationFrame(3, BAD).serialize(),
        PROTOCOL,
    ),
    "a block without end": (
        HeadersFrame(1, BAD).serialize() + ContinuationFrame(1, b"x" * 4096).serialize() * 4,
        CALM,
    ),
    "padding longer than its data": (raw(0, 8, 1, b"\5abcd"), PROTOCOL),
    "padding longer than its block": (raw(1, 0x2D, 1, b"\5" + b"\0" * 5 + b"\x88" * 4), PROTOCOL),
    "padding without room": (raw(0, 8, 1, b""), SIZE),
    "a priority without room": (raw(1, 0x25, 1, b"\0" * 4), PROTOCOL),
    "a header of no table": (head(1, b"\xff\x80\x01", is_end=True), COMPRESSION),
    "a header of the table that is not there": (head(1, BAD + b"\xbe", is_end=True), COMPRESSION),
    "a larger table than allowed": (head(1, b"\x3f\xe1\x1f" + OK, is_end=True), COMPRESSION),
    "a block that is cut": (head(1, b"\x40\x0aabc", is_end=True), COMPRESSION),
}


def receive(session: Http2Session[int], pieces: list[bytes]) -> None:
    """Let a session read what comes in pieces."""
    for piece in pieces:
        session.receive(piece)


@pytest.mark.parametrize(("said", "error"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_fault_ends_the_connection(said: bytes, error: int, *, is_whole: bool) -> None:
    """What RFC 9113 forbids is told by its code, whether it comes at once or byte by byte.

    What was read before it still counts.
    """
    wire = Wire()
    wire.open(b"1", b"2", b"3")
    wire.session.receive(head(5, OK, is_end=True))
    pieces = [said] if is_whole else [bytes([byte]) for byte in said]
    with pytest.raises(ProtocolFault) as fault:
        receive(wire.session, pieces)
    assert fault.value.error == error
    assert wire.session.answered == [5]
    assert sorted(wire.session.abandon()) == [1, 3]


@pytest.mark.parametrize(
    "first",
    [
        head(1, OK, is_end=True),
        PingFrame().serialize(),
        GoAwayFrame().serialize(),
        SettingsFrame(flags=["ACK"]).serialize(),
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ],
)
def test_a_server_that_does_not_begin_with_its_settings_is_refused(first: bytes) -> None:
    """Before its settings nothing counts, not even an answer."""
    session: Http2Session[int] = Http2Session("api.push.apple.com", is_listening=False)
    session.open(1, Request("/3/device/1", (), (), b"{}"))
    with pytest.raises(ProtocolFault):
        session.receive(first)
    assert not session.answered
    assert not session.is_greeted


def test_an_empty_block_is_no_answer() -> None:
    """A head of no bytes, the last of what came, costs its stream alone."""
    wire = Wire()
    wire.open(b"1", b"2")
    wire.session.receive(raw(1, 5, 1, b""))
    assert [item for item, _ in wire.session.ended] == [1]
    wire.session.receive(head(3, OK, is_end=True))
    assert wire.session.answered == [3]


def test_padding_that_fills_its_frame_is_lawful() -> None:
    """A frame may be padding and nothing else."""
    wire = Wire()
    wire.open(b"1")
    wire.session.receive(raw(1, 8, 1, b"\2\0\0") + raw(9, 4, 1, BAD))
    wire.session.receive(raw(0, 9, 1, b"\3\0\0\0"))
    assert [item for item, _ in wire.session.ended] == [1]


frames = st.builds(
    raw,
    st.integers(0, 11),
    st.integers(0, 255),
    st.sampled_from([0, 1, 2, 3, 5, 7, 2**31, 2**31 + 1]),
    st.one_of(
        st.binary(max_size=24),
        st.sampled_from([OK, BAD, b"\0" * 4, b"\0" * 8, b"\0\0\0\1", b"\0\3\0\0\0\5"]),
    ),
)


@given(
    st.lists(st.one_of(frames, frames, st.binary(max_size=20)), max_size=12),
    st.lists(st.integers(0, 400), max_size=6),
)
def test_any_bytes_are_read_or_end_the_connection(said: list[bytes], cuts: list[int]) -> None:
    """Nothing but ProtocolFault is raised, whatever comes; each item is in one place, and once."""
    wire = Wire()
    wire.open(b"1", b"2", b"3")
    stream = b"".join(said)
    places = sorted(cut for cut in cuts if cut < len(stream))
    pieces = zip([0, *places], [*places, len(stream)], strict=True)
    with suppress(ProtocolFault):
        receive(wire.session, [stream[begin:stop] for begin, stop in pieces])
    assert sorted(wire.ends) == [1, 3, 5]
    wire.session.to_send()


@given(st.binary(max_size=60))
def test_whatever_a_stranger_says_first_is_refused_or_waited_for(said: bytes) -> None:
    """A peer that is no HTTP/2 server is found out by its first frame."""
    session: Http2Session[int] = Http2Session("api.push.apple.com", is_listening=False)
    try:
        session.receive(said)
    except ProtocolFault:
        return
    assert session.is_greeted or len(said) < 9 + int.from_bytes(said[:3], "big")
