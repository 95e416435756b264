"""Open connections: name resolution, TCP, and TLS with ALPN h2 and full verification."""

import asyncio
import contextlib
import os
import secrets
import socket
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import aiohappyeyeballs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from handbell._proxy import Proxy
from handbell._thread_pool import resolve, resolve_theirs
from handbell.errors import GatewayError

from .http2_values import Endpoint, NoConnection, NotSent, in_words, trusted_certificates
from .tunnel import open_tunnel, unreachable

P = TypeVar("P", bound=asyncio.Protocol)
AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
"""One result of :func:`socket.getaddrinfo`."""

_HTTPS_PORT: Final = 443
_EYEBALLS_SECONDS: Final = 0.25  # RFC 8305: then the next address is tried in parallel
_KEEP_ALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 3))


def authority(url: str) -> str:
    """Return host and port as a request names them; the port only when it is not 443."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}" if parts.port in (None, _HTTPS_PORT) else f"{host}:{parts.port}"


def tls_context(endpoint: Endpoint) -> ssl.SSLContext:
    """Return the TLS context for the endpoint: 1.2 at least, name verified, HTTP/2 preferred.

    Without ``http1_connections`` nothing but HTTP/2 is offered.

    Raises :class:`NoConnection` when certificates are missing or unusable.
    """
    protocols = ("h2", "http/1.1") if endpoint.http1_connections else ("h2",)
    if endpoint.client_certificate is None:
        return shared_context(endpoint.ca_file, protocols)
    context = verifying_context(endpoint.ca_file)
    context.set_alpn_protocols(protocols)
    try:
        _load_certificate(context, endpoint.client_certificate)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise NoConnection(NotSent("ClientCertificateUnusable", str(error))) from None
    return context


def shared_context(ca_file: Path | None, protocols: tuple[str, ...] = ()) -> ssl.SSLContext:
    """Return a :func:`verifying_context` that offers these protocols by ALPN.

    It is made once until the file changes: that takes milliseconds. Do not change it.
    """
    try:
        trusted = ca_file or trusted_certificates()
        changed_at = trusted.stat().st_mtime_ns
    except (GatewayError, OSError):
        return verifying_context(ca_file)  # says what is wrong
    return _shared_context(trusted, changed_at, protocols)


@lru_cache(maxsize=8)
def _shared_context(ca_file: Path, _: int, protocols: tuple[str, ...]) -> ssl.SSLContext:
    context = verifying_context(ca_file)
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


def verifying_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context for TLS 1.2 or later that trusts ``ca_file``, or the system's certificates.

    Raises :class:`NoConnection` if the certificates are missing or cannot be read.
    """
    try:
        trusted = ca_file or trusted_certificates()
        context = ssl.create_default_context(cafile=str(trusted))
    except GatewayError as error:
        raise NoConnection(NotSent("NoTrustedCertificates", f"{error.what}. {error.fix}")) from None
    except OSError as error:  # ssl.SSLError is one
        why = f"{trusted} cannot be read as trusted certificates: {error}"
        raise NoConnection(NotSent("NoTrustedCertificates", why)) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _load_certificate(context: ssl.SSLContext, pem: bytes) -> None:
    """Load a certificate, through a file as ssl requires, with its key encrypted."""
    password = secrets.token_hex(32).encode()
    key = serialization.load_pem_private_key(pem, password=None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password),
    )
    certificates = b"".join(
        each.public_bytes(serialization.Encoding.PEM)
        for each in x509.load_pem_x509_certificates(pem)
    )
    with _nameless_file(key + certificates) as name:
        context.load_cert_chain(name, password=password)


@contextlib.contextmanager
def _nameless_file(content: bytes) -> Iterator[str]:
    """Yield a path to a file with this content: in memory where possible, else on disk."""
    if sys.platform == "linux":
        # A container may have a read-only root and no /tmp.
        with open(os.memfd_create("handbell"), "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
        return
    handle, name = tempfile.mkstemp(prefix="handbell-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        yield name
    finally:
        Path(name).unlink(missing_ok=True)


async def connect(
    endpoint: Endpoint,
    context: ssl.SSLContext,
    make: Callable[[], P],
    *,
    seconds: float,
    farewell_seconds: float,
) -> P:
    """Return the protocol of a new TLS connection; ``make`` creates it.

    The host is resolved anew each time, as Apple asks, or by the proxy, which then chooses the
    address, whatever ``endpoint.accepts`` would say. TLS may take
    ``farewell_seconds`` to close. Raises OSError, :class:`ssl.SSLError` among them, TimeoutError
    when ``seconds`` have passed, and :class:`~.http2_values.NoConnection` when the proxy is the
    cause.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    parts = urlsplit(endpoint.url)
    host = parts.hostname or ""
    port = parts.port or _HTTPS_PORT
    if endpoint.proxy is None:
        async with asyncio.timeout_at(until):
            opened = await _dial(host, port, endpoint.accepts)
    else:
        opened = await dial_through(endpoint.proxy, host, port, until)
    async with asyncio.timeout_at(until):
        _keep_alive(opened)
        name = opened.getsockname()
        making = loop.create_task(
            loop.create_connection(
                make,
                sock=opened,
                ssl=context,
                server_hostname=host,
                ssl_handshake_timeout=seconds,
                ssl_shutdown_timeout=farewell_seconds,
            )
        )
        try:
            _, protocol = await asyncio.shield(making)
        except asyncio.CancelledError:
            await _break_off(making, opened, name)
            raise
        finally:
            _disown(opened, name)
    return protocol


async def _dial(
    host: str, port: int, accepts: Callable[[str], bool] | None = None
) -> socket.socket:
    # Not in the loop's default executor: Python waits for its threads at exit.
    find = resolve if accepts is None else resolve_theirs
    found = await find(host, port, type=socket.SOCK_STREAM)
    if accepts is not None:
        # What is checked here is connected to: a second look-up might give other addresses.
        for address in (str(each[4][0]) for each in found):
            if not accepts(address):
                why = f"{host} is {address}, which may not be connected to"
                raise NoConnection(NotSent("AddressNotAllowed", why))
    return await open_first(found)


async def open_first(found: Sequence[AddressInfo]) -> socket.socket:
    """Return a socket connected to the first of these addresses that answers.

    IPv6 and IPv4 alternate; ``found`` is as from :func:`socket.getaddrinfo`. Raises OSError if all
    connections fail.
    """
    return await aiohappyeyeballs.start_connection(
        found, happy_eyeballs_delay=_EYEBALLS_SECONDS, interleave=1
    )


async def dial_through(proxy: Proxy, host: str, port: int, until: float) -> socket.socket:
    """Return a socket that a proxy has connected to the host, by ``until`` of the loop's clock.

    Every failure is the proxy's, and raises :class:`NoConnection`.
    """
    opened: socket.socket | None = None
    try:
        async with asyncio.timeout_at(until):
            opened = await _dial(proxy.host, proxy.port)
            await open_tunnel(opened, proxy, host, port)
    except BaseException as error:
        if opened is not None:
            opened.close()
        if isinstance(error, TimeoutError):
            raise unreachable(proxy, "it did not open the way in time") from None
        if isinstance(error, OSError):
            raise unreachable(proxy, in_words(error)) from None
        raise
    return opened


async def _break_off(making: asyncio.Task[Any], opened: socket.socket, name: object) -> None:
    """End a TLS handshake by shutting its socket down.

    Cancelling it, or closing the socket, would leave half of it in the event loop.
    """
    making.add_done_callback(lambda made: made.cancelled() or made.exception())
    _disown(opened, name)
    with contextlib.suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)
    await asyncio.wait([making])


def _disown(opened: socket.socket, name: object) -> None:
    """Detach a descriptor that uvloop has closed from Python's socket.

    uvloop does so itself, unless the connection ends within its first moments. Otherwise Python's
    clean-up would close whatever has the same number by then.
    """
    with contextlib.suppress(OSError):
        if opened.getsockname() == name:
            return
    opened.detach()


def _keep_alive(opened: socket.socket) -> None:
    """Enable TCP keep-alive, so that the kernel notices a dead idle peer."""
    with contextlib.suppress(OSError):
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE:
        with contextlib.suppress(AttributeError, OSError):  # not every system has all of them
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
