"""HTTP/2 without a socket, with h2 as the other side: it raises on all that is unlawful."""

import pytest
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame, PingFrame, WindowUpdateFrame
from hypothesis import given
from hypothesis import strategies as st
from tests.wire import BAD, LAST, OK, PAIRS_BAD, Wire, answer, data, head

from handbell.gateways.http2_values import MAX_BODY_BYTES, Lost, Request, StreamResponse

CANCEL = 8
BODIES = [b"", b"x", b"x" * 4096, b"y" * 16384, b"y" * 16385, b"z" * 40000, b"z" * 65535]


@pytest.mark.parametrize("body", BODIES, ids=len)
def test_a_request_is_heard_as_it_was_meant(body: bytes) -> None:
    """Path, headers and body arrive, in frames no longer than allowed."""
    wire = Wire()
    (number,) = wire.open(body)
    wire.exchange()
    assert wire.whole == [number]
    assert wire.bodies[number] == body
    assert wire.asked[number] == {
        ":method": "POST",
        ":scheme": "https",
        ":authority": "api.push.apple.com",
        ":path": "/3/device/1",
        "apns-id": "1",
    }


def test_a_long_header_block_goes_out_in_parts() -> None:
    """A block that no frame can hold is continued; the requests beside it are heard as well."""
    wire = Wire()
    for number in range(3):
        own = (("authorization", str(number) * 17000),)
        wire.session.open(number, Request("/3/device/1", (), own, b"{}"))
    wire.exchange()
    assert [asked["authorization"][:2] for asked in wire.asked.values()] == ["00", "11", "22"]
    assert wire.whole == [1, 3, 5]


windows = st.sampled_from([0, 1, 7, 100, 16384, 65535, 10**6])
sizes = st.one_of(st.integers(0, 300), st.sampled_from([16384, 16385, 40000, 66000]))


@given(
    window=windows,
    bodies=st.lists(sizes, min_size=1, max_size=5),
    frame_size=st.sampled_from([16384, 20000, 2**24 - 1]),
    later=st.lists(windows, max_size=3),
)
def test_no_window_is_overrun_and_all_arrives(
    window: int, bodies: list[int], frame_size: int, later: list[int]
) -> None:
    """Whatever the windows are, and become, h2 never sees more than it allowed, and in the end all.

    While a body waits, nothing further is begun.
    """
    wire = Wire(INITIAL_WINDOW_SIZE=window, MAX_FRAME_SIZE=frame_size)
    asked = [bytes([65 + place]) * size for place, size in enumerate(bodies)]
    wire.open(*asked)
    wire.exchange()
    for size in later:
        wire.server.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: size})
        wire.exchange()
    for _ in range(400):
        held = [number for number in wire.session.streams if number not in wire.whole]
        assert (wire.session.room == 0) is bool(held)
        if not held:
            break
        if wire.server.inbound_flow_control_window < 20000:
            wire.server.increment_flow_control_window(20000)
        for number in held:
            wire.server.increment_flow_control_window(9999, number)
        wire.exchange()
    assert [wire.bodies[number] for number in range(1, 2 * len(bodies), 2)] == asked


def test_room_follows_the_limit_of_streams() -> None:
    """The room is what the server allows now, less what is on the wire, and never below none."""
    wire = Wire(MAX_CONCURRENT_STREAMS=5)
    wire.open(b"1", b"2", b"3")
    assert wire.session.room == 2
    for limit, room in ((1, 0), (0, 0), (4, 1), (1000, 997)):
        wire.server.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: limit})
        wire.exchange()
        assert wire.session.room == room


def test_streams_run_out() -> None:
    """The last number there is gets used, and none after it."""
    wire = Wire()
    wire.session._next = LAST - 2  # noqa: SLF001 - opening them all would take an hour
    assert wire.session.room == 2
    for number in range(2):
        assert not wire.session.is_spent
        wire.session.open(number, Request("/3/device/1", (), (), b"{}"))
    assert wire.session.is_spent
    assert wire.session.room == 0
    wire.exchange()
    assert wire.whole == [LAST - 2, LAST]


def test_long_bodies_of_many_answers_do_not_stop_the_server() -> None:
    """What came is let in again: far more than one window can be answered over one connection."""
    wire = Wire()
    for number in wire.open(*[b"{}"] * 60):
        wire.exchange()
        wire.server.send_headers(number, [(":status", "400")])
        wire.server.send_data(number, b"x" * 4000, pad_length=200, end_stream=True)
    wire.exchange()
    assert {len(end.body) for end in wire.ends.values() if isinstance(end, StreamResponse)} == {
        4000
    }
    assert len(wire.ends) == 60


def test_an_answer_that_is_far_too_long_is_cut_off() -> None:
    """The body is kept up to the limit; the server hears that no more of it is wanted."""
    wire = Wire()
    (number,) = wire.open(b"{}")
    wire.exchange()
    wire.server.send_headers(number, [(":status", "400")])
    for _ in range(3):
        wire.server.send_data(number, b"x" * 5000)
    wire.exchange()
    end = wire.ends[number]
    assert isinstance(end, StreamResponse)
    assert (len(end.body), end.is_whole) == (MAX_BODY_BYTES, False)
    assert wire.resets == {number: CANCEL}


def test_what_is_given_up_is_reset_and_what_comes_for_it_is_ignored() -> None:
    """A cancelled stream comes back without an end; answers that cross with the reset harm none."""
    wire = Wire()
    numbers = wire.open(b"1", b"2", b"3")
    wire.exchange()
    wire.session.receive(head(5, BAD, is_end=False))
    assert wire.session.cancel(numbers) == [1, 3]
    crossing = head(1, BAD, is_end=False, parts=3) + data(1, b"{}", is_end=True, padding=9)
    wire.session.receive(crossing + head(3, OK, is_end=True) + data(5, b"{}", is_end=True))
    assert wire.session.ended == [(5, answer(400, b"", PAIRS_BAD, is_whole=False))]
    assert not wire.session.answered
    wire.exchange()
    assert wire.resets == {1: CANCEL, 3: CANCEL, 5: CANCEL}


def test_what_is_abandoned_has_ended_only_where_its_answer_had_begun() -> None:
    """When nothing more can come, a status that has come still counts."""
    wire = Wire()
    wire.open(b"1", b"2", b"3")
    wire.session.receive(head(3, OK, is_end=False))
    assert wire.session.abandon() == [1, 5]
    assert wire.session.answered == [3]
    assert not wire.session.streams


def test_an_answer_before_its_request_is_whole_ends_it() -> None:
    """What is left of a body is not sent any more once its answer has come."""
    wire = Wire(INITIAL_WINDOW_SIZE=10)
    (number,) = wire.open(b"x" * 50)
    wire.exchange()
    wire.session.receive(head(number, OK, is_end=True))
    wire.exchange()
    assert isinstance(wire.ends[number], StreamResponse)
    assert wire.resets == {number: CANCEL}
    assert wire.session.room == 1000


def test_a_stream_whose_window_grows_too_large_is_ended_alone() -> None:
    """A window of one stream beyond what there is costs that stream and no other."""
    wire = Wire()
    wire.open(b"x" * 65535, b"y" * 5)
    wire.session.receive(WindowUpdateFrame(3, window_increment=LAST).serialize())
    wire.hear()
    assert wire.ends[1] == "open"
    assert isinstance(wire.ends[3], Lost)
    assert wire.resets == {3: 3}


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (b'{"reason":"Shutdown"}', '{"reason":"Shutdown"}'),
        (b"", ""),
        (b"a\0b\r\nc\xff", "a b  c\ufffd"),
        (b"x" * 5000, "x" * 200),
    ],
)
def test_the_reason_of_a_farewell_is_kept(said: bytes, text: str) -> None:
    """What the server says is kept in a form that can be shown, and an empty word does not undo it.

    The bit before the last stream's number is ignored.
    """
    wire = Wire()
    wire.open(b"1", b"2")
    goaway = bytearray(GoAwayFrame(last_stream_id=1, additional_data=said).serialize())
    goaway[9] |= 0x80
    wire.session.receive(bytes(goaway) + GoAwayFrame(last_stream_id=1).serialize())
    assert wire.session.goaway == ("NO_ERROR", text)
    assert wire.session.handed_back == [3]


def test_a_ping_is_answered_with_what_it_carried() -> None:
    """PING is answered at once, an answer to ours is not."""
    wire = Wire()
    wire.session.receive(PingFrame(opaque_data=b"whatever").serialize())
    assert wire.session.to_send() == PingFrame(opaque_data=b"whatever", flags=["ACK"]).serialize()
    wire.session.ping()
    wire.exchange()
    assert wire.session.to_send() == b""
