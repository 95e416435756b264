"""How long and how many: every wait of a client is bounded, for plain HTTP and TLS alike."""

import asyncio
import contextlib
import json
import resource
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import uvloop
from tests.edge import Client, Edge, edge, request

from handbell.http_server.bounds import Bounds, most_connections
from handbell.http_server.networks import network_of
from handbell.twin.certificates import Authority

BOUNDS = Bounds(
    head_seconds=0.3,
    body_seconds=0.4,
    idle_seconds=0.4,
    keep_alive_seconds=0.3,
    linger_seconds=0.2,
    connections=12,
    all_connections=40,
    look_seconds=0.05,
)
PATIENT = replace(BOUNDS, head_seconds=20, body_seconds=20, idle_seconds=20, keep_alive_seconds=20)
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
KINDS = [(loop, tls) for loop in LOOPS for tls in (False, True)]
IDS = [f"{loop}-{'tls' if tls else 'plain'}" for loop, tls in KINDS]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give a certificate authority made for these tests."""
    return Authority.open(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls(authority: Authority) -> ssl.SSLContext:
    """Give how a server proves itself."""
    authority.server_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.ca_file.parent / "server.pem")
    return context


class Side:
    """A server of one kind, and how its clients connect."""

    def __init__(self, server: Edge, authority: Authority | None) -> None:
        self.server = server
        self.trust = None
        if authority is not None:
            self.trust = ssl.create_default_context(cafile=str(authority.ca_file))

    def connect(self, source: str | None = None) -> Client:
        """Return a connection, its handshake done."""
        client = self.server.connect(source)
        if self.trust is not None:
            client.socket = self.trust.wrap_socket(client.socket, server_hostname="127.0.0.1")
        return client

    @property
    def count(self) -> int:
        """How many connections the server counts."""
        return len(self.server.server.connections)


@pytest.fixture(scope="module", params=KINDS[::3], ids=IDS[::3])
def side(
    request: pytest.FixtureRequest, tls: ssl.SSLContext, authority: Authority
) -> Iterator[Side]:
    """Give servers whose patience is short: on one loop with TLS, on the other without."""
    loop, is_tls = request.param
    with edge(bounds=BOUNDS, loop=LOOPS[loop], tls=tls if is_tls else None) as server:
        yield Side(server, authority if is_tls else None)


@pytest.fixture(params=KINDS, ids=IDS)
def patient(
    request: pytest.FixtureRequest, tls: ssl.SSLContext, authority: Authority
) -> Iterator[Side]:
    """Give a new server of each kind that waits long and has little room."""
    loop, is_tls = request.param
    with edge(bounds=PATIENT, loop=LOOPS[loop], tls=tls if is_tls else None) as server:
        yield Side(server, authority if is_tls else None)


def until(what: Callable[[], bool], why: str) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + 8
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.01)


CHUNKED = "Transfer-Encoding: chunked"
SLOW = {
    "nothing": (b"", None),
    "half a head": (b"GET / HTTP/1.1\r\nHost: localhost\r\n", 408),
    "empty lines": (b"\r\n\r\n", 408),
    "half a body": (request("Content-Length: 9", method="POST", body="abc"), 408),
    "half a chunk": (request(CHUNKED, method="POST", body="9\r\nabc"), 408),
    "half of the trailers": (request(CHUNKED, method="POST", body="0\r\nX: a\r\n"), 408),
    "half a body of an upgrade": (
        request(
            "Upgrade: h2c", "Connection: Upgrade", "Content-Length: 9", method="POST", body="abc"
        ),
        408,
    ),
    "a body called a stream by its type": (
        request(
            "Content-Type: text/plain; x=application/x-ndjson",
            "Content-Length: 9",
            method="POST",
            body="abc",
        ),
        408,
    ),
    "a stream that pauses": (request(CHUNKED, method="POST", path="/stream", body="1\r\na"), 408),
    "a body nobody reads": (
        request("Content-Length: 9", method="POST", path="/early", body="abc"),
        413,
    ),
    "a rest between requests": (request(), 200),
}


@pytest.mark.parametrize("name", SLOW)
def test_who_is_slow_is_cut_off(name: str, side: Side) -> None:
    """Whatever is waited for, the wait ends, with an answer where one helps, and is forgotten."""
    data, status = SLOW[name]
    with side.connect() as client:
        client.send(data)
        answer = client.answer()
        assert (answer[0] if answer else None) == status
        if answer is not None:
            assert client.is_closed()
    until(lambda: side.count == 0, "the connection is still counted")


@pytest.mark.parametrize("name", ["half a head", "half a body", "half a chunk", "empty lines"])
def test_dripping_buys_no_time(name: str, side: Side) -> None:
    """A byte now and then ends as soon as silence does."""
    begun = time.monotonic()
    with side.connect() as client:
        client.send(SLOW[name][0])
        while time.monotonic() - begun < 5 and side.count:
            client.send(b"\r\n" if name == "empty lines" else b"0")
            time.sleep(0.02)
    assert time.monotonic() - begun < 5


def test_a_stream_may_last_as_long_as_it_does_not_pause(side: Side) -> None:
    """Lines that keep coming are read beyond the time of a body."""
    with side.connect() as client:
        client.send(request(CHUNKED, method="POST", path="/stream"))
        begun = time.monotonic()
        while time.monotonic() - begun < BOUNDS.body_seconds * 2:
            client.send(b"1\r\na\r\n")
            time.sleep(0.05)
        client.send(b"0\r\n\r\n")
        answer = client.answer()
    assert answer is not None
    assert answer[0] == 200
    assert len(json.loads(answer[2])["body"]) > 10


def test_who_reads_nothing_is_cut_off(side: Side) -> None:
    """An answer that finds no reader is given up, and others are served meanwhile."""
    with side.connect() as deaf:
        deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.send(request(path="/big"))
        with side.connect() as other:
            other.send(request("Connection: close"))
            assert other.answer() is not None
        until(lambda: side.count == 0, "the deaf client is still there")


def test_a_handshake_that_is_not_finished_is_cut_off(side: Side) -> None:
    """Silence, half a greeting and nonsense each end in the time of a head; so without TLS."""
    greeting = ssl.MemoryBIO()
    hello = ssl.create_default_context().wrap_bio(
        ssl.MemoryBIO(), greeting, server_hostname="127.0.0.1"
    )
    with contextlib.suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    data = greeting.read()
    with contextlib.ExitStack() as stack:
        for begin in (b"", data[:40], data[:1], request(), data):
            stack.enter_context(side.server.connect()).send(begin)
        until(lambda: side.count >= 1, "they are not counted")
        until(lambda: side.count == 0, "they are still counted")


def test_unfinished_connections_count_from_accept_on(patient: Side) -> None:
    """One network has its share, a handshake that is not finished included; others get in."""
    share = PATIENT.share_of(40)
    assert share == 10
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(patient.server.connect()) for _ in range(share)]
        until(lambda: patient.count == share, "they are not all there")
        late = stack.enter_context(patient.server.connect())
        answer = late.answer()
        assert (answer[0] if answer else None) == (None if patient.trust else 429)
        with patient.connect("127.0.0.2") as other:
            other.send(request())
            found = other.answer()
            assert found is not None
            assert found[0] == 200
        held[0].socket.close()
        until(lambda: patient.count <= share - 1, "room does not come back")
        with patient.connect() as again:
            again.send(request())
            assert again.answer() is not None


def test_a_full_server_lets_others_in(patient: Side) -> None:
    """At the ceiling those go who have asked for nothing, the greediest network's first."""
    ceiling = 40
    with contextlib.ExitStack() as stack:
        quiet = stack.enter_context(patient.connect("127.0.1.1"))
        quiet.send(request())
        assert quiet.answer() is not None
        busy = stack.enter_context(patient.connect("127.0.1.2"))
        busy.send(request(path="/wait"))
        greedy = [
            stack.enter_context(patient.server.connect(f"127.0.0.{2 + number % 4}"))
            for number in range(ceiling - 2)
        ]
        until(lambda: patient.count == ceiling, "they are not all there")
        assert greedy
        for number in range(20):
            with patient.connect(f"127.0.2.{1 + number}") as other:
                other.send(request())
                found = other.answer()
                assert found is not None
                assert found[0] == 200
            assert patient.count <= ceiling
        # Who rests but took little is still there, and so is who is being served.
        quiet.send(request())
        assert quiet.answer() is not None
        patient.server.call(patient.server.asked.release.set)
        found = busy.answer()
        assert found is not None
        assert found[0] == 200


def test_a_server_full_of_work_says_so() -> None:
    """Who is being served is not thrown out for somebody new, who is told to come again."""
    bounds = replace(PATIENT, all_connections=8)
    with edge(bounds=bounds, is_exempt=lambda _: True) as server, contextlib.ExitStack() as stack:
        busy = [stack.enter_context(server.connect()) for _ in range(8)]
        for client in busy:
            client.send(request(path="/wait"))
        until(lambda: len(server.server.connections) == 8, "they are not all there")
        time.sleep(0.1)
        with server.connect() as late:
            answer = late.answer()
        assert answer is not None
        assert answer[0] == 503
        server.call(server.asked.release.set)
        assert [client.answer() is not None for client in busy] == [True] * 8


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.8", "203.0.113.8"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("2001:DB8:1:2:0:0:0:1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::1"),
        ("unknown", "unknown"),
        ("", ""),
    ],
)
def test_what_an_address_counts_as(address: str, network: str) -> None:
    """IPv4 counts by address, IPv6 by /64, in whatever way it is written."""
    assert network_of(address) == network


def test_the_ceiling_follows_the_file_descriptors() -> None:
    """A quarter of them, and never few, is left for everything else."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2);"
        "from handbell.http_server.bounds import most_connections; print(most_connections())"
    )
    found = [
        int(subprocess.check_output([sys.executable, "-c", code, str(files)]))
        for files in (64, 128, 256, 1024)
    ]
    assert found == [16, 80, 192, 768]
    assert most_connections() <= resource.getrlimit(resource.RLIMIT_NOFILE)[0]


# The stop


def test_a_stop_lets_what_runs_finish(patient: Side) -> None:
    """What runs is answered as the last; who rests, or is not done asking, is let go."""
    with contextlib.ExitStack() as stack:
        resting, half, running, new = (stack.enter_context(patient.connect()) for _ in range(4))
        resting.send(request())
        assert resting.answer() is not None
        half.send(b"GET / HTTP/1.1\r\n")
        running.send(request(path="/wait") + request(path="/never"))
        until(lambda: _is_waiting(patient.server), "it does not run")
        stack.enter_context(patient.server.connect())
        patient.server.stop()
        assert resting.is_closed()
        assert half.is_closed()
        assert new.is_closed()
        with pytest.raises(OSError):  # noqa: PT011 - refused or reset, as the system likes
            patient.server.connect().answers()[0]
        patient.server.call(patient.server.asked.release.set)
        answer = running.answer()
        assert answer is not None
        assert (answer[0], answer[1]["connection"]) == (200, "close")
        assert running.is_closed()
    assert [one["path"] for one in patient.server.asked.requests] == ["/", "/wait"]


def test_the_last_answer_is_read_by_who_still_sends(patient: Side) -> None:
    """What a client sends behind its request takes no answer from it at the stop."""
    with patient.connect() as running:
        behind = request("Content-Length: 999999", path="/never", method="POST", body="x" * 100_000)
        running.send(request(path="/wait") + behind)
        until(lambda: _is_waiting(patient.server), "it does not run")
        patient.server.stop()
        until(lambda: patient.server.server.is_stopping, "it does not stop")
        patient.server.call(patient.server.asked.release.set)
        _send_on(running)
        answer = running.answer()
        assert answer is not None
        assert answer[0] == 200


def test_who_is_turned_away_while_sending_reads_why() -> None:
    """429 reaches a client that has sent its request, and sends on, before it reads."""
    with edge(bounds=PATIENT) as server, contextlib.ExitStack() as stack:
        for _ in range(PATIENT.share_of(40)):
            stack.enter_context(server.connect())
        for _ in range(20):
            late = stack.enter_context(server.connect())
            late.send(request("Content-Length: 999999", method="POST"))
            _send_on(late)
            answer = late.answer()
            assert answer is not None
            assert answer[0] == 429


def _send_on(client: Client) -> None:
    select.select([client.socket], [], [], 5)
    for _ in range(3):
        client.socket.sendall(b"x" * 1000)


def test_a_stop_is_bounded(patient: Side) -> None:
    """What does not end within the grace is broken off, and told so."""
    with patient.connect() as stuck, patient.connect() as half:
        stuck.send(request(path="/open"))
        half.send(request("Content-Length: 9", method="POST", body="abc"))
        until(lambda: patient.count == 2, "they are not there")
        time.sleep(0.05)
        begun = time.monotonic()
        patient.server.stop()
        assert stuck.is_closed()
        assert half.is_closed()
        assert time.monotonic() - begun < 5
        assert patient.server.asked.gone.wait(2)


def _is_waiting(server: Edge) -> bool:
    return any(one["path"] == "/wait" for one in server.asked.requests)


def test_the_others_notice_nothing_of_many_slow_clients(patient: Side) -> None:
    """While unfinished heads, bodies and handshakes come and go, each request is answered."""
    stop = threading.Event()

    def annoy() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError), patient.server.connect("127.0.0.3") as client:
                client.send(b"GET / HTTP/1.1\r\n")

    threads = [threading.Thread(target=annoy) for _ in range(2)]
    for one in threads:
        one.start()
    try:
        answers: list[Any] = []
        for _ in range(30):
            with patient.connect() as client:
                client.send(request("Connection: close"))
                answers.append(client.answer())
    finally:
        stop.set()
        for one in threads:
            one.join(5)
    assert [one[0] for one in answers if one] == [200] * 30
