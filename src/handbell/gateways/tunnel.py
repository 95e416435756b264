"""A tunnel through an HTTP proxy: CONNECT on a socket to the proxy, before TLS begins.

The proxy learns the push service's name and port only: TLS is end to end, with the certificate
verified as usual. RFC 9110, section 9.3.6.
"""

import asyncio
import re
import socket
from typing import Final

from handbell._proxy import Proxy

from .http2_values import NoConnection, NotSent

_MOST_HEAD_BYTES: Final = 16 * 1024
_PIECE_BYTES: Final = 4096
_HEAD_ENDS: Final = b"\r\n\r\n"
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-9]\d\d)(?: ([^\r\n]{0,200}))?\r\n")
_WANTS_PASSWORD: Final = frozenset({407, 401})  # tinyproxy answers 401 to a wrong password


async def open_tunnel(opened: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    """Ask a proxy to connect the socket to a host.

    Raises :class:`~.http2_values.NoConnection` with the proxy's answer when it refuses, and
    OSError when the connection to it breaks.
    """
    loop = asyncio.get_running_loop()
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    await loop.sock_sendall(opened, ("\r\n".join(lines) + "\r\n\r\n").encode())
    head = b""
    while _HEAD_ENDS not in head:
        piece = await loop.sock_recv(opened, _PIECE_BYTES)
        head += piece
        if not piece or len(head) > _MOST_HEAD_BYTES:
            raise _no_tunnel("ProxyUnreadable", proxy, _said_instead(head, is_over=not piece))
    _judge(head, proxy, target)


def _judge(head: bytes, proxy: Proxy, target: str) -> None:
    """Raise unless the answer confirms the tunnel."""
    status = _STATUS.match(head)
    if status is None:
        raise _no_tunnel("ProxyUnreadable", proxy, "what it answered is not HTTP")
    number = int(status[1])
    if 200 <= number < 300:  # noqa: PLR2004
        # The push service sends nothing before our TLS handshake.
        if not head.endswith(_HEAD_ENDS):
            raise _no_tunnel("ProxyUnreadable", proxy, "it sent more than the answer to CONNECT")
        return
    words = (status[2] or b"").decode("latin-1")
    answer = f"{number} {''.join(each for each in words if each.isprintable())}".strip()
    if number in _WANTS_PASSWORD:
        taken = "did not take its user and password" if proxy.authorization else "asks for a user"
        raise _no_tunnel("ProxyAuthentication", proxy, f"it {taken} ({answer})")
    raise _no_tunnel("ProxyRefused", proxy, f"it answered {answer} to CONNECT {target}")


def unreachable(proxy: Proxy, why: str) -> NoConnection:
    """Return the error for an unreachable proxy."""
    return _no_tunnel("ProxyUnreachable", proxy, why)


def _no_tunnel(reason: str, proxy: Proxy, why: str) -> NoConnection:
    return NoConnection(NotSent(reason, f"the proxy {proxy.authority}: {why}"))


def _said_instead(head: bytes, *, is_over: bool) -> str:
    if not is_over:
        return "the head of its answer has no end"
    return "it broke off its answer" if head else "it closed the connection without an answer"
