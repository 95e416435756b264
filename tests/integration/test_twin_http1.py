"""The twin's HTTP/1.1, by bytes on a socket."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from handbell.twin.threaded import RunningTwin, start_twin

PAGE = b"POST /none HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTwin]:
    """Run a twin for the file."""
    with start_twin(tmp_path_factory.mktemp("twin")) as twin:
        yield twin


@contextmanager
def connected(twin: RunningTwin, *, alpn: str | None = "http/1.1") -> Iterator[ssl.SSLSocket]:
    """Open a connection to FCM."""
    context = ssl.create_default_context(cafile=str(twin.ca_file))
    if alpn:
        context.set_alpn_protocols([alpn])
    where = urlsplit(twin.fcm_url)
    plain = socket.create_connection((where.hostname or "", where.port or 0), timeout=5)
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
        yield secure


def read_until(client: ssl.SSLSocket, count: int, mark: bytes = b"HTTP/1.1 ") -> bytes:
    """Return what was answered once so many answers have begun and the last page has ended."""
    received = b""
    while received.count(mark) < count or not received.rstrip().endswith(b"</ins>"):
        part = client.recv(65_536)
        assert part, received
        received += part
    return received


def test_requests_that_come_at_once_are_answered_in_turn(twin: RunningTwin) -> None:
    """A client may send the next request before it has the answer."""
    with connected(twin) as client:
        client.sendall(PAGE * 3)
        assert read_until(client, 3).count(b"HTTP/1.1 404") == 3


def test_a_late_answer_does_not_lose_the_next_request(twin: RunningTwin) -> None:
    """What comes while an answer is late is answered after it."""
    twin.add_fault("slow", side="fcm", seconds=0.05)
    with connected(twin) as client:
        client.sendall(PAGE + PAGE)
        assert read_until(client, 2).count(b"HTTP/1.1 404") == 2


def test_without_alpn_the_first_bytes_decide(twin: RunningTwin) -> None:
    """A client that names no protocol is answered in the one that it speaks."""
    with connected(twin, alpn=None) as client:
        client.sendall(PAGE[:4])
        client.sendall(PAGE[4:])
        assert read_until(client, 1).startswith(b"HTTP/1.1 404")


def test_a_body_is_asked_for(twin: RunningTwin) -> None:
    """A client that expects 100-continue gets it, and then its answer."""
    head, _, body = PAGE.partition(b"\r\n\r\n")
    with connected(twin) as client:
        client.sendall(head + b"\r\nexpect: 100-continue\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 100")
        client.sendall(body)
        assert read_until(client, 1).startswith(b"HTTP/1.1 404")


def test_a_head_alone_has_no_body(twin: RunningTwin) -> None:
    """HEAD is answered by the head, and the connection goes on."""
    with connected(twin) as client:
        client.sendall(b"HEAD /none HTTP/1.1\r\nhost: x\r\n\r\n" + PAGE)
        assert read_until(client, 2).count(b"<!DOCTYPE") == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n",
    ],
    ids=["no request", "no host", "no length"],
)
def test_what_is_no_request_is_refused(twin: RunningTwin, sent: bytes) -> None:
    """It gets 400, and the connection ends."""
    with connected(twin) as client:
        client.sendall(sent)
        answered = b"".join(iter(lambda: client.recv(4096), b""))
    assert answered.startswith(b"HTTP/1.1 400")


def test_an_endless_body_ends_the_connection(twin: RunningTwin) -> None:
    """Nothing is kept of a body without an end."""
    with connected(twin) as client, pytest.raises(OSError, match=r"."):
        _send_without_end(client)


def _send_without_end(client: ssl.SSLSocket) -> None:
    client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(256):
        client.sendall(b"10000\r\n" + b"x" * 65_536 + b"\r\n")


def test_apples_sides_speak_no_http1(twin: RunningTwin) -> None:
    """A connection that speaks HTTP/1.1 to APNs is cut."""
    context = ssl.create_default_context(cafile=str(twin.ca_file))
    where = urlsplit(twin.production_url)
    with (
        socket.create_connection((where.hostname or "", where.port or 0), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as client,
    ):
        client.sendall(PAGE)
        try:
            assert client.recv(10) == b""
        except OSError:
            return
