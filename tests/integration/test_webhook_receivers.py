"""What a receiver of webhooks may do with a call, and what becomes of it: bytes as they come."""

import contextlib
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from email.utils import formatdate
from itertools import chain, repeat
from pathlib import Path

import pytest

from handbell._url_target import Resolve
from handbell.delivery.webhooks.call_target import CallResult
from handbell.delivery.webhooks.safe_http import MOST_ANSWER_BYTES, OutboundOptions
from handbell.twin.certificates import Authority

NEVER = threading.Event()
OVER = b"HTTP/1.1 204 No Content\r\n\r\n"
Pieces = Callable[[], Iterable[bytes]]


class _Receiver(socketserver.ThreadingTCPServer):
    """Answers each call with pieces, one each hundredth of a second, for as long as it lives."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, pieces: Pieces, tls: ssl.SSLContext | None, host: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), _Handler)
        self.pieces = pieces
        self.tls = tls
        self.calls: list[bytes] = []
        self.arrived = threading.Event()
        self.ended = threading.Event()

    @property
    def port(self) -> int:
        """The port that it is called at."""
        return int(self.server_address[1])


class _Handler(socketserver.BaseRequestHandler):
    server: _Receiver

    def handle(self) -> None:
        opened, tls = self.request, self.server.tls
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.suppress(OSError))  # callers that go away
            if tls is not None:
                opened = stack.enter_context(tls.wrap_socket(opened, server_side=True))
            got = b""
            while not got.endswith(b"{}"):
                piece = opened.recv(65_536)
                if not piece:
                    return
                got += piece
            self.server.calls.append(got)
            self.server.arrived.set()
            for piece in self.server.pieces():
                opened.sendall(piece)
                if self.server.ended.wait(0.01):
                    return


@contextlib.contextmanager
def receiving(
    pieces: Pieces, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> Iterator[_Receiver]:
    """Run a receiver."""
    with _Receiver(pieces, tls, host) as receiver:
        thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield receiver
        finally:
            receiver.ended.set()
            receiver.shutdown()
            thread.join()


def _loopback(_host: str, _port: int) -> list[str]:
    return ["127.0.0.1"]


def call(
    receiver: _Receiver,
    *,
    seconds: float = 20,
    resolve: Resolve = _loopback,
    ca_file: Path | None = None,
    host: str = "backend.example",
    stop: threading.Event = NEVER,
) -> CallResult:
    """Call a receiver, which is on loopback."""
    scheme = "http" if receiver.tls is None else "https"
    outbound = OutboundOptions(
        allow_private=True, resolve=resolve, ca_file=ca_file, request_seconds=seconds
    )
    return outbound.post(f"{scheme}://{host}:{receiver.port}/hook", b"{}", {}, stop=stop)


def _letters(text: bytes) -> Iterator[bytes]:
    return (bytes([each]) for each in text)


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        (lambda: [OVER], 204),
        (lambda: [b"HTTP/1.0 200 OK\r\n\r\nwell"], 200),
        (lambda: [b"HTTP/1.1 202\r\ncontent-length: 0\r\n\r\n"], 202),
        (lambda: [b"HTTP/1.1 100 Continue\r\n\r\n", OVER], 204),
        (lambda: [b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 3, OVER], 204),
        (lambda: _letters(OVER), 204),
        (lambda: [b"HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:1/\r\n\r\n"], 307),
        (lambda: [b"HTTP/1.1 500 No\r\ncontent-length: 9\r\n\r\nbroke"], 500),
        (lambda: [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"], 200),
    ],
)
def test_a_status_is_the_answer(pieces: Pieces, status: int) -> None:
    """Whatever version it is in, what came before it, and whether its body is whole."""
    with receiving(pieces) as receiver:
        answer = call(receiver)
    assert (answer.status, answer.reason) == (status, f"answered {status}")
    assert receiver.calls[0].startswith(b"POST /hook HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "pieces",
    [
        lambda: chain([b"HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\n"], repeat(b"x")),
        lambda: chain(
            [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"], repeat(b"1\r\nx\r\n")
        ),
        lambda: chain([b"HTTP/1.0 200 OK\r\n\r\n"], repeat(b"x")),
        lambda: chain([b"HTTP/1.0 200 OK\r\n\r\n"], repeat(b"x" * MOST_ANSWER_BYTES)),
    ],
    ids=["length", "chunks", "until it closes", "fast"],
)
def test_a_body_without_end_does_not_hold_the_call(pieces: Pieces) -> None:
    """Byte by byte or all at once, the call ends with the status that came before it."""
    with receiving(pieces) as receiver:
        assert call(receiver, seconds=0.3).status == 200


@pytest.mark.parametrize(
    "pieces",
    [
        lambda: repeat(b""),
        lambda: chain([b"HTTP/1.1 2"], repeat(b"0")),
        lambda: chain([b"HTTP/1.1 200 OK\r\n"], repeat(b"a: b\r\n")),
        lambda: chain([b"HTTP/1.1 200 OK\r\na: "], repeat(b"b")),
        lambda: repeat(b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["silence", "status", "headers", "header", "continue"],
)
def test_a_head_that_drips_does_not_hold_the_call(pieces: Pieces) -> None:
    """The time is for all of a call: bytes that come now and then do not lengthen it."""
    with receiving(pieces) as receiver:
        answer = call(receiver, seconds=0.3)
    assert answer == (None, "it did not answer within 0.3 seconds", None)


@pytest.mark.parametrize(
    "line",
    [b"a: b\r\n", b"a" * 1000, b"\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"],
    ids=["headers", "one header", "empty lines", "continue"],
)
def test_a_head_without_end_is_not_read_on(line: bytes) -> None:
    """However fast it comes, a head is read no further than any answer."""
    first = b"" if line[:1] in (b"\r", b"H") else b"HTTP/1.1 200 OK\r\n"
    with receiving(lambda: chain([first], repeat(line * 20_000))) as receiver:
        answer = call(receiver)
    assert answer.status is None
    assert "HTTP" in answer.reason or f"{MOST_ANSWER_BYTES} bytes" in answer.reason


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        (list, "it gave no answer, and closed the connection"),
        (lambda: [b"HTTP/1.1 200 OK\r\nx"], "it broke off its answer, and closed the connection"),
        (lambda: [b"SSH-2.0-OpenSSH_9.2\r\n\r\n"], "its answer is not HTTP/1.1"),
        (lambda: [b"\x16\x03\x01\x02\x00\r\n\r\n"], "its answer is not HTTP/1.1"),
        (lambda: [b"HTTP/1.1 101 Switch\r\nupgrade: x\r\n\r\n"], "its answer is not HTTP/1.1"),
        (lambda: [b"HTTP/1.1 200 OK\r\nno header\r\n\r\n"], "its answer is not HTTP/1.1"),
    ],
)
def test_what_is_no_answer_is_told_in_words(pieces: Pieces, reason: str) -> None:
    """A receiver that closes, or speaks something else, is named as what it is."""
    with receiving(pieces) as receiver:
        answer = call(receiver)
    assert answer.status is None
    assert answer.reason.startswith(reason)


def test_a_receiver_that_is_not_there_is_told_in_words() -> None:
    """A port at which nobody listens has refused the connection."""
    with receiving(list) as receiver:
        pass
    assert call(receiver).reason == "Connection refused"


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("120", 120),
        ("0", None),
        ("soon", None),
        ("-5", None),
        ("9" * 400, 86_400),
        (formatdate(2_000_000_600, usegmt=True), 600),
    ],
)
def test_the_wait_that_a_receiver_asks_for_is_read(asked: str, seconds: int | None) -> None:
    """In seconds or as a date by its own clock; what cannot be read is none."""
    date = formatdate(2_000_000_000, usegmt=True)
    head = f"HTTP/1.1 503 No\r\nRetry-After: {asked}\r\nDate: {date}\r\ncontent-length: 0\r\n\r\n"
    with receiving(lambda: [head.encode()]) as receiver:
        assert call(receiver).retry_after == seconds


def test_a_call_is_broken_off_when_the_sender_stops() -> None:
    """Also one whose receiver sends a byte now and then."""
    stop = threading.Event()
    with receiving(lambda: chain([b"HTTP/1.1 200 OK\r\na: "], repeat(b"b"))) as receiver:

        def end() -> None:
            receiver.arrived.wait(20)
            stop.set()

        stopping = threading.Thread(target=end)
        stopping.start()
        answer = call(receiver, seconds=300, stop=stop)
        stopping.join()
    assert answer == (None, "broken off, as the sender stops", None)


@pytest.mark.parametrize(
    "found",
    [
        ["::1", "127.0.0.1"],
        ["127.0.0.1", "::1"],
        ["127.0.0.2", "127.0.0.3", "127.0.0.1"],
    ],
)
def test_each_address_of_a_host_is_tried(found: list[str]) -> None:
    """IPv6 and IPv4: a call arrives if one of them takes it."""
    with receiving(lambda: [OVER]) as receiver:
        assert call(receiver, resolve=lambda _host, _port: found).status == 204


def test_a_host_with_ipv6_alone_is_called() -> None:
    """By a name, and by the address itself, which the request names in brackets."""
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with receiving(lambda: [OVER], host="::1") as receiver:
        assert call(receiver, resolve=lambda _host, _port: ["::1"]).status == 204
        assert call(receiver, host="[::1]", resolve=lambda _host, _port: ["::1"]).status == 204
        assert f"host: [::1]:{receiver.port}\r\n".encode() in receiver.calls[1].lower()


def test_an_address_that_changes_after_the_check_is_not_called() -> None:
    """A name is looked up once: the second answer, a moment later, is asked for by nobody."""
    asked: list[str] = []

    def rebinding(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.2"] if len(asked) == 1 else ["127.0.0.1"]

    with receiving(lambda: [OVER]) as inside:
        assert call(inside, resolve=rebinding).reason == "Connection refused"
    assert asked == ["backend.example"]
    assert inside.calls == []


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 204), ("localhost.", 204), ("127.0.0.1", 204), ("other.example", None)],
)
def test_a_certificate_is_of_the_name_that_is_called(
    tmp_path: Path, host: str, status: int | None
) -> None:
    """The name of the webhook counts, not the address; nothing is sent to anybody else."""
    authority = Authority.open(tmp_path / "tls")
    tls = authority.server_context()
    tls.set_alpn_protocols(["http/1.1"])
    with receiving(lambda: [OVER], tls) as receiver:
        answer = call(receiver, host=host, ca_file=authority.ca_file)
        assert answer.status == status, answer.reason
        if status is None:
            assert "certificate cannot be verified: Hostname mismatch" in answer.reason
            assert receiver.calls == []


def test_tls_that_never_begins_does_not_hold_the_call(tmp_path: Path) -> None:
    """A receiver that takes the connection and says nothing meets the time of a call."""
    ca_file = Authority.open(tmp_path / "tls").ca_file
    with socket.create_server(("127.0.0.1", 0)) as silent:
        outbound = OutboundOptions(
            allow_private=True, resolve=_loopback, ca_file=ca_file, request_seconds=0.3
        )
        url = f"https://backend.example:{silent.getsockname()[1]}/"
        answer = outbound.post(url, b"", {}, stop=NEVER)
        assert answer.reason == "it did not answer within 0.3 seconds"
        quick = OutboundOptions(
            allow_private=True, resolve=_loopback, ca_file=ca_file, connect_seconds=0.3
        )
        answer = quick.post(url, b"", {}, stop=NEVER)
        assert answer.reason == "no connection within 0.3 seconds"


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """A call without anything to check it by is not made."""
    file = tmp_path / "none.pem"
    with receiving(lambda: [OVER], ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) as receiver:
        answer = call(receiver, ca_file=file)
    assert (answer.status, receiver.calls) == (None, [])
    assert f"{file} cannot be read as trusted certificates" in answer.reason
