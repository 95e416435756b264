"""Slow, greedy and hostile clients: what they may do, and that the others notice nothing."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from tests.conftest import Stage
from tests.serving import Server

from handbell.http_server.bounds import Bounds
from handbell.settings import Settings
from handbell.system import System

BOUNDS = Bounds(
    head_bytes=4096,
    headers=20,
    head_seconds=0.3,
    body_seconds=0.5,
    idle_seconds=0.5,
    connections=5,
    look_seconds=0.05,
)
PATIENT = Bounds(head_bytes=4096, headers=20)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Give a system with an app that has no key."""
    made = System(Settings.load(home=tmp_path_factory.mktemp("home"), max_body_bytes=2048))
    made.apps.add("TEAM123456", "com.sample.myapp")
    yield made
    made.database.close()


@pytest.fixture(scope="module")
def server(system: System) -> Iterator[Server]:
    """Give a server whose patience is short."""
    with Server(system, with_worker=False, has_console=False, bounds=BOUNDS) as running:
        yield running


@pytest.fixture(scope="module")
def patient(system: System) -> Iterator[Server]:
    """Give a server that waits as long as usual."""
    with Server(system, with_worker=False, has_console=False, bounds=PATIENT) as running:
        yield running


class Wire:
    """A connection on which a test says exactly what it wants."""

    def __init__(self, server: Server) -> None:
        host, _, port = server.url.removeprefix("http://").rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=5)

    def send(self, data: bytes) -> None:
        """Put bytes on the wire."""
        self.socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Return the next answer: status, headers, body."""
        file = self.socket.makefile("rb")
        status = int(file.readline().split()[1])
        headers: dict[str, str] = {}
        while (line := file.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers, file.read(int(headers.get("content-length", 0)))

    def code(self) -> tuple[int, str]:
        """Return status and code of the next answer, which is a problem."""
        status, headers, body = self.answer()
        assert headers["content-type"] == "application/problem+json"
        return status, json.loads(body)["code"]

    def is_closed(self) -> bool:
        """Return whether the server closes the connection without a further byte."""
        with contextlib.suppress(ConnectionResetError):
            return self.socket.recv(1) == b""
        return True


@contextlib.contextmanager
def wire(server: Server) -> Iterator[Wire]:
    """Open a connection for the block."""
    opened = Wire(server)
    try:
        yield opened
    finally:
        opened.socket.close()


def head(*lines: str, method: str = "GET", path: str = "/healthz") -> bytes:
    """Return the head of a request."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


@pytest.mark.parametrize(
    "request_head",
    [
        head("X: " + "a" * 5000),
        head(*(f"X{number}: {'a' * 300}" for number in range(15))),
        head(*(f"X{number}: a" for number in range(30))),
        head(path="/healthz?" + "a" * 5000),
        head("X: " + "a" * 5000)[:-4],
        b"GET /" + b"a" * 9000,
    ],
    ids=["one header", "all headers", "many headers", "target", "unfinished", "endless target"],
)
def test_a_head_that_is_too_large_is_431(patient: Server, request_head: bytes) -> None:
    """Too many or too long headers are refused, finished or not, and the connection ends."""
    with wire(patient) as client:
        client.send(request_head)
        assert client.code() == (431, "headers-too-large")
        assert client.is_closed()


def test_a_head_within_the_bounds_is_taken_in_any_pieces(patient: Server) -> None:
    """A head that comes byte by byte is a head; so are two requests in one piece."""
    with wire(patient) as client:
        for byte in head("X: " + "a" * 200):
            client.send(bytes([byte]))
        assert client.answer()[0] == 200
        client.send(head("X: " + "a" * 3000) * 2)
        assert client.answer()[0] == 200


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x00" * 99,
        b"GET /healthz HTTP/1.1\r\n\r\n",
        head("host: y"),
    ],
)
def test_what_is_not_http_is_400(patient: Server, nonsense: bytes) -> None:
    """Whatever else comes is refused as a problem, and the connection ends."""
    with wire(patient) as client:
        client.send(nonsense)
        assert client.code() == (400, "request-malformed")
        assert client.is_closed()


def test_who_never_finishes_a_head_is_cut_off(server: Server) -> None:
    """A head that drips is answered 408; a connection without a byte is closed without a word."""
    with wire(server) as client, wire(server) as silent:
        client.send(head()[:-2])
        assert client.code() == (408, "request-timeout")
        assert client.is_closed()
        assert silent.is_closed()


def test_dripping_does_not_buy_time(server: Server) -> None:
    """A byte now and then, or empty lines, end no later than silence."""
    for drip in (b"a", b"\r\n"):
        with wire(server) as client:
            began = time.monotonic()
            client.send(b"GET /healthz HTTP/1.1\r\nX: " if drip == b"a" else drip)
            with contextlib.suppress(OSError):
                while time.monotonic() - began < 3:
                    client.send(drip)
                    time.sleep(0.05)
            assert time.monotonic() - began < 3


def test_a_body_that_does_not_come_is_408(server: Server) -> None:
    """Whoever announces a body and sends half of it is cut off."""
    with wire(server) as client:
        lines = ("Content-Length: 100", "Content-Type: application/json")
        client.send(
            head(*lines, f"Authorization: Bearer {server.key()}", method="POST", path="/v1/apps")
        )
        client.send(b'{"id":')
        assert client.code() == (408, "request-timeout")
        assert client.is_closed()


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_that_is_too_large_is_413(patient: Server, is_chunked: bool) -> None:  # noqa: FBT001
    """A body over the limit is refused: at once where its length is told, else when it is over."""
    key = f"Authorization: Bearer {patient.key()}"
    kind = "Content-Type: application/json"
    with wire(patient) as client:
        if is_chunked:
            lines = (key, kind, "Transfer-Encoding: chunked")
            client.send(head(*lines, method="POST", path="/v1/apps"))
            client.send(b"400\r\n" + b"a" * 1024 + b"\r\n")
            client.send(b"800\r\n" + b"a" * 2048 + b"\r\n")
        else:
            lines = (key, kind, "Content-Length: 9000000000")
            client.send(head(*lines, method="POST", path="/v1/apps"))
        assert client.code() == (413, "body-too-large")


def test_a_stream_may_be_longer_than_a_body(patient: Server) -> None:
    """Lines that are read one by one are not bounded in sum."""
    path = "/v1/apps/TEAM123456.com.sample.myapp/notifications"
    line = json.dumps({"notification": {"title": "x" * 500}, "recipients": "test@4d.com"})
    headers = {"Content-Type": "application/x-ndjson"}
    with patient.client(patient.key("send"), headers=headers) as client:
        answer = client.post(path, content=f"{line}\n" * 20)
    assert answer.status_code == 200
    assert json.loads(answer.text.splitlines()[-1]) == {"accepted": 20, "refused": 0}


def test_one_address_has_so_many_connections(system: System) -> None:
    """Beyond its share a new connection is refused, those that are open go on."""
    with Server(system, with_worker=False, has_console=False, bounds=BOUNDS) as server:
        server.limit_loopback()
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(wire(server)) for _ in range(BOUNDS.connections)]
            for client in clients:
                client.send(head())
            assert [client.answer()[0] for client in clients] == [200] * BOUNDS.connections
            late = stack.enter_context(wire(server))
            assert late.code() == (429, "rate-limited")
        # Room comes back with those who go.
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            with wire(server) as again:
                again.send(head())
                if again.answer()[0] == 200:
                    return
        pytest.fail("the connections were not given back")


def test_slow_clients_do_not_delay_the_others(patient: Server) -> None:
    """Beside two hundred unfinished heads and bodies an ordinary request is as quick as ever."""
    key = patient.key("send")
    with contextlib.ExitStack() as stack, patient.client(key) as client:
        alone = _slowest(client.get, "/v1/apps")
        for number in range(200):
            slow = stack.enter_context(wire(patient))
            if number % 2:
                slow.send(head()[:-2])
            else:
                lines = ("Content-Length: 100", f"Authorization: Bearer {key}")
                slow.send(head(*lines, method="POST", path="/v1/apps/x/notifications") + b"{")
        beside = _slowest(client.get, "/v1/apps")
    assert beside < max(0.25, alone * 5)


def test_who_waits_for_a_cancel_holds_up_nobody(stage: Stage) -> None:
    """Many cancels of a broadcast whose answers do not come are no matter to other requests."""
    for number in range(3):
        stage.add_phone(f"user{number}@example.com")
    path = f"/v1/apps/{stage.app.id}/notifications"
    body = {"notification": {"title": "Hello"}, "recipients": {"everybody": True}}
    with Server(stage.system, has_console=False) as server, server.client(server.key()) as client:
        assert client.post(path, json=body, headers={"Prefer": "wait=10"}).json()["success"]
        stage.twin.add_fault("slow", seconds=1.0, count=3)
        name = client.post(path, json=body).json()["id"]
        deadline = time.monotonic() + 5
        while not stage.system.in_flight:
            assert time.monotonic() < deadline, "it was not sent"
            time.sleep(0.01)
        cancels = [
            threading.Thread(target=client.post, args=(f"{path}/{name}/cancel",)) for _ in range(20)
        ]
        for one in cancels:
            one.start()
        time.sleep(0.1)
        began = time.perf_counter()
        beside = client.get(path)
        waited = time.perf_counter() - began
        assert all(one.is_alive() for one in cancels)
        for one in cancels:
            one.join(10)
    assert beside.status_code == 200
    assert waited < 0.5


def test_who_does_not_read_does_not_stop_the_server(server: Server) -> None:
    """Whoever pipelines without end and reads nothing is cut off; others are served meanwhile."""
    with wire(server) as deaf:
        deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        writer = threading.Thread(target=_flood, args=(deaf,))
        writer.start()
        with server.client() as client:
            assert client.get("/healthz").status_code == 200
        writer.join(10)
        assert not writer.is_alive()


def _flood(deaf: Wire) -> None:
    with contextlib.suppress(OSError):
        while True:
            deaf.send(head(path="/docs") * 20)


def _slowest(get: object, path: str) -> float:
    times = []
    for _ in range(20):
        began = time.perf_counter()
        assert get(path).status_code == 200  # type: ignore[operator]
        times.append(time.perf_counter() - began)
    return sorted(times)[-3]
