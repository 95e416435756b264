"""Answers in every form that a server may give them, mixed and cut anywhere, against h2.

They are made of hyperframe's frames, so that they can be padded and mixed as no server would.
"""

from dataclasses import dataclass

from hyperframe.frame import (
    GoAwayFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st
from tests.wire import BAD, LAST, OK, PAIRS_BAD, PAIRS_OK, Wire, answer, block, data, head

from handbell.gateways.http2_values import End, Lost, StreamResponse

REFUSED = 7
PLAIN = {"bare": 200, "created": 201}


@dataclass(frozen=True)
class Reply:
    """What a server says on one stream, in steps that others may come between, and its end.

    ``body`` is that of a plain end, for who reads it in full.
    """

    steps: tuple[bytes, ...]
    end: End | str
    body: bytes = b""


paddings = st.one_of(st.none(), st.integers(0, 100))
lengths = st.integers(1, 5)


@st.composite
def replies(draw: st.DrawFn, number: int) -> Reply:
    """Draw one of the ways in which a server may end a stream."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    return KINDS[kind](draw, number)


def _bare(draw: st.DrawFn, number: int) -> Reply:
    extra = draw(st.sampled_from([b"", block(("apns-id", "1b2c")), block(("date", "x" * 60))]))
    return Reply((head(number, OK + extra, is_end=True),), "bare")


def _created(draw: st.DrawFn, number: int) -> Reply:
    name = draw(st.sampled_from([b"\x48", b"\x08", b"\x18"]))
    value = draw(st.sampled_from([b"\x82\x10\x03", b"\x03201"]))
    extra = draw(st.sampled_from([b"", block(("location", "/m/1")), block(("date", "x" * 60))]))
    return Reply((head(number, name + value + extra, is_end=True),), "created")


def _bare_after_interim(draw: st.DrawFn, number: int) -> Reply:
    early = head(number, block((":status", draw(st.sampled_from(["100", "103"])))), is_end=False)
    return Reply((*[early] * draw(lengths), head(number, OK, is_end=True)), "bare")


def _in_full(draw: st.DrawFn, number: int) -> Reply:
    status = draw(st.sampled_from(["204", "400", "410", "429", "500", "503"]))
    pairs = ((":status", status), ("apns-id", "1b2c"))
    text = head(number, block(*pairs), is_end=True, padding=draw(paddings), parts=draw(lengths))
    return Reply((text,), answer(int(status), b"", pairs))


def _after_a_table_size(_: st.DrawFn, number: int) -> Reply:
    return Reply((head(number, b"\x20" + OK, is_end=True),), answer(200, b"", PAIRS_OK))


def _with_body(draw: st.DrawFn, number: int) -> Reply:
    parts = draw(st.lists(st.binary(max_size=60), min_size=1, max_size=4))
    steps = [head(number, BAD, is_end=False, parts=draw(lengths))]
    for place, part in enumerate(parts, 1):
        is_end = place == len(parts)
        steps.append(data(number, part, is_end=is_end, padding=draw(paddings)))
    return Reply(tuple(steps), answer(400, b"".join(parts), PAIRS_BAD))


def _with_trailers(draw: st.DrawFn, number: int) -> Reply:
    steps = (
        head(number, OK, is_end=False),
        data(number, b"yes", is_end=False),
        head(number, block(("x-cost", "1")), is_end=True, padding=draw(paddings)),
    )
    return Reply(steps, "bare", b"yes")


def _ok_with_body(draw: st.DrawFn, number: int) -> Reply:
    """Give a 200 with a body, of which nothing is read unless its head comes in parts."""
    parts = draw(st.lists(st.binary(max_size=60), min_size=1, max_size=4))
    count = draw(lengths)
    steps = [head(number, OK, is_end=False, parts=count)]
    for place, part in enumerate(parts, 1):
        is_end = place == len(parts)
        steps.append(data(number, part, is_end=is_end, padding=draw(paddings)))
    body = b"".join(parts)
    is_read = len(steps[0]) > len(head(number, OK, is_end=False))
    return Reply(tuple(steps), answer(200, body, PAIRS_OK) if is_read else "bare", body)


def _ok_then_reset(draw: st.DrawFn, number: int) -> Reply:
    steps = (
        head(number, OK, is_end=False),
        data(number, b"{", is_end=False),
        RstStreamFrame(number, error_code=draw(st.integers(0, 20))).serialize(),
    )
    return Reply(steps, "bare", b"{")


def _reset_after_head(draw: st.DrawFn, number: int) -> Reply:
    steps = (
        head(number, BAD, is_end=False),
        data(number, b"{}", is_end=False),
        RstStreamFrame(number, error_code=draw(st.integers(0, 20))).serialize(),
    )
    return Reply(steps, answer(400, b"{}", PAIRS_BAD, is_whole=False))


def _broken_after_head(draw: st.DrawFn, number: int) -> Reply:
    """Give an answer's head, and then what no answer may have; 200 has been said by then."""
    pairs, block_of_them = draw(st.sampled_from([(PAIRS_OK, OK), (PAIRS_BAD, BAD)]))
    breaks = draw(
        st.sampled_from(
            [
                head(number, OK, is_end=False),
                WindowUpdateFrame(number).serialize(),
                RstStreamFrame(number, error_code=REFUSED).serialize(),
            ]
        )
    )
    steps = (head(number, block_of_them, is_end=False), breaks)
    is_ok = pairs is PAIRS_OK
    return Reply(steps, "bare" if is_ok else answer(400, b"", pairs, is_whole=False))


def _answered_then_reset(_: st.DrawFn, number: int) -> Reply:
    return Reply((head(number, OK, is_end=True), RstStreamFrame(number).serialize()), "bare")


def _reset(draw: st.DrawFn, number: int) -> Reply:
    code = draw(st.sampled_from([0, 1, 2, 8, 11, 99, 2**32 - 1]))
    return Reply((RstStreamFrame(number, error_code=code).serialize(),), "lost")


def _refused(_: st.DrawFn, number: int) -> Reply:
    return Reply((RstStreamFrame(number, error_code=REFUSED).serialize(),), "refused")


def _malformed(draw: st.DrawFn, number: int) -> Reply:
    interim = block((":status", "103"))
    steps = draw(
        st.sampled_from(
            [
                (head(number, interim, is_end=True),),
                (head(number, block(("date", "1")), is_end=True),),
                (head(number, block((":status", "2000")), is_end=False),),
                (head(number, block((":status", "099")), is_end=False),),
                (data(number, b"x", is_end=False),),
                (WindowUpdateFrame(number).serialize(),),
            ]
        )
    )
    return Reply(steps, "lost")


def _silent(_: st.DrawFn, number: int) -> Reply:  # noqa: ARG001 - as its siblings
    return Reply((), "open")


KINDS = {
    function.__name__: function
    for function in (
        _bare,
        _created,
        _bare_after_interim,
        _in_full,
        _after_a_table_size,
        _with_body,
        _with_trailers,
        _ok_with_body,
        _ok_then_reset,
        _reset_after_head,
        _broken_after_head,
        _answered_then_reset,
        _reset,
        _refused,
        _malformed,
        _silent,
    )
}
NOISE = (
    PingFrame(opaque_data=b"12345678").serialize(),
    PingFrame(opaque_data=b"handbell", flags=["ACK"]).serialize(),
    SettingsFrame(settings={3: 500, 0x99: 7, 6: 100}).serialize(),
    SettingsFrame(flags=["ACK"]).serialize(),
    WindowUpdateFrame(0, window_increment=1000).serialize(),
    WindowUpdateFrame(1, window_increment=LAST).serialize(),
    b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x80\x00\x00\x01",  # the bit before a number is ignored
    PriorityFrame(99, depends_on=1, stream_weight=3).serialize(),
    b"\x00\x00\x03\xbb\xff\x00\x00\x00\x07new",  # a frame of a type that nobody knows
    b"\x00\x00\x01\x0a\x00\x00\x00\x00\x00\xff",  # an ALTSVC that makes no sense
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[Reply], bytes, list[int]]:
    """Draw replies on some streams, their steps mixed with each other, and where they are cut."""
    given_ = [draw(replies(2 * place + 1)) for place in range(draw(st.integers(1, 8)))]
    queues = [list(reply.steps) for reply in given_]
    queues.append(draw(st.lists(st.sampled_from(NOISE), max_size=5)))
    said = b""
    while left := [queue for queue in queues if queue]:
        said += draw(st.sampled_from(left)).pop(0)
    cuts = draw(st.lists(st.integers(0, len(said)), max_size=12))
    return given_, said, sorted(cuts)


@given(conversation=conversations(), is_listening=st.booleans())
def test_each_item_ends_once_and_as_the_server_said(
    conversation: tuple[list[Reply], bytes, list[int]], *, is_listening: bool
) -> None:
    """However answers are mixed, padded and cut, each item has its one end; h2 has no complaint."""
    given_, said, cuts = conversation
    wire = Wire(is_listening=is_listening)
    wire.open(*[b"{}"] * len(given_))
    wire.hear()
    for begin, stop in zip([0, *cuts], [*cuts, len(said)], strict=True):
        wire.session.receive(said[begin:stop])
        wire.hear()
    for number, reply in zip(range(1, 99, 2), given_, strict=False):
        end = wire.ends[number]
        if reply.end in PLAIN and end != reply.end:  # it was read in full
            assert isinstance(end, StreamResponse)
            assert (end.status, end.body) == (PLAIN[str(reply.end)], reply.body)
        elif reply.end == "lost":
            assert isinstance(end, Lost)
            assert end.reason == "StreamReset"
        else:
            assert end == reply.end


@given(conversation=conversations(), place=st.integers(-1, 8), is_announced=st.booleans())
def test_a_goaway_divides_what_was_processed(
    conversation: tuple[list[Reply], bytes, list[int]], place: int, *, is_announced: bool
) -> None:
    """Open streams above the last one are refused, but for those whose answer has begun."""
    given_, said, cuts = conversation
    said = said[: cuts[0]] if cuts else said
    wire = Wire()
    wire.open(*[b"{}"] * len(given_))
    wire.session.receive(said)
    before = wire.ends
    if is_announced and wire.session._block is None and not wire.session._rest:  # noqa: SLF001
        wire.session.receive(GoAwayFrame(last_stream_id=LAST).serialize())
        assert wire.ends == before
    if wire.session._block is not None or wire.session._rest:  # noqa: SLF001
        return  # cut within a frame: nothing can come between
    last = max(0, 2 * place + 1)
    wire.session.receive(GoAwayFrame(last_stream_id=last, error_code=2).serialize())
    assert wire.session.is_spent
    assert wire.session.room == 0
    for number, end in wire.ends.items():
        if before[number] != "open" or number <= last:
            assert end == before[number]
        else:
            assert end in {"handed back", "bare"} or isinstance(end, StreamResponse)
    wire.hear()
