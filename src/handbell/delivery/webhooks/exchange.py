"""One HTTP/1.1 request on its own connection, with a limit on its total time.

httpcore speaks the protocol. This module limits where it may connect, how much it reads and for
how long: httpcore's time-outs hold for one read each, so a receiver that sends a byte now and then
would never meet one. A request therefore runs in its own event loop, which ends when the time is
over.
"""

import asyncio
import math
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from socket import AI_NUMERICHOST, SOCK_STREAM, getaddrinfo
from typing import Any, Final

import httpcore

from handbell._proxy import Proxy
from handbell._retry_after import retry_after
from handbell.errors import HandbellError
from handbell.gateways.http2_tls import (
    authority,
    dial_through,
    open_first,
    shared_context,
)
from handbell.gateways.http2_values import NoConnection, in_words

from .call_target import CallResult, CallTarget

_LOOKS_FOR_STOP_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A request with its target and limits.

    Without a ``proxy`` only ``addresses`` are connected to. ``seconds`` are for all of it,
    ``connect_seconds`` for TCP with the tunnel, and again for TLS. ``most_bytes`` are read, the
    head of the answer included.
    """

    target: CallTarget
    addresses: Iterable[IPv4Address | IPv6Address]
    proxy: Proxy | None
    headers: Mapping[str, str]
    body: bytes
    ca_file: Path | None
    connect_seconds: float
    seconds: float
    most_bytes: int


def perform(exchange: Exchange, stop: threading.Event) -> CallResult:
    """Make the request and return its result; ends soon after ``stop`` is set."""
    # The loop of the library alone: another one, such as uvloop, is the embedding program's affair.
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(_perform(exchange, stop))


async def _perform(exchange: Exchange, stop: threading.Event) -> CallResult:
    course = _Course(exchange)
    going = asyncio.create_task(course.run())
    until = asyncio.get_running_loop().time() + exchange.seconds
    try:
        while not going.done() and not stop.is_set():
            left = until - asyncio.get_running_loop().time()
            if left <= 0:
                break
            await asyncio.wait([going], timeout=min(left, _LOOKS_FOR_STOP_SECONDS))
        is_over = going.done()
        if not is_over:
            going.cancel()
        await asyncio.wait([going])
    finally:
        course.close()
    if course.answer is not None:
        # The receiver has answered once its status is here, whatever became of the rest.
        return course.answer
    if is_over:
        reason = course.reason(going.exception())
    elif stop.is_set():
        reason = "broken off, as the sender stops"
    else:
        reason = f"it did not answer within {exchange.seconds:g} seconds"
    if exchange.proxy is not None:
        name = exchange.proxy.authority
        reason = f"through the proxy {name}: {reason.removeprefix(f'the proxy {name}: ')}"
    return CallResult.none(reason)


class _Course:
    """An exchange in progress; ``answer`` is set as soon as the response head has arrived."""

    def __init__(self, exchange: Exchange) -> None:
        self.answer: CallResult | None = None
        self._exchange = exchange
        self._way = _Way(exchange)

    async def run(self) -> None:
        """Send the request, keep the response head and discard the body."""
        exchange, target = self._exchange, self._exchange.target
        connection = httpcore.AsyncHTTPConnection(
            origin=httpcore.Origin(target.scheme.encode(), target.host.encode(), target.port),
            ssl_context=shared_context(exchange.ca_file) if target.scheme == "https" else None,
            network_backend=self._way,
        )
        asking = connection.stream(
            "POST",
            httpcore.URL(
                scheme=target.scheme, host=target.host, port=target.port, target=target.path
            ),
            headers=[
                ("host", authority(target.url)),
                ("accept", "*/*"),
                ("connection", "close"),
                *exchange.headers.items(),
            ],
            content=exchange.body,
            extensions={
                "timeout": {"connect": exchange.connect_seconds},
                # A name may be written with the dot of the root; no certificate has it.
                "sni_hostname": target.host.rstrip("."),
            },
        )
        async with asking as response:
            self.answer = _judge(response)
            async for _ in response.aiter_stream():
                pass

    def close(self) -> None:
        """Abort the connection, if there is one."""
        self._way.close()

    def reason(self, error: BaseException | None) -> str:
        """Return a text that says why there is no response."""
        match error:
            case NoConnection():
                said = str(error)
            case HandbellError():
                said = error.what
            case TimeoutError(errno=None):
                said = f"no connection within {self._exchange.connect_seconds:g} seconds"
            case OSError():
                said = in_words(error)
            case _TooLongError():
                said = f"its answer has no head within {self._exchange.most_bytes} bytes"
            case httpcore.RemoteProtocolError() if self._way.is_at_end:
                did = "broke off its answer" if self._way.bytes_read else "gave no answer"
                said = f"it {did}, and closed the connection"
            case httpcore.RemoteProtocolError():
                said = f"its answer is not HTTP/1.1: {error}"
            case _:
                said = f"{type(error).__name__}: {error}"
        return said


def _judge(response: httpcore.Response) -> CallResult:
    headers = {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers
    }
    after = retry_after(headers, now=time.time())
    return CallResult(response.status, f"answered {response.status}", math.ceil(after or 0) or None)


class _TooLongError(Exception):
    """The response exceeds the size limit."""


class _Way(httpcore.AsyncNetworkBackend):
    """A network backend for httpcore that connects to checked addresses, or through the proxy.

    Its errors pass through httpcore unchanged.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._writer: asyncio.StreamWriter | None = None
        self.bytes_read = 0
        self.is_at_end = False

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        """Open the connection of this exchange."""
        target, proxy = self._exchange.target, self._exchange.proxy
        if (host, port) != (target.host, target.port):
            raise PermissionError(f"{host}:{port} was not checked")
        async with asyncio.timeout(timeout):
            if proxy is not None:
                until = asyncio.get_running_loop().time() + self._exchange.connect_seconds
                opened = await dial_through(proxy, host, port, until)
            else:
                opened = await open_first(
                    [
                        found
                        for each in self._exchange.addresses
                        for found in getaddrinfo(
                            str(each), port, type=SOCK_STREAM, flags=AI_NUMERICHOST
                        )
                    ]
                )
            try:
                reader, self._writer = await asyncio.open_connection(sock=opened)
            except BaseException:
                opened.close()
                raise
        return _Stream(self, reader, self._writer, self._exchange.most_bytes)

    def close(self) -> None:
        """Abort the connection."""
        if self._writer is not None:
            self._writer.transport.abort()


class _Stream(httpcore.AsyncNetworkStream):
    """A connection with a limit on the bytes read."""

    def __init__(
        self, way: _Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int
    ) -> None:
        self._way = way
        self._reader = reader
        self._writer = writer
        self._most = most

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        """Return received bytes; the exchange bounds the time."""
        left = self._most - self._way.bytes_read
        if left <= 0:
            raise _TooLongError
        piece = await self._reader.read(min(max_bytes, left))
        self._way.bytes_read += len(piece)
        self._way.is_at_end = not piece
        return piece

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        """Send bytes; a receiver may respond and close before reading all, which is no error."""
        try:
            self._writer.write(buffer)
            await self._writer.drain()
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        """Abort without a TLS shutdown: nothing more is sent on this connection."""
        self._writer.transport.abort()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Start TLS and verify the certificate for this host name."""
        async with asyncio.timeout(timeout):
            await self._writer.start_tls(ssl_context, server_hostname=server_hostname)
        return self

    def get_extra_info(self, info: str) -> Any:
        """Return asyncio's information on the transport."""
        return self._writer.get_extra_info(info)
