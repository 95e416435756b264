"""A send server on a real socket, in a thread of its own, for the tests of its parts."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, Self, TypeVar

import httpx
import pytest
from tests.conftest import Stage
from tests.made_once import plain_client

from handbell._portal import new_loop
from handbell.apps.app import App
from handbell.http_server.bounds import Bounds
from handbell.server.application import create_application
from handbell.server.asgi_server import bind, make_context, serving, url_of
from handbell.server.context import Context  # noqa: TC001 - an attribute's type
from handbell.server.links.mail import mailing
from handbell.server.presence import present
from handbell.system import System

T = TypeVar("T")


class Server:
    """A running server. ``url`` is where it listens; ``context`` is what its requests share."""

    def __init__(
        self,
        system: System,
        *,
        with_worker: bool = True,
        bounds: Bounds | None = None,
        **options: Any,
    ) -> None:
        self.system = system
        self._bounds = bounds
        self.counts_loopback = False
        self._with_worker = with_worker
        self._options = options
        self._loop = new_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stop: asyncio.Event | None = None
        self._done: Future[None] | None = None
        self.context: Context
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        started: Future[None] = Future()
        self._done = asyncio.run_coroutine_threadsafe(self._run(started), self._loop)
        self._done.add_done_callback(lambda done: _pass_on(done, started))
        started.result(20)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._done is not None
        if self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        try:
            self._done.result(20)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _run(self, started: "Future[None]") -> None:
        self._stop = asyncio.Event()
        with bind("127.0.0.1:0") as bound:
            host, port = bound.getsockname()
            scheme = "https" if self.system.settings.tls_certificate else "http"
            self.url = f"{scheme}://{host}:{port}"
            self.context = make_context(
                self.system,
                public_url=url_of(bound, self.system.settings),
                has_worker=self._with_worker,
                **self._options,
            )
            if self._with_worker:
                await self.system.engine.start()
            try:
                async with (
                    mailing(self.context),
                    present(self.context),
                    serving(
                        create_application(self.context),
                        bound,
                        settings=self.system.settings,
                        bounds=self._bounds,
                        is_exempt=lambda _: not self.counts_loopback,
                        grace=1,
                    ),
                ):
                    started.set_result(None)
                    await self._stop.wait()
            finally:
                await self.system.close_gateways()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the server's event loop and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def limit_loopback(self) -> None:
        """Count the connections of this machine too, from now on."""
        self.counts_loopback = True

    def key(self, *scopes: str, app: App | None = None) -> str:
        """Return a new API key; without scopes it administers."""
        return self.system.api_keys.add("test", scopes or ["administer"], app)[1]

    def client(
        self, key: str | None = None, headers: Mapping[str, str] | None = None, **options: Any
    ) -> httpx.Client:
        """Return an HTTP client of the server; ``key`` goes with each request."""
        headers = {**(headers or {}), **({"Authorization": f"Bearer {key}"} if key else {})}
        return plain_client(self.url, headers=headers, **options)


def _pass_on(done: "Future[None]", started: "Future[None]") -> None:
    if not started.done() and (error := done.exception()) is not None:
        started.set_exception(error)


@contextlib.contextmanager
def start_server(system: System, **options: Any) -> Iterator[Server]:
    """Run a server over a system while the block runs."""
    with Server(system, **options) as server:
        yield server


@pytest.fixture
def server(stage: Stage) -> Iterator[Server]:
    """Give a server over the stage: its app, its key, its twin."""
    with start_server(stage.system, has_console=False) as running:
        yield running


@pytest.fixture
def administrator(server: Server) -> Iterator[httpx.Client]:
    """Give a client whose key may do everything with every app."""
    with server.client(server.key()) as client:
        yield client
