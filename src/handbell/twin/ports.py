"""The twin's ports, on loopback only."""

import contextlib
import ipaddress
import socket
from typing import Final

from handbell.errors import TwinError

WEBPUSH_SOCKET_PORT: Final = 8027
"""Where browsers are led to, as long as nothing else listens there."""


def check_host(host: str) -> None:
    """Raise TwinError for a host that is not a loopback address."""
    with contextlib.suppress(ValueError):
        if host == "localhost" or ipaddress.ip_address(host).is_loopback:
            return
    raise TwinError(
        f"The twin listens on loopback only, not on {host!r}",
        fix="Leave the host out, or 127.0.0.1",
    )


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 is a free one. Raises TwinError when that fails."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(512)
    except (OSError, OverflowError) as error:
        bound.close()
        why = getattr(error, "strerror", None) or error
        raise TwinError(
            f"The twin cannot listen on port {port} of {host}: {why}",
            fix="Stop what listens there, or choose other ports (see: handbell twin --help); "
            "0 takes a free one",
        ) from None
    bound.setblocking(False)
    return bound


def bind_usual(host: str, port: int) -> socket.socket:
    """Return a socket that listens on the port, or on a free one where it is taken."""
    try:
        return bind(host, port)
    except TwinError:
        return bind(host, 0)
