"""An HTTP proxy on loopback that does as it is told, and remembers what it was asked."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

from handbell._proxy import Proxy

Answer = Callable[[str], bytes | None]
"""Given the head of a request: what is answered to it, or None to open the tunnel."""


@dataclass
class ProxyServer:
    """A proxy; ``heads`` are the requests that it got. Every tunnel leads to loopback."""

    answer: Answer
    heads: list[str] = field(default_factory=list)
    port: int = 0
    _meetings: set[asyncio.Task[None]] = field(default_factory=set)

    def url(self, user: str = "") -> str:
        """Return its address, with a user and password before it where they are given."""
        return f"http://{user}{'@' if user else ''}127.0.0.1:{self.port}"

    def proxy(self, user: str = "") -> Proxy:
        """Return it as the settings would read it."""
        return Proxy.read(self.url(user))

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        meeting = cast("asyncio.Task[None]", asyncio.current_task())
        self._meetings.add(meeting)
        meeting.add_done_callback(self._meetings.discard)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            answer = self.answer(head)
            if answer is None:
                await self._tunnel(head, reader, writer)
            else:
                writer.write(answer)
                await writer.drain()
        await _close(writer)

    async def end(self) -> None:
        """Wait for who is still there."""
        if self._meetings:
            await asyncio.wait(self._meetings, timeout=5)

    async def _tunnel(
        self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        port = head.split(" ")[1].rpartition(":")[2]
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n")
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    await _close(writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def opens(_head: str) -> None:
    """Open a tunnel for anybody."""


@asynccontextmanager
async def proxying(answer: Answer = opens) -> AsyncIterator[ProxyServer]:
    """Run a proxy on a free port."""
    proxy = ProxyServer(answer)
    server = await asyncio.start_server(proxy.meet, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.end()
