"""Run the server in an event loop: bind, serve, stop within a bounded time."""

import contextlib
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from starlette.types import ASGIApp

from handbell.delivery.observe.metrics import Metrics
from handbell.delivery.queue.nodes import NodeKind
from handbell.errors import HandbellError, ServeError
from handbell.http_server.bounds import Bounds
from handbell.http_server.networks import is_loopback
from handbell.http_server.server import HttpServer, serving_on
from handbell.settings import Settings
from handbell.system import System

from .context import Context
from .limits import Limiter
from .problems import MEDIA_TYPE, problem_of
from .proxies import Proxies
from .server_metrics import engine_state

GRACE_SECONDS: Final = 10
"""How long requests that run at the stop may take to end."""
BACKLOG: Final = 2048


def make_context(
    system: System,
    *,
    public_url: str,
    has_worker: bool = True,
    has_console: bool = True,
    limiter: Limiter | None = None,
    kind: NodeKind = "server",
) -> Context:
    """Return the context of a server over a system, and count the system's events.

    ``kind`` is what the process counts as: a worker may have a server for its health.
    """
    metrics = Metrics(partial(engine_state, system))
    system.hooks.add(metrics)
    system.run_as(kind)
    return Context(
        system=system,
        settings=system.settings,
        metrics=metrics,
        limiter=limiter or Limiter(lambda: system.buckets),
        public_url=public_url,
        root_path=root_path_of(system.settings),
        has_worker=has_worker,
        has_console=has_console,
    )


def root_path_of(settings: Settings) -> str:
    """Return the path prefix under which a proxy serves Handbell, or an empty text."""
    return settings.root_path or urlsplit(settings.public_url).path.rstrip("/")


def bind(listen: str) -> socket.socket:
    """Return a socket that listens on ``host:port``. Raises ServeError when it cannot."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    bound = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError as error:
        if bound is not None:
            bound.close()
        raise _cannot_listen(listen, error) from None
    bound.setblocking(False)
    return bound


def _cannot_listen(listen: str, error: OSError) -> ServeError:
    if error.errno == errno.EADDRINUSE:
        return ServeError(
            f"Something already listens on {listen}",
            fix="Stop it, or name another address: --listen 127.0.0.1:8711",
        )
    if error.errno == errno.EACCES:
        return ServeError(
            f"This user may not listen on {listen}",
            fix="Take a port from 1024 on, and let a proxy listen on the lower one",
        )
    return ServeError(
        f"{listen} cannot be listened on: {error.strerror}",
        fix="Name an address of this machine, 127.0.0.1 or 0.0.0.0 for example",
    )


def url_of(bound: socket.socket, settings: Settings) -> str:
    """Return the URL of a listening socket, without a trailing slash.

    It is the public URL, if one is set.
    """
    if settings.public_url:
        root = root_path_of(settings)
        has_path = bool(urlsplit(settings.public_url).path)
        return settings.public_url if has_path else settings.public_url + root
    host, port = bound.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound
    host = f"[{host}]" if ":" in host else host
    scheme = "https" if settings.tls_certificate else "http"
    return f"{scheme}://{host}:{port}{settings.root_path}"


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return the server's TLS context, or None for plain HTTP.

    Raises ServeError naming the unusable file.
    """
    certificate = settings.tls_certificate
    if certificate is None:
        if settings.tls_key is not None:
            raise ServeError(
                "There is a TLS key and no certificate",
                fix="Set HANDBELL_TLS_CERTIFICATE, or remove HANDBELL_TLS_KEY",
            )
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    key = settings.tls_key or certificate
    try:
        # Never prompt for a password on the terminal: the server starts unattended.
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise _bad_certificate(certificate, key, error) from None
    return context


def _no_password() -> str:
    raise ValueError("the key is protected by a password")


def _bad_certificate(certificate: Path, key: Path, error: Exception) -> ServeError:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    if reason == "KEY_VALUES_MISMATCH":
        return ServeError(
            f"The key in {key} is not that of the certificate in {certificate}",
            fix="Name the two files that belong together",
        )
    return ServeError(
        f"TLS cannot be served with {certificate} and {key}: {reason}",
        fix="Name PEM files: the certificate with its chain, and its key without a password",
    )


@contextlib.asynccontextmanager
async def serving(
    application: ASGIApp,
    bound: socket.socket,
    *,
    settings: Settings,
    bounds: Bounds | None = None,
    is_exempt: Callable[[str], bool] | None = None,
    grace: float = GRACE_SECONDS,
) -> AsyncIterator[HttpServer]:
    """Serve an application on a socket while the block runs.

    ``is_exempt`` returns whether an address has no connection limit; by default these are loopback
    and the trusted proxies.

    At its end nothing new is accepted, and running requests have ``grace`` seconds to finish.
    Raises ServeError for an unusable certificate.
    """
    async with serving_on(
        bound,
        application,
        grace=grace,
        bounds=bounds,
        tls=tls_context(settings),
        is_exempt=is_exempt or _exemption(settings),
        body_of=_body_of,
    ) as server:
        yield server


def _exemption(settings: Settings) -> Callable[[str], bool]:
    proxies = Proxies(settings.trusted_proxies)
    return lambda address: is_loopback(address) or proxies.trusts(address)


def _body_of(error: HandbellError) -> tuple[str, bytes]:
    answer = problem_of(error)
    return MEDIA_TYPE, bytes(answer.body)
