"""A server in an event loop: bind, serve, stop within a bounded time."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Final

import uvicorn
from fastapi import FastAPI

from handbell.delivery.metrics import Metrics
from handbell.errors import ServeError
from handbell.settings import Settings
from handbell.system import System

from .context import Context
from .limits import Limiter

GRACE_SECONDS: Final = 10
"""How long requests that run at the stop may take to end."""


def make_context(
    system: System,
    *,
    public_url: str,
    has_worker: bool = True,
    has_console: bool = True,
    limiter: Limiter | None = None,
) -> Context:
    """Return the context of a server over a system."""
    metrics = Metrics()
    system.hooks.add(metrics)
    return Context(
        system=system,
        settings=system.settings,
        metrics=metrics,
        limiter=limiter or Limiter(),
        public_url=public_url,
        has_worker=has_worker,
        has_console=has_console,
    )


def bind(listen: str) -> socket.socket:
    """Return a socket that listens on ``host:port``. Raises ServeError where it cannot."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, int(port)))
        bound.listen(2048)
    except OSError as error:
        bound.close()
        raise ServeError(
            f"{listen} cannot be listened on: {error.strerror}",
            fix="Stop what uses the port, or name another with --listen",
        ) from None
    bound.setblocking(False)
    return bound


def url_of(bound: socket.socket, settings: Settings) -> str:
    """Return the address of a listening socket as a URL, or the public one where it is set."""
    if settings.public_url:
        return settings.public_url
    host, port = bound.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    scheme = "https" if settings.tls_certificate else "http"
    return f"{scheme}://{host}:{port}{settings.root_path}"


class _Server(uvicorn.Server):
    """uvicorn without signal handlers of its own: who runs it decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]  # noqa: ANN202 - as its base
        """Leave the signals alone."""
        yield


@contextlib.asynccontextmanager
async def serving(application: FastAPI, bound: socket.socket) -> AsyncIterator[None]:
    """Serve an application on a socket while the block runs."""
    config = uvicorn.Config(
        application,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        while not server.started and not running.done():  # noqa: ASYNC110 - it offers no event
            await asyncio.sleep(0.005)
        yield
    finally:
        server.should_exit = True
        await running
