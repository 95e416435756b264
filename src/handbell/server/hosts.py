"""Allowed host names, as a protection against DNS rebinding.

A hostile page can resolve its own name to any address, and a browser then sends that name as the
host. This works neither with an IP address nor with a single-label name, as containers have: the
public DNS has no such names.
"""

import re
import socket
from functools import lru_cache
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from handbell.errors import MisdirectedError
from handbell.settings import Settings

ANY: Final = "*"

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/?#@\[\]\\]+)(?::[0-9]{0,5})?")
_MOST_KNOWN: Final = 1000


@lru_cache(maxsize=_MOST_KNOWN)
def host_name(header: bytes) -> str | None:
    """Return the host of a Host header, without its port; None for an invalid one."""
    found = _HOST.fullmatch(header.decode("latin-1").strip())
    return None if found is None else found[1].strip("[]").lower().rstrip(".")


@lru_cache(maxsize=_MOST_KNOWN)
def is_address(name: str) -> bool:
    """Return whether a host is an IP address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def is_local(name: str) -> bool:
    """Return whether a host name is this machine itself."""
    return name == "localhost" or name.endswith(".localhost")


class Hosts:
    """Checks the Host header. Addresses, localhost and names without a dot are allowed.

    So are the names of ``allowed_hosts``, of the public URL, of the listening address, and of the
    machine.
    """

    def __init__(self, settings: Settings, public_url: str) -> None:
        given = [host.strip().lower().rstrip(".") for host in settings.allowed_hosts.split(",")]
        listens, _, _ = settings.listen.rpartition(":")
        derived = (urlsplit(public_url).hostname, listens.strip("[]"), socket.gethostname())
        names = {*given, *(item.lower().rstrip(".") for item in derived if item)}
        self._ends = tuple(name.removeprefix(ANY) for name in names if name.startswith("*."))
        self._names = frozenset(name for name in names if name and name != ANY)
        self._is_open = ANY in names
        self._known: dict[bytes, bool] = {}

    def check(self, header: bytes | None) -> None:
        """Raise MisdirectedError for a foreign host. HTTP/1.0 may have none."""
        if header is None or self._is_open:
            return
        allowed = self._known.get(header)
        if allowed is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            allowed = self._known[header] = self._allows(host_name(header))
        if not allowed:
            raise MisdirectedError(
                "This server is not asked under the host that the request names",
                fix="Use the server's public URL; its operator may add names to "
                "HANDBELL_ALLOWED_HOSTS",
            )

    def _allows(self, name: str | None) -> bool:
        if not name:
            return False
        return (
            name in self._names
            or "." not in name
            or is_local(name)
            or is_address(name)
            or (bool(self._ends) and name.endswith(self._ends))
        )
