"""Validated webhook targets, and the results of calls.

A user-supplied URL may point into our own network, in many disguises.
"""

import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, NamedTuple, Self
from urllib.parse import SplitResult, urlsplit

from handbell._ip import Address, read_ip, unmapped
from handbell._text import without_password
from handbell.errors import WebhookError

MOST_URL_CHARACTERS: Final = 2000
MOST_REASON_CHARACTERS: Final = 300

_PORTS: Final = {"https": 443, "http": 80}
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
# The last label of what some resolvers read as an IPv4 address: 127.1, 0x7f000001, 2130706433.
_NUMERIC: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")
_LOCAL: Final = re.compile(r"(?:.*\.)?localhost\.?")
_PATH: Final = re.compile(r"[!-\[\]_a-z~]*")

# What ipaddress does not count as private in every Python from 3.11 on.
_NOT_PUBLIC: Final = (
    ip_network("192.0.0.0/24"),  # protocol assignments, RFC 6890
    ip_network("192.88.99.0/24"),  # 6to4 relays, RFC 7526
    ip_network("2001::/32"),  # Teredo: the address inside is anybody's
    ip_network("2001:db8::/32"),
    ip_network("3fff::/20"),  # documentation, RFC 9637
)
_UNICAST: Final = IPv6Network("2000::/3")  # what IANA has given out as global
_NAT64: Final = IPv6Network("64:ff9b::/96")

Resolve = Callable[[str, int], Iterable[str]]
"""Returns the addresses of a host as texts; raises OSError when there is none."""


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host, as the system's resolver gives them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(one[4][0]) for one in found]


def is_public(address: str | Address) -> bool:
    """Return whether an address is a public one.

    An IPv6 address that embeds an IPv4 address (mapped, NAT64, 6to4) counts as that one. One
    whose meaning is not certain (Teredo, a zone, not assigned) is not public.
    """
    found = read_ip(address) if isinstance(address, str) else unmapped(address)
    if found is None or any(found in each for each in _NOT_PUBLIC if each.version == found.version):
        return False
    if isinstance(found, IPv4Address):
        return found.is_global and not found.is_multicast and not found.is_reserved
    if found.scope_id is not None:
        return False
    inner = _inner(found)
    return is_public(inner) if inner is not None else found in _UNICAST and found.is_global


def _inner(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTarget:
    """A validated target of a request; :attr:`url` is built from its checked parts."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def read(cls, url: str, *, allow_private: bool = False) -> Self:
        """Return the target of a URL.

        Raises :class:`~handbell.errors.WebhookError` for one that is not ``https://host[:port]``
        with a path, that holds a user or a fragment, or whose host is a number in disguise or, if
        written as an address, not public. ``allow_private`` lets through any address, and ``http``.
        """
        parts = _split(url)
        schemes = ("https", "http") if allow_private else ("https",)
        if parts.scheme not in schemes or not parts.hostname:
            why = f"it does not begin with {' or '.join(schemes)}://host"
            is_own = parts.scheme == "http" and _is_private(parts.hostname or "")
            raise _wrong(url, why, fix=_ALLOW_HTTP if is_own else "")
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise _wrong(url, "it holds a user, a password or a fragment")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not _PATH.fullmatch(path) or len(url) > MOST_URL_CHARACTERS:
            raise _wrong(url, "its path is too long or holds characters that must be escaped")
        host = _host(url, parts.hostname, allow_private=allow_private)
        return cls(
            scheme=parts.scheme,
            host=host,
            port=parts.port or _PORTS[parts.scheme],
            path=path,
        )

    @property
    def authority(self) -> str:
        """Host and port, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole URL; the port is always in it."""
        return f"{self.scheme}://{self.authority}{self.path}"

    def addresses(self, resolve: Resolve, *, allow_private: bool) -> tuple[Address, ...]:
        """Resolve the host and return all its addresses, in the resolver's order.

        Raises :class:`~handbell.errors.WebhookError` when there is none, or one is not public.
        """
        found = self._resolved(resolve)
        refused = [] if allow_private else [each for each in found if not is_public(each)]
        if refused:
            why = f"{self.host} is {refused[0]}, which is not public"
            raise _wrong(self.url, why, fix=_ALLOW)
        if not all(each.is_loopback for each in found):
            self.require_tls()
        return found

    def require_tls(self) -> None:
        """Raise :class:`~handbell.errors.WebhookError` where the body would be sent in the clear.

        Without TLS only loopback is allowed.
        """
        if self.scheme == "http":
            raise _wrong(self.url, "plain http is for loopback only", fix="Use https")

    def _resolved(self, resolve: Resolve) -> tuple[Address, ...]:
        try:
            found = dict.fromkeys(ip_address(each) for each in resolve(self.host, self.port))
        except (OSError, ValueError):
            found = {}
        if not found:
            raise _wrong(self.url, f"{self.host} has no address", fix="Check the host's name")
        return tuple(found)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - only asking for it says that it is not a number
    except ValueError:
        raise _wrong(url, "it is not a URL") from None
    return parts


def _host(url: str, host: str, *, allow_private: bool) -> str:
    address = read_ip(host)
    if address is None:
        if not _NAME.fullmatch(host) or _NUMERIC.fullmatch(host):
            raise _wrong(url, f"{host} is neither a host's name in ASCII nor an address")
        if not allow_private and _LOCAL.fullmatch(host):
            # It would be refused at each call; whoever names it hears so now.
            raise _wrong(url, f"{host} is this machine", fix=_ALLOW)
        return host
    if not allow_private and not is_public(address):
        raise _wrong(url, f"{host} is not a public address", fix=_ALLOW)
    return str(address)


_ALLOW: Final = "Name a public host, or set HANDBELL_WEBHOOK_ALLOW_PRIVATE=1 if it is your own"


_ALLOW_HTTP: Final = (
    "Write https://, or set HANDBELL_WEBHOOK_ALLOW_PRIVATE=1 for the process that sends: then "
    "http:// and hosts of your own are called"
)


def _is_private(host: str) -> bool:
    address = read_ip(host)
    return bool(_LOCAL.fullmatch(host)) if address is None else not is_public(address)


def _wrong(url: str, why: str, *, fix: str = "") -> WebhookError:
    return WebhookError(
        f"The address {without_password(url)[:200]!r} cannot be called: {why}",
        fix=fix or "Write it like https://backend.example.com/handbell",
    )


class CallResult(NamedTuple):
    """The result of a call: the status of the response, or None with a reason.

    ``retry_after`` is the wait in seconds that the response asks for, or None.
    """

    status: int | None
    reason: str = ""
    retry_after: int | None = None

    @property
    def is_success(self) -> bool:
        """Whether the receiver accepted the call: any 2xx."""
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004

    @classmethod
    def none(cls, reason: str) -> Self:
        """Return the result of a call without a response."""
        return cls(None, reason[:MOST_REASON_CHARACTERS])
