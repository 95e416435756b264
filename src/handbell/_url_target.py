"""Validated targets of requests to URLs that somebody else chose.

Such a URL may point into our own network, in many disguises.
"""

import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from typing import ClassVar, Final, Self
from urllib.parse import SplitResult, urlsplit

from ._ip import Address, is_public, read_ip
from .errors import HandbellError

MOST_URL_CHARACTERS: Final = 2000
_MOST_HOST_CHARACTERS: Final = 253

_PORTS: Final = {"https": 443, "http": 80}
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
# The last label of what some resolvers read as an IPv4 address: 127.1, 0x7f000001, 2130706433.
_NUMERIC: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")
_LOCAL: Final = re.compile(r"(?:.*\.)?localhost\.?")
_PATH: Final = re.compile(r"[!-\[\]_a-z~]*")

Resolve = Callable[[str, int], Iterable[str]]
"""Returns the addresses of a host as texts; raises OSError when there is none."""


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host, as the system's resolver gives them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(one[4][0]) for one in found]


class Cause(Enum):
    """What kind of fault a URL has."""

    FORM = "form"
    """It is no URL of the form that is allowed."""
    OWN_HTTP = "own-http"
    """It is plain ``http``, and leads to an address that is not public."""
    PLAIN = "plain"
    """It is plain ``http``, and leads further than to loopback."""
    PRIVATE = "private"
    """Its host is, or has, an address that is not public."""
    NO_ADDRESS = "no-address"
    """Its host has no address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlTarget:
    """A validated target of a request; :attr:`url` is built from its checked parts.

    Each kind of target has an error of its own: :meth:`refusal`. ``PRIVATE_SCHEMES`` are those that
    may lead to an address that is not public.
    """

    PRIVATE_SCHEMES: ClassVar[tuple[str, ...]] = ("https", "http")

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def refusal(cls, url: str, why: str, cause: Cause) -> HandbellError:
        """Return the error for a URL: ``why`` follows a colon."""
        raise NotImplementedError

    @classmethod
    def read(cls, url: str, *, allow_private: bool = False) -> Self:
        """Return the target of a URL.

        Raises :meth:`refusal` for one that is not ``https://host[:port]`` with a path, that holds a
        user or a fragment, or whose host is a number in disguise or, if written as an address, not
        public. ``allow_private`` lets through any address, and further schemes.
        """
        parts = cls._split(url)
        schemes = cls.PRIVATE_SCHEMES if allow_private else ("https",)
        if parts.scheme not in schemes or not parts.hostname:
            is_own = parts.scheme == "http" and _is_private(parts.hostname or "")
            cause = Cause.OWN_HTTP if is_own else Cause.FORM
            raise cls.refusal(url, f"it does not begin with {' or '.join(schemes)}://host", cause)
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise cls.refusal(url, "it holds a user, a password or a fragment", Cause.FORM)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not _PATH.fullmatch(path) or len(url) > MOST_URL_CHARACTERS:
            why = "its path is too long or holds characters that must be escaped"
            raise cls.refusal(url, why, Cause.FORM)
        host = cls._host(url, parts.hostname, allow_private=allow_private)
        return cls(
            scheme=parts.scheme,
            host=host,
            port=parts.port or _PORTS[parts.scheme],
            path=path,
        )

    @property
    def authority(self) -> str:
        """Host and port, an IPv6 address in brackets."""
        return f"{self._bracketed}:{self.port}"

    @property
    def url(self) -> str:
        """The whole URL; the port is always in it."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def origin(self) -> str:
        """Scheme and host, and the port where it is not the scheme's own (RFC 6454)."""
        is_usual = self.port == _PORTS[self.scheme]
        return f"{self.scheme}://{self._bracketed if is_usual else self.authority}"

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    def addresses(self, resolve: Resolve, *, allow_private: bool) -> tuple[Address, ...]:
        """Resolve the host and return all its addresses, in the resolver's order.

        Raises :meth:`refusal` when there is none, or one is not public.
        """
        found = self._resolved(resolve)
        refused = [] if allow_private else [each for each in found if not is_public(each)]
        if refused:
            why = f"{self.host} is {refused[0]}, which is not public"
            raise self.refusal(self.url, why, Cause.PRIVATE)
        if not all(each.is_loopback for each in found):
            self.require_tls()
        return found

    def require_tls(self) -> None:
        """Raise :meth:`refusal` where the body would be sent in the clear.

        Without TLS only loopback is allowed.
        """
        if self.scheme == "http":
            raise self.refusal(self.url, "plain http is for loopback only", Cause.PLAIN)

    def _resolved(self, resolve: Resolve) -> tuple[Address, ...]:
        try:
            found = dict.fromkeys(ip_address(each) for each in resolve(self.host, self.port))
        except (OSError, ValueError):
            found = {}
        if not found:
            raise self.refusal(self.url, f"{self.host} has no address", Cause.NO_ADDRESS)
        return tuple(found)

    @classmethod
    def _split(cls, url: str) -> SplitResult:
        try:
            parts = urlsplit(url)
            parts.port  # noqa: B018 - only asking for it says that it is not a number
        except ValueError:
            raise cls.refusal(url, "it is not a URL", Cause.FORM) from None
        return parts

    @classmethod
    def _host(cls, url: str, host: str, *, allow_private: bool) -> str:
        address = read_ip(host)
        if address is None:
            if len(host) > _MOST_HOST_CHARACTERS:
                raise cls.refusal(url, "its host's name is too long", Cause.FORM)
            if not _NAME.fullmatch(host) or _NUMERIC.fullmatch(host):
                why = f"{host} is neither a host's name in ASCII nor an address"
                raise cls.refusal(url, why, Cause.FORM)
            if not allow_private and _LOCAL.fullmatch(host):
                # It would be refused at each call; whoever names it hears so now.
                raise cls.refusal(url, f"{host} is this machine", Cause.PRIVATE)
            return host
        if not allow_private and not is_public(address):
            raise cls.refusal(url, f"{host} is not a public address", Cause.PRIVATE)
        return str(address)


def _is_private(host: str) -> bool:
    address = read_ip(host)
    return bool(_LOCAL.fullmatch(host)) if address is None else not is_public(address)
