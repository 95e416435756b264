"""One HTTP request to an address that somebody else chose, without becoming their tool.

Whoever names a webhook's address could name one inside our network. So the host is resolved here,
each of its addresses has to be public, and libcurl is given those and nothing else: what it opens
is compared once more, so that a name which answers differently a moment later gains nothing. No
redirect is followed, no proxy of the environment is used, certificates are checked, and an answer
is read no further than :data:`MOST_ANSWER_BYTES`.

Where an operator names a proxy for it, the proxy resolves the host, and which addresses it reaches
is the proxy's to decide. What the URL itself says is checked as before, and so is the certificate.
"""

import re
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Final, NamedTuple, Protocol, Self
from urllib.parse import SplitResult, urlsplit

import pycurl

from handbell._proxy import DIRECT, Proxies, Proxy
from handbell._version import __version__
from handbell.errors import HandbellError, WebhookError
from handbell.gateways.http2 import trusted_certificates

MOST_ANSWER_BYTES: Final = 64 * 1024
MOST_URL_CHARACTERS: Final = 2000
MOST_REASON_CHARACTERS: Final = 300
CONNECT_SECONDS: Final = 10.0
REQUEST_SECONDS: Final = 20.0
"""From the first byte to the last; Standard Webhooks advises 15 to 30 seconds."""

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

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Iterable[str]]
"""Returns the addresses of a host as texts; raises OSError when there is none."""


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host, as the system's resolver gives them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(one[4][0]) for one in found]


def is_public(address: str) -> bool:
    """Return whether an address is reached over the public internet, and nowhere else.

    An IPv6 address that carries an IPv4 address (mapped, NAT64, 6to4) is what the inner one is. One
    whose meaning is not certain (Teredo, a zone, not assigned) is not public.
    """
    found = _address(address)
    return found is not None and _is_public(found)


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _is_public(address: Address) -> bool:
    if any(address in network for network in _NOT_PUBLIC if network.version == address.version):
        return False
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast and not address.is_reserved
    if address.scope_id is not None:
        return False
    inner = _inner(address)
    if inner is not None:
        return _is_public(inner)
    return address in _UNICAST and address.is_global


def _inner(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a request goes, as parts of which each was checked; :attr:`url` is built from them."""

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


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - only asking for it says that it is not a number
    except ValueError:
        raise _wrong(url, "it is not a URL") from None
    return parts


def _host(url: str, host: str, *, allow_private: bool) -> str:
    address = _address(host)
    if address is None:
        if not _NAME.fullmatch(host) or _NUMERIC.fullmatch(host):
            raise _wrong(url, f"{host} is neither a host's name in ASCII nor an address")
        if not allow_private and _LOCAL.fullmatch(host):
            # It would be refused at each call; whoever names it hears so now.
            raise _wrong(url, f"{host} is this machine", fix=_ALLOW)
        return host
    if not allow_private and not _is_public(address):
        raise _wrong(url, f"{host} is not a public address", fix=_ALLOW)
    return str(address)


_ALLOW: Final = "Name a public host, or set HANDBELL_WEBHOOK_ALLOW_PRIVATE=1 if it is your own"


_ALLOW_HTTP: Final = (
    "Write https://, or set HANDBELL_WEBHOOK_ALLOW_PRIVATE=1 for the process that sends: then "
    "http:// and hosts of your own are called"
)


def _is_private(host: str) -> bool:
    address = _address(host)
    return bool(_LOCAL.fullmatch(host)) if address is None else not _is_public(address)


def _wrong(url: str, why: str, *, fix: str = "") -> WebhookError:
    return WebhookError(
        f"The address {url[:200]!r} cannot be called: {why}",
        fix=fix or "Write it like https://backend.example.com/handbell",
    )


class Answer(NamedTuple):
    """What came of a request: the status of its answer, or None with the reason why there is none.

    ``retry_after`` is the wait in seconds that the answer asked for, or None.
    """

    status: int | None
    reason: str = ""
    retry_after: int | None = None

    @property
    def is_success(self) -> bool:
        """Whether the receiver took it: any 2xx."""
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004


class _Opened(Protocol):
    """What libcurl wants to connect to."""

    family: int
    socktype: int
    protocol: int
    addr: tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbound:
    """How requests to foreign addresses are made.

    ``allow_private`` lifts the check of addresses, and lets ``http`` through to loopback.
    ``ca_file`` is trusted instead of the machine's certificates. ``proxies`` says which hosts are
    asked through a proxy, which then resolves their names. Times are in seconds.
    """

    allow_private: bool = False
    proxies: Proxies = DIRECT
    resolve: Resolve = resolve
    ca_file: Path | None = None
    connect_seconds: float = CONNECT_SECONDS
    request_seconds: float = REQUEST_SECONDS

    def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, stop: threading.Event
    ) -> Answer:
        """Post the body and return what came of it; nothing that the receiver does is raised.

        Blocks for at most ``request_seconds`` and what the resolver takes; within a second once
        ``stop`` is set.
        """
        easy = pycurl.Curl()
        sockets: list[socket.socket] = []
        try:
            target = Target.read(url, allow_private=self.allow_private)
            self._prepare(easy, target)
            proxy = self.proxies.to(target.url)
            if proxy is None:
                addresses = self.addresses(target)
                easy.setopt(pycurl.RESOLVE, _told(target, addresses))
                opener = partial(_open_checked, addresses, sockets)
                easy.setopt(pycurl.OPENSOCKETFUNCTION, opener)
            else:
                _lead_through(easy, target, proxy)
            easy.setopt(pycurl.POSTFIELDS, body)
            easy.setopt(pycurl.HTTPHEADER, [f"{name}: {text}" for name, text in headers.items()])
            easy.setopt(pycurl.XFERINFOFUNCTION, lambda *_progress: stop.is_set())
            return _perform(easy, proxy)
        except HandbellError as error:
            return Answer(None, error.what[:MOST_REASON_CHARACTERS])
        finally:
            easy.close()
            for each in sockets:
                each.close()

    def addresses(self, target: Target) -> frozenset[Address]:
        """Return the addresses that a request to the target may go to: all that its host has.

        Raises :class:`~handbell.errors.WebhookError` when there is none, or one is not public.
        """
        found = self._resolved(target)
        refused = [] if self.allow_private else [one for one in found if not _is_public(one)]
        if refused:
            why = f"{target.host} is {refused[0]}, which is not public"
            raise _wrong(target.url, why, fix=_ALLOW)
        if target.scheme == "http" and not all(one.is_loopback for one in found):
            raise _in_the_clear(target)
        return found

    def _resolved(self, target: Target) -> frozenset[Address]:
        try:
            found = frozenset(ip_address(one) for one in self.resolve(target.host, target.port))
        except (OSError, ValueError):
            found = frozenset()
        if not found:
            raise _wrong(target.url, f"{target.host} has no address", fix="Check the host's name")
        return found

    def _prepare(self, easy: pycurl.Curl, target: Target) -> None:
        for option, value in (
            (pycurl.URL, target.url),
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTPS | pycurl.PROTO_HTTP),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS),
            (pycurl.FOLLOWLOCATION, 0),
            (pycurl.PROXY, ""),
            (pycurl.NOPROXY, ""),
            (pycurl.CAINFO, str(self.ca_file or trusted_certificates())),
            (pycurl.SSL_VERIFYPEER, 1),
            (pycurl.SSL_VERIFYHOST, 2),
            (pycurl.CONNECTTIMEOUT_MS, int(self.connect_seconds * 1000)),
            (pycurl.TIMEOUT_MS, int(self.request_seconds * 1000)),
            (pycurl.NOSIGNAL, 1),
            (pycurl.NOPROGRESS, 0),
            (pycurl.USERAGENT, f"handbell/{__version__}"),
            (pycurl.WRITEFUNCTION, _Reader().take),
        ):
            easy.setopt(option, value)


def _in_the_clear(target: Target) -> WebhookError:
    return _wrong(target.url, "plain http is for loopback only", fix="Use https")


def _lead_through(easy: pycurl.Curl, target: Target, proxy: Proxy) -> None:
    """Have libcurl ask a proxy for a tunnel to the target; nothing else goes through it."""
    if target.scheme == "http":
        raise _in_the_clear(target)
    easy.setopt(pycurl.PROXY, f"http://{proxy.authority}")
    easy.setopt(pycurl.HTTPPROXYTUNNEL, 1)
    # The receiver's headers are none of the proxy's, and the credentials none of the receiver's.
    easy.setopt(pycurl.HEADEROPT, pycurl.HEADER_SEPARATE)
    own = [f"Proxy-Authorization: {proxy.authorization}"] if proxy.authorization else []
    easy.setopt(pycurl.PROXYHEADER, own)


def _told(target: Target, addresses: frozenset[Address]) -> list[str]:
    """Return what libcurl takes for the resolver's answer; it asks none for an address."""
    if _address(target.host) is not None:
        return []
    listed = ",".join(f"[{one}]" if ":" in str(one) else str(one) for one in addresses)
    return [f"{target.authority}:{listed}"]


class _Reader:
    """Throws an answer's body away, and stops the transfer when it is too long."""

    def __init__(self) -> None:
        self._size = 0

    def take(self, chunk: bytes) -> int | None:
        """Count a piece; None takes it, any other number than its length ends the transfer."""
        self._size += len(chunk)
        return None if self._size <= MOST_ANSWER_BYTES else -1


def _open_checked(
    addresses: frozenset[Address], sockets: list[socket.socket], _purpose: int, address: _Opened
) -> socket.socket | int:
    """Give libcurl a socket for a checked address, and none for any other."""
    if _address(str(address.addr[0])) not in addresses:
        return int(pycurl.SOCKET_BAD)
    # libcurl gets a copy of it; ours is closed when the request is over.
    opened = socket.socket(address.family, address.socktype, address.protocol)
    sockets.append(opened)
    return opened


def _perform(easy: pycurl.Curl, proxy: Proxy | None) -> Answer:
    try:
        easy.perform()
        reason = ""
    except pycurl.error as error:
        reason = str(error.args[1] or f"libcurl's error {error.args[0]}")
    status = int(easy.getinfo(pycurl.RESPONSE_CODE))
    # The receiver has answered once its status is here, whatever became of the rest.
    if status >= 200:  # noqa: PLR2004
        return Answer(status, f"answered {status}", int(easy.getinfo(pycurl.RETRY_AFTER)) or None)
    if proxy is not None:
        reason = f"through the proxy {proxy.authority}: {reason}"
    return Answer(None, reason[:MOST_REASON_CHARACTERS])
