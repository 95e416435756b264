"""HTTP proxies for push services: settings and exceptions.

The usual variables (``HTTPS_PROXY``, ``NO_PROXY``) are used only if the setting says so. Loopback
addresses never use a proxy.
"""

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from ._ip import read_ip

ENVIRONMENT: Final = "environment"
"""The value of the setting that stands for the usual variables."""

_VARIABLES: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_EXCEPTIONS: Final = ("no_proxy", "NO_PROXY")
_LOOKS: Final = "it must look like http://proxy.example.com:3128 or http://user:password@host:3128"
_NAME: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?")
_ENTRY: Final = re.compile(r"(?P<host>\[[^]]+\]|[^:]+)(?::(?P<port>\d{1,5}))?")
_HTTPS_PORT: Final = 443
_LAST_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy with CONNECT. Its text does not show the credentials."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)

    @classmethod
    def read(cls, url: str) -> Self:
        """Parse a proxy URL; the default scheme is ``http``.

        Special characters of user and password are percent-encoded. Raises ValueErrorfor an
        invalid one, without repeating it.
        """
        text = url.strip()
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise ValueError(_LOOKS) from None
        if parts.scheme != "http":
            raise ValueError(f"a proxy is spoken to by plain HTTP and CONNECT alone; {_LOOKS}")
        if port is None:
            raise ValueError(f"its port is missing; {_LOOKS}")
        if not _is_host(host) or not port or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError(_LOOKS)
        user, colon, password = parts.netloc.rpartition("@")[0].partition(":")
        if not user and not colon:
            return cls(host, port)
        pair = f"{unquote(user)}:{unquote(password)}".encode()
        return cls(host, port, f"Basic {b64encode(pair).decode()}")

    @property
    def authority(self) -> str:
        """Return host and port, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class _Bypass:
    """Hosts that bypass the proxy: a domain with subdomains, or a network; at one port or any."""

    name: str = ""
    network: IPv4Network | IPv6Network | None = None
    port: int | None = None

    @classmethod
    def read(cls, text: str) -> Self:
        try:
            return cls(network=ip_network(text.strip("[]"), strict=False))
        except ValueError:
            parts = _ENTRY.fullmatch(text.lower())
        port = None if parts is None or parts["port"] is None else int(parts["port"])
        if parts is None or (port is not None and not 0 < port <= _LAST_PORT):
            raise ValueError(f"{text!r} is neither a host nor a network")
        host = parts["host"].strip("[]")
        try:
            return cls(network=ip_network(host, strict=False), port=port)
        except ValueError:
            name = host.removeprefix("*").removeprefix(".").rstrip(".")
        if host != "*" and not _NAME.fullmatch(name):
            raise ValueError(f"{text!r} is neither a host nor a network")
        return cls(name=name or "*", port=port)

    def covers(self, host: str, port: int) -> bool:
        """Return whether a host, in lower case, is covered."""
        if self.port not in (None, port):
            return False
        if self.network is not None:
            address = read_ip(host)
            return address is not None and address in self.network
        return self.name in ("*", host) or host.endswith(f".{self.name}")


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxy, and the hosts that bypass it."""

    proxy: Proxy | None = None
    _exceptions: tuple[_Bypass, ...] = ()

    @classmethod
    def read(cls, setting: str, exceptions: str, environment: Mapping[str, str]) -> Self:
        """Parse the settings. ``environment`` is used only if ``setting`` says so.

        Raises ValueError for an invalid value, naming the variable. Invalid entries of NO_PROXY
        are ignored, as other programs do.
        """
        among = read_exceptions(exceptions)
        if setting.strip().lower() != ENVIRONMENT:
            return cls(Proxy.read(setting) if setting.strip() else None, among)
        named = next((name for name in _VARIABLES if environment.get(name, "").strip()), None)
        if named is None:
            return cls()
        try:
            proxy = Proxy.read(environment[named])
        except ValueError as error:
            raise ValueError(f"the variable {named}, which it stands for: {error}") from None
        usual = next((environment[name] for name in _EXCEPTIONS if environment.get(name)), "")
        return cls(proxy, (*among, *_readable(usual)))

    def to(self, url: str) -> Proxy | None:
        """Return the proxy for an ``https`` URL, None to connect directly."""
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port or _HTTPS_PORT
        if self.proxy is None or _is_this_machine(host):
            return None
        return (
            None
            if any(exception.covers(host, port) for exception in self._exceptions)
            else self.proxy
        )


DIRECT: Final = Proxies()
"""No proxy for anything."""


def read_exceptions(text: str) -> tuple[_Bypass, ...]:
    """Parse a list of hosts; raises ValueError for an invalid one."""
    return tuple(_Bypass.read(each) for each in _listed(text))


def _readable(text: str) -> list[_Bypass]:
    found = []
    for each in _listed(text):
        try:
            found.append(_Bypass.read(each))
        except ValueError:
            continue
    return found


def _listed(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def _is_this_machine(host: str) -> bool:
    address = read_ip(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _is_host(host: str) -> bool:
    return read_ip(host) is not None or _NAME.fullmatch(host) is not None
