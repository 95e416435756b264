"""The twin's proxy: HTTP CONNECT on loopback, to the push services' names and nowhere else.

A client that can use a proxy, and has the names built in, reaches the twin by it: a tunnel to
``fcm.googleapis.com:443``, say, ends at the twin. Nothing is forwarded to the network.
"""

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import Callable, Iterator
from typing import Final

from .hosts import HOSTS, PORTS, side_of

_MAX_HEAD_BYTES: Final = 16_384
_HEAD_SECONDS: Final = 10.0
_CHUNK_BYTES: Final = 65_536
_TARGET: Final = re.compile(r"CONNECT ([A-Za-z0-9.\-]+):(\d{1,5}) HTTP/1\.[01]")

logger = logging.getLogger(__name__)


class TwinProxy:
    """Serves on a bound socket; ``port_of`` returns the port of a side of the twin.

    ``refused`` counts what was not let through.
    """

    def __init__(self, host: str, port_of: Callable[[str], int]) -> None:
        self.refused = 0
        self._host = host
        self._port_of = port_of
        self._server: asyncio.Server | None = None
        self._tunnels: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, bound: socket.socket) -> None:
        """Accept connections from now on."""
        self._server = await asyncio.start_server(self._meet, sock=bound, limit=_MAX_HEAD_BYTES)

    async def stop(self) -> None:
        """Close the port and every tunnel."""
        if self._server is None:
            return
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tunnels, return_exceptions=True)
        await self._server.wait_closed()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tunnel = asyncio.current_task()
        if tunnel is not None:
            self._tunnels.add(tunnel)
            tunnel.add_done_callback(self._tunnels.discard)
        try:
            with self._open(writer):
                await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            logger.debug("Proxy connection ended early", exc_info=True)

    @contextlib.contextmanager
    def _open(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._writers.add(writer)
        try:
            yield
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_HEAD_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        line = head.partition(b"\r\n")[0].decode("latin-1")
        found = _TARGET.fullmatch(line)
        side = side_of(found[1]) if found and int(found[2]) in PORTS else None
        if side is None:
            self.refused += 1
            writer.write(_refusal(line))
            await writer.drain()
            return
        inner, outer = await asyncio.open_connection(self._host, self._port_of(side))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with self._open(outer):
            await asyncio.gather(_pump(reader, outer), _pump(inner, writer))


def _refusal(line: str) -> bytes:
    target = line.split(" ")[1][:120] if line.count(" ") else "that"
    said = (
        f"The twin's proxy leads to the push services' names alone, not to {target!r}. "
        f"It answers CONNECT to: {', '.join(HOSTS)}.\n"
    ).encode("ascii", "replace")
    head = (
        "HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain; charset=utf-8\r\n"
        f"content-length: {len(said)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + said


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes until it ends, and then the end."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.write_eof()
