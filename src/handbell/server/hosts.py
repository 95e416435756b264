"""The names under which this server may be asked, so that no page of a stranger's name reads it.

A stranger's page can let its own name lead to any address (DNS rebinding), and a browser then sends
that name as the host. It cannot do so with an address in place of a name, nor with a name of one
label, as containers have them: such names are nobody's in the public DNS.
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
    """Return the name or the address of a Host header, without its port; None where it is none."""
    found = _HOST.fullmatch(header.decode("latin-1").strip())
    return None if found is None else found[1].strip("[]").lower().rstrip(".")


@lru_cache(maxsize=_MOST_KNOWN)
def is_address(name: str) -> bool:
    """Say whether a host is an IP address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def is_local(name: str) -> bool:
    """Say whether a host is this machine itself, by its name alone."""
    return name == "localhost" or name.endswith(".localhost")


class Hosts:
    """Judges the Host header. Addresses, localhost and names without a dot are allowed.

    Of other names these are: those of ``allowed_hosts``, of the public URL and of where it listens,
    and the machine's own.
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
        """Raise MisdirectedError for a host that is not ours. HTTP/1.0 may name none."""
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
