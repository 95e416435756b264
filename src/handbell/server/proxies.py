"""Forwarded headers, believed only from trusted proxies."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from starlette.types import Scope

from handbell._ip import read_ip

_FORWARDED: Final = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"x-forwarded-prefix",
        b"x-forwarded-port",
        b"x-real-ip",
    }
)
_HOST: Final = re.compile(
    r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?"
)
_PREFIX: Final = re.compile(r"(/[A-Za-z0-9._~-]+)+")


class Proxies:
    """Applies forwarded headers. ``trusted`` is the setting ``trusted_proxies``."""

    def __init__(self, trusted: str) -> None:
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(
            ip_network(each.strip(), strict=False) for each in trusted.split(",") if each.strip()
        )

    def trusts(self, address: str) -> bool:
        """Return whether a proxy at this address is trusted."""
        if not self._networks:
            return False
        parsed = read_ip(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def apply(self, scope: Scope, root_path: str) -> None:
        """Set the client, scheme, host and path that a request's client used.

        Forwarded headers are removed, so that nothing else can trust them by mistake.
        """
        forwarded = {name: value for name, value in scope["headers"] if name in _FORWARDED}
        prefix = root_path
        if forwarded:
            headers = [pair for pair in scope["headers"] if pair[0] not in _FORWARDED]
            client = scope.get("client")
            if client is not None and self.trusts(client[0]):
                every = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
                self._believe(scope, headers, forwarded, b",".join(every))
                given = _last(forwarded.get(b"x-forwarded-prefix")).rstrip("/")
                prefix = given if _PREFIX.fullmatch(given) else root_path
            scope["headers"] = headers
        _set_root(scope, prefix)

    def _believe(
        self,
        scope: Scope,
        headers: list[tuple[bytes, bytes]],
        forwarded: dict[bytes, bytes],
        chain: bytes,
    ) -> None:
        client = self._client(chain)
        if client is not None:
            scope["client"] = (client, 0)
        scheme = _last(forwarded.get(b"x-forwarded-proto")).lower()
        if scheme in ("http", "https"):
            scope["scheme"] = scheme
        host = _last(forwarded.get(b"x-forwarded-host"))
        if _HOST.fullmatch(host):
            headers[:] = [pair for pair in headers if pair[0] != b"host"]
            headers.append((b"host", host.encode("ascii")))

    def _client(self, chain: bytes) -> str | None:
        """Return the nearest address of the chain that is not a trusted proxy."""
        found = None
        for text in reversed(chain.decode("latin-1").split(",")):
            try:
                found = str(ip_address(_without_port(text.strip())))
            except ValueError:
                return found
            if not self.trusts(found):
                return found
        return found


def _last(value: bytes | None) -> str:
    return "" if value is None else value.decode("latin-1").rpartition(",")[2].strip()


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _set_root(scope: Scope, root: str) -> None:
    if not root:
        return
    scope["root_path"] = root
    path: str = scope["path"]
    # A proxy may or may not have removed the prefix.
    if path != root and not path.startswith(root + "/"):
        scope["path"] = root + path
        scope["raw_path"] = root.encode("ascii") + scope.get("raw_path", b"")
