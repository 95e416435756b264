"""What the HTTP server takes for a request, and what it answers: nothing is smuggled or lost."""

import json
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.edge import Edge, edge, request

from handbell.http_server.bounds import Bounds

SECOND = request(path="/second")
CHUNKED = "Transfer-Encoding: chunked"
BOUNDS = Bounds(head_bytes=4096, headers=20, pipelined=5)


@pytest.fixture(scope="module")
def running() -> Iterator[Edge]:
    """Give a server with the usual patience."""
    with edge(bounds=BOUNDS, loop=uvloop.new_event_loop) as running:
        yield running


@pytest.fixture
def server(running: Edge) -> Edge:
    """Give the server without what other tests have asked it."""
    running.asked.requests.clear()
    return running


def until_asked(server: Edge, path: str) -> None:
    """Return when the application is at a request, and the server has read what came with it."""
    deadline = time.monotonic() + 20
    while all(one["path"] != path for one in server.asked.requests):
        assert time.monotonic() < deadline, "it was not asked"
        time.sleep(0.005)


def paths(server: Edge) -> list[str]:
    """Return the paths that the application was asked since the last call."""
    asked = [one["path"] for one in server.asked.requests]
    server.asked.requests.clear()
    return asked


def post(*lines: str, body: str = "", path: str = "/first") -> bytes:
    """Return a POST."""
    return request(*lines, method="POST", path=path, body=body)


REFUSED = {
    "both lengths": post("Content-Length: 5", CHUNKED, body="0\r\n\r\n"),
    "both lengths, the other way": post(CHUNKED, "Content-Length: 5", body="0\r\n\r\n"),
    "two lengths": post("Content-Length: 5", "Content-Length: 6", body="abcde"),
    "one length twice": post("Content-Length: 5", "Content-Length: 5", body="abcde"),
    "a list of lengths": post("Content-Length: 5, 5", body="abcde"),
    "a signed length": post("Content-Length: +5", body="abcde"),
    "a negative length": post("Content-Length: -5", body="abcde"),
    "a length in hex": post("Content-Length: 0x5", body="abcde"),
    "no length's value": post("Content-Length:", body="abcde"),
    "an endless length": post("Content-Length: 99999999999999999999", body="abcde"),
    "gzip, then chunked": post("Transfer-Encoding: gzip, chunked", body="0\r\n\r\n"),
    "chunked, then gzip": post("Transfer-Encoding: chunked, gzip", body="0\r\n\r\n"),
    "chunked twice": post("Transfer-Encoding: chunked, chunked", body="0\r\n\r\n"),
    "two codings": post(CHUNKED, "Transfer-Encoding: identity", body="0\r\n\r\n"),
    "nearly chunked": post("Transfer-Encoding: xchunked", body="0\r\n\r\n"),
    "a control before chunked": post("Transfer-Encoding: \x0bchunked", body="0\r\n\r\n"),
    "a parameter of chunked": post("Transfer-Encoding: chunked;a=b", body="0\r\n\r\n"),
    "an empty coding": post("Transfer-Encoding:", "Content-Length: 5", body="abcde"),
    "chunked in HTTP/1.0": request(
        CHUNKED, method="POST", path="/first", version="1.0", body="0\r\n\r\n"
    ),
    "a space before the colon": post("Transfer-Encoding : chunked", body="0\r\n\r\n"),
    "a space in a name": post("X Y: a"),
    "an empty name": post(": a"),
    "a line without a colon": post("nonsense"),
    "a folded line": post("X: a", " b"),
    "a folded first line": b"GET /first HTTP/1.1\r\n Host: localhost\r\n\r\n",
    "a bare line feed": b"GET /first HTTP/1.1\nHost: localhost\n\n",
    "a bare line feed behind a header": b"GET /first HTTP/1.1\r\nHost: localhost\nX: b\r\n\r\n",
    "a bare line feed at the end": b"GET /first HTTP/1.1\r\nHost: localhost\r\n\n",
    "a bare carriage return": b"GET /first HTTP/1.1\r\nHost: localhost\rX: b\r\n\r\n",
    "a zero byte": post("X: a\x00b"),
    "a control": post("X: a\x01b"),
    "no host": b"GET /first HTTP/1.1\r\n\r\n",
    "two hosts": request("Host: other", path="/first"),
    "a fragment": request(path="/first#here"),
    "a path without a slash": request(path="first"),
    "a byte that is no ASCII": request(path="/first\xe9"),
    "a target of another scheme": request(path="ftp://localhost/first"),
    "a target with a user": request(path="http://user@localhost/first"),
    "a tunnel": request(method="CONNECT", path="localhost:443"),
    "a tunnel with a body": request(
        "Content-Length: 3", method="CONNECT", path="localhost:443", body="abc"
    ),
    "an unknown method": request(method="FROB", path="/first"),
    "a method in lower case": request(method="get", path="/first"),
    "HTTP/0.9": b"GET /first\r\n\r\n",
    "HTTP/0.9, named": request(path="/first", version="0.9"),
    "HTTP/1.2": request(path="/first", version="1.2"),
    "HTTP/2.0": request(path="/first", version="2.0"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}

BROKEN = {
    "a huge chunk": "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "a negative chunk": "-3\r\nabc\r\n0\r\n\r\n",
    "a chunk in C's hex": "0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk that is longer": "3\r\nabcd\r\n0\r\n\r\n",
    "a chunk without a size": "\r\nabc\r\n0\r\n\r\n",
    "a space behind the size": "3 \r\nabc\r\n0\r\n\r\n",
    "bare line feeds": "3\nabc\n0\n\n",
    "an extension that ends with a line feed": "3;a=b\nabc\r\n0\r\n\r\n",
    "a bare carriage return behind a chunk": "3\r\nabc\r0\r\n\r\n",
    "a length among the trailers": "3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n",
    "a coding among the trailers": "3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a folded trailer": "3\r\nabc\r\n0\r\nX: a\r\n b\r\n\r\n",
    "extensions without end": f"3;{'a' * 9000}",
    "trailers without end": "0\r\n" + "X: a\r\n" * 3000,
    "more around the chunks than in them": "1;aaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n" * 2000,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_two_could_read_in_two_ways_is_refused(name: str, server: Edge) -> None:
    """A request that a proxy might read differently is 400, and nothing behind it is a request."""
    answers = server.ask(REFUSED[name] + SECOND)
    assert [one[0] for one in answers] == [400]
    assert answers[0][1]["connection"] == "close"
    assert paths(server) == []


@pytest.mark.parametrize("is_dripped", [False, True])
@pytest.mark.parametrize("name", BROKEN)
def test_a_body_that_breaks_off_is_no_request(
    name: str,
    is_dripped: bool,  # noqa: FBT001
    server: Edge,
) -> None:
    """Bad chunks are 400; the application never sees the end of such a body, nor what follows."""
    data = post(CHUNKED, body=BROKEN[name]) + SECOND
    with server.connect() as client:
        if is_dripped:
            for place in range(0, len(data), 700):
                client.send(data[place : place + 700])
                time.sleep(0.001)
        else:
            client.send(data)
        assert [one[0] for one in client.answers()] == [400]
    assert paths(server) == []


ONE_REQUEST = {
    "a length with blanks": (post("Content-Length:\t3 ", body="abc"), "abc"),
    "chunks": (post(CHUNKED, body="3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n"), "abc0123456789"),
    "chunked in capitals": (post("transfer-ENCODING: CHUNKED", body="1\r\na\r\n0\r\n\r\n"), "a"),
    "extensions": (post(CHUNKED, body='3;a=b;c="d"\r\nabc\r\n0;last\r\n\r\n'), "abc"),
    "small chunks": (post(CHUNKED, body="1\r\nx\r\n" * 3000 + "0\r\n\r\n"), "x" * 3000),
    "a body of GET": (request("Content-Length: 3", path="/first", body="abc"), "abc"),
    "no body": (post("Content-Length: 0"), ""),
    "empty lines before": (b"\r\n\r\n" + post("Content-Length: 3", body="abc"), "abc"),
    "a body that looks like a request": (
        post(f"Content-Length: {len(SECOND)}", body=SECOND.decode()),
        SECOND.decode(),
    ),
    "h2c": (
        post(
            "Connection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c",
            "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
            "Content-Length: 3",
            body="abc",
        ),
        "abc",
    ),
    "h2c with chunks": (
        post("Upgrade: h2c", "Connection: Upgrade", CHUNKED, body="3\r\nabc\r\n0\r\n\r\n"),
        "abc",
    ),
    "h2c with a request as its body": (
        post(
            "Connection: upgrade",
            "Upgrade: h2c",
            f"Content-Length: {len(SECOND)}",
            body=SECOND.decode(),
        ),
        SECOND.decode(),
    ),
    "a websocket": (
        request(
            "Connection: keep-alive, Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
            path="/first",
        ),
        "",
    ),
    "TLS within": (post("Upgrade: TLS/1.0", "Connection: Upgrade"), ""),
    "two upgrades": (
        post("Upgrade: h2c", "Upgrade: foo", "Connection: Upgrade", "Content-Length: 1", body="a"),
        "a",
    ),
}


@pytest.mark.parametrize("pieces", ["whole", "bytes", "head and body"])
@pytest.mark.parametrize("name", ONE_REQUEST)
def test_a_request_is_one_however_it_comes(name: str, pieces: str, server: Edge) -> None:
    """The body arrives whole, offers to speak something else included; the next one follows."""
    data, body = ONE_REQUEST[name]
    with server.connect() as client:
        if pieces == "bytes":
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in data[:600]:
                client.send(bytes([byte]))
            client.send(data[600:])
        elif pieces == "head and body":
            head, mark, rest = data.lstrip().partition(b"\r\n\r\n")
            client.send(head + mark)
            time.sleep(0.01)
            client.send(rest)
        else:
            client.send(data)
        answer = client.answer()
        assert answer is not None
        assert answer[0] == 200
        said = json.loads(answer[2])
        assert (said["path"], said["body"]) == ("/first", body)
        assert "upgrade" not in dict(said["headers"])
        client.send(SECOND)
        following = client.answer()
        assert following is not None
        assert json.loads(following[2])["path"] == "/second"
    assert paths(server) == ["/first", "/second"]


@given(data=st.data())
@hypothesis_settings(max_examples=60, deadline=None)
def test_requests_keep_their_order_and_bodies_however_they_are_cut(
    running: Edge, data: st.DataObject
) -> None:
    """Pipelined requests of every framing, cut anywhere, are asked once each, in their order."""
    bodies = data.draw(st.lists(st.text("ab\r\n0;: ", max_size=40), min_size=1, max_size=5))
    wire = b""
    for number, body in enumerate(bodies):
        framing = data.draw(st.sampled_from(["length", "chunked", "upgrade", "trailers"]))
        path = f"/{number}"
        if framing == "length":
            wire += post(f"Content-Length: {len(body)}", body=body, path=path)
        elif framing == "upgrade":
            more = ("Upgrade: h2c", "Connection: Upgrade", f"Content-Length: {len(body)}")
            wire += post(*more, body=body, path=path)
        else:
            chunk = f"{len(body):x}\r\n{body}\r\n" if body else ""
            trailer = "Authorization: x\r\n" if framing == "trailers" else ""
            wire += post(CHUNKED, body=f"{chunk}0\r\n{trailer}\r\n", path=path)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=4)))
    with running.connect() as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
            client.send(wire[start:end])
        answers = [client.answer() for _ in bodies]
    said = [json.loads(answer[2]) for answer in answers if answer is not None]
    assert [one["body"] for one in said] == bodies
    assert [one["path"] for one in said] == [f"/{number}" for number in range(len(bodies))]
    assert not any("authorization" in dict(one["headers"]) for one in said)


@pytest.mark.parametrize(
    "field",
    [
        "Authorization: Bearer x",
        "Cookie: a=b",
        "X-Forwarded-For: 127.0.0.1",
        "Host: evil.example",
        "Upgrade: h2c",
        "Connection: close",
        "Expect: 100-continue",
        "Content-Type: application/x-ndjson",
    ],
)
def test_trailer_fields_are_dropped(field: str, server: Edge) -> None:
    """What stands behind a body is no header, whatever its name; the connection goes on."""
    with server.connect() as client:
        client.send(post(CHUNKED, "Trailer: X", body=f"3\r\nabc\r\n0\r\n{field}\r\n\r\n"))
        answer = client.answer()
        client.send(SECOND)
        assert client.answer() is not None
    assert answer is not None
    said = json.loads(answer[2])
    assert said["body"] == "abc"
    assert [name for name, _ in said["headers"]] == ["host", "transfer-encoding", "trailer"]
    paths(server)


def test_targets_with_a_host_name_it_above_the_header(server: Edge) -> None:
    """In absolute form the target's host counts, and path and query are as ever."""
    for target, expected in {
        "http://other.example:81/a%20b?c=d": ("other.example:81", "/a b", "c=d"),
        "HTTPS://other.example": ("other.example", "/", ""),
        "http://other.example?c=d": ("other.example", "/", "c=d"),
        "/a?b?c": ("localhost", "/a", "b?c"),
        "//a/b": ("localhost", "//a/b", ""),
        "*": ("localhost", "*", ""),
    }.items():
        said = json.loads(
            server.ask(request("Connection: close", path=target, method="OPTIONS"))[0][2]
        )
        host = [value for name, value in said["headers"] if name == "host"]
        assert (*host, said["path"], said["query"]) == expected
    paths(server)


def test_http_1_0_ends_with_its_answer(server: Edge) -> None:
    """An old client is told the length or the end, and never chunks; it needs no Host header."""
    for path, body in (("/chunks", b"one two"), ("/first", None)):
        answers = server.ask(f"GET {path} HTTP/1.0\r\n\r\n".encode() + SECOND)
        assert len(answers) == 1
        status, headers, content = answers[0]
        assert (status, headers["connection"]) == (200, "close")
        assert "transfer-encoding" not in headers
        assert body in (None, content)
    assert paths(server) == ["/chunks", "/first"]


def test_what_follows_a_last_request_is_none(server: Edge) -> None:
    """Behind Connection: close nothing more is asked."""
    assert len(server.ask(request("Connection: close", path="/first") + SECOND)) == 1
    assert paths(server) == ["/first"]


@pytest.mark.parametrize("path", ["/first", "/chunks", "/big"])
def test_head_is_answered_without_a_body(path: str, server: Edge) -> None:
    """The headers are those of GET, and the next answer follows them at once."""
    with server.connect() as client:
        client.send(request(method="HEAD", path=path) + SECOND)
        answer = client.answer("HEAD")
        following = client.answer()
    assert answer is not None
    assert answer[0] == 200
    assert "transfer-encoding" not in answer[1]
    assert following is not None
    assert json.loads(following[2])["path"] == "/second"
    paths(server)


def test_who_asks_for_leave_gets_it_when_the_body_is_wanted(server: Edge) -> None:
    """100 comes before the body is read; a refusal comes without it and ends the connection."""
    lines = ("Expect: 100-continue", "Content-Length: 3")
    with server.connect() as client:
        client.send(post(*lines))
        leave = client.answer()
        assert leave is not None
        assert leave[0] == 100
        client.send(b"abc")
        answer = client.answer()
        assert answer is not None
        assert json.loads(answer[2])["body"] == "abc"
    with server.connect() as client:
        # The body was not sent, so what follows would be taken for it.
        client.send(post(*lines, path="/early"))
        answer = client.answer()
        assert answer is not None
        assert (answer[0], answer[1]["connection"]) == (413, "close")
        assert client.is_closed()
    with server.connect() as client:
        client.send(post(*lines, body="abc"))
        answer = client.answer()
        assert answer is not None
        assert answer[0] == 200
    paths(server)


def test_a_body_that_nobody_reads_is_read_over(server: Edge) -> None:
    """An early answer arrives although the body is still coming, and the next request is found."""
    with server.connect() as client:
        client.send(post("Content-Length: 300000", path="/early"))
        answer = client.answer()
        assert answer is not None
        assert answer[0] == 413
        client.send(b"x" * 300_000 + SECOND)
        following = client.answer()
        assert following is not None
        assert json.loads(following[2])["path"] == "/second"
    paths(server)


def test_a_refusal_waits_for_the_answers_before_it(server: Edge) -> None:
    """Nonsense behind a request that is being answered does not take its answer."""
    with server.connect() as client:
        client.send(request(path="/wait") + SECOND + b"nonsense\r\n\r\n")
        until_asked(server, "/wait")
        server.call(server.asked.release.set)
        assert [one[0] for one in client.answers()] == [200, 200, 400]
    server.call(server.asked.release.clear)
    assert paths(server) == ["/wait", "/second"]


def test_so_many_requests_wait_on_one_connection(server: Edge) -> None:
    """Those within the bound are answered, then comes a refusal and the end."""
    with server.connect() as client:
        client.send(request(path="/wait") + SECOND * 50)
        until_asked(server, "/wait")
        server.call(server.asked.release.set)
        codes = [one[0] for one in client.answers()]
    server.call(server.asked.release.clear)
    assert codes == [200] * (1 + BOUNDS.pipelined) + [429]
    assert len(paths(server)) == 1 + BOUNDS.pipelined


def test_a_long_row_of_requests_is_no_large_head(server: Edge) -> None:
    """Only what belongs to an unfinished head counts, not what was read together with it."""
    with server.connect() as client:
        one = request("X: " + "a" * 1500, path="/first")
        client.send(one * 5 + one[:40])
        for _ in range(5):
            answer = client.answer()
            assert answer is not None
            assert answer[0] == 200
        client.send(one[40:])
        answer = client.answer()
        assert answer is not None
        assert answer[0] == 200
    assert len(paths(server)) == 6


@pytest.mark.parametrize(
    ("path", "status"), [("/raise", 500), ("/split", 500), ("/short", 500), ("/open", None)]
)
def test_a_mistake_of_the_application_ends_its_connection_alone(
    path: str, status: int | None, server: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the answer has not begun it is 500; no header is added through another's value."""
    with server.connect() as client:
        client.send(request(path=path))
        if status is None:
            client.socket.close()
            assert server.asked.gone.wait(5)
            paths(server)
            return
        answer = client.answer()
        assert answer is not None
        assert answer[0] == status
        assert "set-cookie" not in answer[1]
        assert client.is_closed()
    assert paths(server) == [path]
    assert any(record.exc_info for record in caplog.records)


def test_every_answer_has_a_date_and_names_no_software(server: Edge) -> None:
    """The date is there; what the server is written in is nobody's business."""
    headers = server.ask(SECOND)[0][1]
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", headers["date"])
    assert "server" not in headers
    paths(server)


def test_a_client_over_ipv6_is_served() -> None:
    """IPv6 is no different, and the client's address is told."""
    with edge(host="::1") as server:
        said: dict[str, Any] = json.loads(server.ask(SECOND)[0][2])
    assert said["client"][0] == "::1"
