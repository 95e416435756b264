"""The HTTP server alone, over an application that tells what it was asked, and raw clients."""

import asyncio
import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from handbell.http_server.bounds import Bounds
from handbell.http_server.request_cycle import STREAM
from handbell.http_server.server import HttpServer, serving_on

Answer = tuple[int, dict[str, str], bytes]


class Asked:
    """An application that notes each request, and answers with what it was.

    ``/early`` answers before the body, ``/stream`` takes it as a stream, ``/open`` waits for
    ``release``, ``/big`` answers eight megabytes, ``/raise`` makes a mistake, ``/short`` answers
    less than it says, ``/split`` tries to put a header into another one's value.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.release = asyncio.Event()
        self.gone = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        path = scope["path"]
        if path == "/early":
            await _tell(send, 413, {"early": True})
            return
        if path == "/stream":
            await send({"type": STREAM})
        body = b""
        is_more = True
        while is_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone.set()
                return
            body += message["body"]
            is_more = message["more_body"]
        said = {
            "method": scope["method"],
            "path": path,
            "query": scope["query_string"].decode(),
            "headers": [
                [name.decode(), value.decode("latin-1")] for name, value in scope["headers"]
            ],
            "body": body.decode("latin-1"),
            "client": scope["client"],
            "scheme": scope["scheme"],
            "version": scope["http_version"],
        }
        self.requests.append(said)
        await self._answer(path, said, receive, send)

    async def _answer(self, path: str, said: dict[str, Any], receive: Any, send: Any) -> None:
        match path:
            case "/open":
                if (await receive())["type"] == "http.disconnect":
                    self.gone.set()
            case "/wait":
                await self.release.wait()
                await _tell(send, 200, said)
            case "/big":
                await _stream(send, [b"x" * 65_536] * 128)
            case "/raise":
                raise RuntimeError("a mistake")
            case "/short":
                headers = [(b"content-length", b"10")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": b"short"})
            case "/split":
                headers = [(b"x", b"a\r\nset-cookie: b=c")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            case "/chunks":
                await _stream(send, [b"one ", b"", b"two"])
            case _:
                await _tell(send, 200, said)


async def _stream(send: Any, pieces: Iterable[bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


async def _tell(send: Any, status: int, what: Any) -> None:
    body = json.dumps(what).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Edge:
    """A running server over :class:`Asked`, in a thread with a loop of its own."""

    def __init__(
        self,
        *,
        bounds: Bounds | None = None,
        tls: ssl.SSLContext | None = None,
        loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
        host: str = "127.0.0.1",
        grace: float = 1.0,
        is_exempt: Callable[[str], bool] = lambda _address: False,
    ) -> None:
        self.asked = Asked()
        self.server: HttpServer
        self._options: dict[str, Any] = {"bounds": bounds, "tls": tls, "is_exempt": is_exempt}
        self._grace = grace
        self._loop = loop()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._bound = socket.socket(family)
        self._bound.bind((host, 0))
        self._bound.listen(512)
        self.host, self.port = self._bound.getsockname()[:2]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started = threading.Event()
        self._stop: asyncio.Event

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        async def serve() -> None:
            self._stop = asyncio.Event()
            options = {"grace": self._grace, **self._options}
            async with serving_on(self._bound, self.asked, **options) as self.server:
                self._started.set()
                await self._stop.wait()

        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(serve())

    def stop(self) -> None:
        """Begin the stop, and return at once."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)

    def call(self, what: Callable[[], None]) -> None:
        """Call something in the server's loop."""
        self._loop.call_soon_threadsafe(what)

    def connect(self, source: str | None = None) -> "Client":
        """Return a new connection, from an address of this machine if one is named."""
        origin = None if source is None else (source, 0)
        return Client(socket.create_connection((self.host, self.port), 5, source_address=origin))

    def ask(self, data: bytes) -> list[Answer]:
        """Return the answers to some bytes, until the connection ends; nothing more is sent."""
        with self.connect() as client:
            client.send(data)
            return client.answers()


class Client:
    """A connection on which a test says exactly what it wants."""

    def __init__(self, opened: socket.socket) -> None:
        self.socket = opened
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Put bytes on the wire; the other side may have hung up."""
        with contextlib.suppress(OSError):
            self.socket.sendall(data)

    def answer(self, method: str = "GET") -> Answer | None:
        """Return the next answer to a request of this method; None when the connection ends."""
        head = self._until(b"\r\n\r\n")
        if head is None:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if int(status) == 100 or method == "HEAD":
            return int(status), headers, b""
        return int(status), headers, self._body(headers)

    def answers(self) -> list[Answer]:
        """Return all answers until the connection ends, or nothing comes for a moment."""
        found = []
        self.socket.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            while (answer := self.answer()) is not None:
                found.append(answer)
        self.socket.settimeout(5)
        return found

    def is_closed(self) -> bool:
        """Return whether the server closes the connection without a further byte."""
        with contextlib.suppress(ConnectionResetError, ssl.SSLEOFError):
            return self._buffer == b"" and self.socket.recv(1) == b""
        return True

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self._until(b"\r\n") or b"0", 16):
                body += self._take(size + 2)[:-2]
            assert self._until(b"\r\n") == b""
            return body
        if "content-length" in headers:
            return self._take(int(headers["content-length"]))
        body, self._buffer = self._buffer, b""
        while piece := self._receive():
            body += piece
        return body

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(65_536)
        except ConnectionResetError:
            return b""

    def _until(self, end: bytes) -> bytes | None:
        while end not in self._buffer:
            piece = self._receive()
            if not piece:
                assert self._buffer == b"", self._buffer
                return None
            self._buffer += piece
        found, _, self._buffer = self._buffer.partition(end)
        return found

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            piece = self._receive()
            assert piece, "the answer was cut"
            self._buffer += piece
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found


@contextlib.contextmanager
def edge(**options: Any) -> Iterator[Edge]:
    """Run a server while the block runs; ``options`` are those of :class:`Edge`."""
    with Edge(**options) as running:
        yield running


def request(
    *lines: str, method: str = "GET", path: str = "/", body: str = "", version: str = "1.1"
) -> bytes:
    """Return a request with these header lines."""
    head = [f"{method} {path} HTTP/{version}", "Host: localhost", *lines, "", body]
    return "\r\n".join(head).encode("latin-1")
