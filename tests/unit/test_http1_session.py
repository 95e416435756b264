"""Our HTTP/1.1 session against h11 as the server, and against what no server should say."""

from contextlib import suppress
from itertools import pairwise

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.gateways.http1_session import MOST_HEAD_BYTES, Http1Session
from handbell.gateways.http2_frames import ProtocolFault
from handbell.gateways.http2_values import MAX_BODY_BYTES, Request, StreamResponse

REQUEST = Request("/push/a?b", (("urgency", "high"),), (("ttl", "60"),), b"\x00body")


def _session() -> Http1Session[str]:
    session: Http1Session[str] = Http1Session("push.example.com:8443")
    session.open("one", REQUEST)
    return session


def _answer(status: int, body: bytes, *more: tuple[str, str]) -> bytes:
    """Return what h11 writes as a server's answer."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(_session().to_send())
    while server.next_event() is not h11.PAUSED:
        if server.their_state is h11.DONE:
            break
    parts = (
        h11.Response(status_code=status, headers=[("content-length", str(len(body))), *more]),
        h11.Data(data=body),
        h11.EndOfMessage(),
    )
    return b"".join(server.send(part) or b"" for part in parts)


def test_a_request_is_what_a_server_reads() -> None:
    """h11 reads method, path, host, headers and body as they were given."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(_session().to_send())
    request, data, end = (server.next_event() for _ in range(3))
    assert isinstance(request, h11.Request)
    assert (request.method, request.target) == (b"POST", b"/push/a?b")
    assert dict(request.headers) == {
        b"host": b"push.example.com:8443",
        b"content-length": b"5",
        b"urgency": b"high",
        b"ttl": b"60",
    }
    assert isinstance(data, h11.Data)
    assert data.data == REQUEST.body
    assert isinstance(end, h11.EndOfMessage)


@given(
    st.sampled_from([200, 201, 202, 400, 404, 410, 429, 503]),
    st.binary(max_size=200),
    st.lists(st.integers(0, 400), max_size=5),
)
def test_an_answer_ends_its_request_however_it_is_cut(
    status: int, body: bytes, cuts: list[int]
) -> None:
    """One end, with status, headers and body; then the connection takes the next request."""
    session = _session()
    session.to_send()
    said = _answer(status, body, ("Retry-After", "7"))
    places = sorted({0, len(said), *(min(cut, len(said)) for cut in cuts)})
    for begin, end in pairwise(places):
        session.receive(said[begin:end])
    ((item, answer),) = session.ended
    assert item == "one"
    assert isinstance(answer, StreamResponse)
    assert (answer.status, answer.body, answer.is_whole) == (status, body, True)
    assert answer.headers()["retry-after"] == "7"
    assert (session.room, session.is_spent) == (1, False)
    session.open("two", REQUEST)
    session.receive(_answer(201, b""))
    assert [item for item, _ in session.ended] == ["one", "two"]


def test_one_request_is_out_at_a_time() -> None:
    """Nothing is pipelined."""
    session = _session()
    assert (session.room, session.max_streams, list(session.streams.values())) == (0, 1, ["one"])


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"HTTP/1.1 201 Created\r\nconnection: close\r\n\r\n", id="until-closed"),
        pytest.param(
            b"HTTP/1.1 201 Created\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", id="close"
        ),
        pytest.param(b"HTTP/1.0 201 Created\r\ncontent-length: 0\r\n\r\n", id="http-1.0"),
    ],
)
def test_a_connection_that_is_closed_is_not_used_again(said: bytes) -> None:
    """The answer counts, and the next request goes elsewhere."""
    session = _session()
    session.receive(said)
    assert session.abandon() == []
    ((_, answer),) = session.ended
    assert isinstance(answer, StreamResponse)
    assert (answer.status, answer.is_whole) == (201, True)
    assert (session.room, session.is_spent) == (0, True)


def test_an_answer_that_breaks_off_is_marked() -> None:
    """Its head is certain, the rest is not."""
    session = _session()
    session.receive(b"HTTP/1.1 410 Gone\r\ncontent-length: 10\r\n\r\nhalf")
    assert session.abandon() == []
    ((_, answer),) = session.ended
    assert answer == StreamResponse(410, b"half", ((b"content-length", b"10"),), is_whole=False)


def test_no_answer_gives_the_item_back() -> None:
    """Whether it was processed is unknown."""
    assert _session().abandon() == ["one"]
    session = _session()
    assert session.cancel([1]) == ["one"]
    assert session.is_spent


def test_early_answers_are_passed_over() -> None:
    """An interim answer ends nothing."""
    session = _session()
    session.receive(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
    assert session.ended == []
    session.receive(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")
    assert len(session.ended) == 1


def test_a_long_answer_is_cut_off() -> None:
    """No more of a body is kept than of any other."""
    session = _session()
    size = 3 * MAX_BODY_BYTES
    session.receive(b"HTTP/1.1 400 Bad\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
    ((_, answer),) = session.ended
    assert isinstance(answer, StreamResponse)
    assert (len(answer.body), answer.is_whole) == (MAX_BODY_BYTES, False)
    assert session.is_spent


def test_who_answers_without_being_asked_is_left() -> None:
    """What came before a request is not taken for its answer."""
    session = _session()
    said = _answer(201, b"")
    session.receive(said + said)
    assert len(session.ended) == 1
    assert (session.room, session.is_spent) == (0, True)
    fresh: Http1Session[str] = Http1Session("push.example.com")
    with suppress(ProtocolFault):
        fresh.receive(said)
    assert fresh.ended == []
    assert fresh.is_spent


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"PRI * HTTP/2.0\r\n\r\n", id="http2"),
        pytest.param(b"\x15\x03\x01\x00\x02", id="tls"),
        pytest.param(b"HTTP/1.1 twohundred\r\n\r\n", id="no-status"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", id="no-length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: " + b"y" * (MOST_HEAD_BYTES + 1), id="endless-head"),
    ],
)
def test_what_is_not_http_ends_the_connection(said: bytes) -> None:
    """The fault is told, and the request is in doubt."""
    session = _session()
    with pytest.raises(ProtocolFault, match=r"not HTTP/1\.1"):
        session.receive(said)
    assert session.is_spent
    assert session.abandon() == ["one"]


@given(st.lists(st.binary(max_size=100), max_size=8))
def test_whatever_is_said_no_item_is_lost_or_told_twice(pieces: list[bytes]) -> None:
    """Each item ends once: with an answer, or handed back."""
    session = _session()
    with suppress(ProtocolFault):
        for piece in (b"HTTP/1.1 ", *pieces):
            session.receive(piece)
    assert [*session.abandon(), *(item for item, _ in session.ended)] == ["one"]


@pytest.mark.parametrize(
    "request_",
    [
        REQUEST._replace(path="/a b"),
        REQUEST._replace(path="/a\r\nhost: b"),
        REQUEST._replace(own=(("x", "a\r\nb: c"),)),
    ],
    ids=["blank", "line-end-in-path", "line-end-in-header"],
)
def test_what_cannot_be_sent_is_refused(request_: Request) -> None:
    """Nothing of it is written."""
    session: Http1Session[str] = Http1Session("push.example.com")
    with pytest.raises(h11.LocalProtocolError):
        session.open("one", request_)
    assert session.to_send() == b""
    assert session.streams == {}
