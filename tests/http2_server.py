"""An HTTP/2 server on loopback that does as its paths ask, and how to send to it over one pool."""

import asyncio
import socket
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import h2.config
import h2.connection
import h2.events
import uvloop
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from handbell.gateways.http2 import MAX_BODY_BYTES, End, Endpoint, Limits, Pool, Request
from handbell.twin.certificates import Authority

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
QUICK = Limits(in_flight=50, connect_timeout=0.3, request_timeout=0.6)


class Counted(asyncio.Protocol):
    """Keeps count of who is there; each class for itself."""

    present = 0
    most_present = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note that it is there."""
        kind = type(self)
        kind.present += 1
        kind.most_present = max(kind.most_present, kind.present)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that it is gone."""
        type(self).present -= 1
        super().connection_lost(exc)


class Server(asyncio.Protocol):
    """Answers 200 with the path in a header; the last part of the path may ask for something else.

    It counts connections, the streams open at once, and how often each path was asked for.
    """

    limit = 100
    window = 65535
    connections = 0
    most_streams = 0
    last = 2**31
    asked: ClassVar[Counter[str]] = Counter()

    def __init_subclass__(cls) -> None:
        """Count anew: what another test counted on the class above is not this one's."""
        cls.connections = cls.most_streams = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet with the limit of streams and their window."""
        type(self).connections += 1
        self.transport = cast("asyncio.Transport", transport)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        given = {
            SettingCodes.MAX_CONCURRENT_STREAMS: self.limit,
            SettingCodes.INITIAL_WINDOW_SIZE: self.window,
        }
        self.h2.local_settings = Settings(client=False, initial_values=given)
        self.h2.initiate_connection()
        self.paths: dict[int, str] = {}
        self.flush()

    def flush(self) -> None:
        """Write what is to be written."""
        self.transport.write(self.h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        """Answer a little later, so that streams add up."""
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived) and event.stream_id < self.last:
                self.paths[event.stream_id] = dict(event.headers)[b":path"].decode()
                type(self).most_streams = max(self.most_streams, len(self.paths))
            elif isinstance(event, h2.events.StreamEnded):
                loop = asyncio.get_running_loop()
                loop.call_later(0.002, self.answer, event.stream_id)
        self.flush()

    def answer(self, number: int) -> None:
        """Answer one stream as its path asks."""
        if self.transport.is_closing() or number not in self.paths:
            return
        path = self.paths.pop(number)
        self.asked[path] += 1
        wish = path.rpartition("/")[2].partition("-")[0]
        if wish == "close":
            self.transport.close()
            return
        if wish == "reset":
            self.hang_up()
            return
        if wish == "goaway":
            self.leave(number)
        headers = [(":status", "400" if wish == "long" else "200"), ("x-path", path)]
        self.h2.send_headers(number, headers, end_stream=wish != "long")
        if wish == "long":
            self.h2.send_data(number, b"x" * MAX_BODY_BYTES * 2, end_stream=True)
        self.flush()

    def leave(self, number: int) -> None:
        """Finish this stream and those before, and leave out all that came later."""
        self.flush()
        frame = GoAwayFrame(last_stream_id=number)
        self.transport.write(frame.serialize())
        self.paths = {begun: path for begun, path in self.paths.items() if begun < number}
        self.last = number

    def hang_up(self) -> None:
        """End the connection as a machine does that is switched off: no farewell, only a reset."""
        opened = self.transport.get_extra_info("socket")
        at_once = struct.pack("ii", 1, 0)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self.transport.abort()


@asynccontextmanager
async def serve(
    authority: Authority,
    protocol: Callable[[], asyncio.Protocol],
    *,
    alpn: str = "h2",
    change: Callable[[ssl.SSLContext], None] = lambda _: None,
) -> AsyncIterator[str]:
    """Run a TLS server on a free port; give its address, and wait in the end for who is leaving.

    ``change`` makes of its TLS what a test wants.
    """
    context = authority.server_context()
    context.set_alpn_protocols([alpn])
    change(context)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=context)
    # Before 3.12 only who waits before the end learns of it.
    gone = asyncio.ensure_future(server.wait_closed())
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        await asyncio.sleep(0.05)  # who was just accepted would be left half made by the end
        server.close()
        await asyncio.wait([gone], timeout=5)
        gone.cancel()


def counting(limit: int = 100) -> type[Server]:
    """Return a server class with counters of its own."""
    return type("Counting", (Server,), {"limit": limit, "asked": Counter()})


@dataclass
class Ask:
    """An open pool, and how to ask over it."""

    pool: Pool[str]
    send: Callable[[list[str]], Coroutine[Any, Any, list[End]]]

    async def __call__(self, paths: list[str]) -> list[End]:
        """Send one request for each path and return the ends, in the order of the paths."""
        return await self.send(paths)


async def send(endpoint: Endpoint, paths: list[str], limits: Limits = QUICK) -> list[End]:
    """Send one request for each path and return the ends, in the order of the paths."""
    async with opened(endpoint, limits) as ask:
        return await ask(paths)


@asynccontextmanager
async def opened(endpoint: Endpoint, limits: Limits = QUICK) -> AsyncIterator[Ask]:
    """Give a function that sends over one pool; each end must come exactly once."""
    ends: dict[str, End] = {}
    arrived = asyncio.Event()

    def finish(path: str, end: End) -> None:
        assert path not in ends
        ends[path] = end
        arrived.set()

    pool: Pool[str] = Pool(
        endpoint,
        limits,
        prepare=lambda path: Request(path, (("x-test", "1"),), (), b"{}"),
        finish=finish,
    )

    async def ask(paths: list[str]) -> list[End]:
        pool.submit(paths)
        async with asyncio.timeout(15):
            while any(path not in ends for path in paths):
                arrived.clear()
                await arrived.wait()
        return [ends[path] for path in paths]

    try:
        yield Ask(pool, ask)
    finally:
        await pool.close()


def paths(count: int, wish: str = "ok") -> list[str]:
    """Return as many different paths."""
    return [f"/{wish}-{number}" for number in range(count)]


def run(story: Callable[[], Awaitable[Any]]) -> Any:
    """Run a story in the standard loop."""

    async def told() -> Any:
        return await story()

    return asyncio.run(told())
