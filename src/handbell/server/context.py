"""The state shared by all requests of one server."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Final, ParamSpec, TypeVar, cast

from starlette.requests import HTTPConnection

from handbell.apps.app import App
from handbell.apps.isolated_parser import read_certificate_apart
from handbell.delivery.observe.metrics import Metrics
from handbell.services.apns.credential import Certificate
from handbell.settings import Settings
from handbell.system import System

from .limits import Limit, Limiter
from .server_metrics import RequestMetrics

P = ParamSpec("P")
T = TypeVar("T")

_THREADS: Final = 8
_READERS: Final = 2
_MOST_APPS: Final = 10_000
_APP_SECONDS: Final = 1.0


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="handbell-server")


def _readers() -> asyncio.Semaphore:
    return asyncio.Semaphore(_READERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The server's shared state, available in a request through :func:`context_of`.

    ``public_url`` has no trailing slash and includes the root path: links in mails and on pages
    begin with it. ``root_path`` is the path prefix of a proxy; a request's own is in its scope.
    ``requests`` counts them. ``link_asked`` is set when a link has to be mailed; ``stopping`` when
    the server stops, for endless responses. ``has_worker`` tells whether this process sends what
    it accepts, ``has_console`` whether it serves the console.
    """

    system: System
    settings: Settings
    metrics: Metrics
    limiter: Limiter
    public_url: str
    root_path: str = ""
    requests: RequestMetrics = field(default_factory=RequestMetrics)
    has_worker: bool = True
    has_console: bool = True
    link_asked: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    stopping: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    pool: ThreadPoolExecutor = field(default_factory=_threads, repr=False)
    readers: asyncio.Semaphore = field(default_factory=_readers, repr=False)

    apps: dict[str, tuple[float, App]] = field(default_factory=dict, repr=False)

    def find_app(self, reference: str, within: int | None = None) -> App:
        """Return an app as ``system.apps.find`` does, cached by id for a second.

        Call it in a thread, unless :meth:`known_app` has it.
        """
        app = self.system.apps.find(reference, within=within)
        if reference == app.id:
            if len(self.apps) >= _MOST_APPS:
                self.apps.clear()
            self.apps[reference] = (monotonic() + _APP_SECONDS, app)
        return app

    def known_app(self, reference: str, within: int | None = None) -> App | None:
        """Return the app if it is in the cache; never queries the database."""
        until, app = self.apps.get(reference, (0.0, None))
        if app is None or monotonic() >= until or within not in (None, app.row):
            return None
        return app

    def remove_app(self, app: App) -> None:
        """Remove an app and its cached data and keys; call it in a thread."""
        self.system.apps.remove(app)
        self.system.api_keys.forget()
        self.apps.clear()

    async def require(self, purpose: str, caller: str, limit: Limit) -> None:
        """Count a call of a caller. Raises RateLimitedError; see :class:`~.limits.Limiter`."""
        await self.run(self.limiter.require, purpose, caller, limit)

    async def read_certificate(self, content: bytes, *, password: str | None) -> Certificate:
        """Parse an untrusted certificate; see :mod:`handbell.apps.isolated_parser`."""
        async with self.readers:
            return await read_certificate_apart(content, password=password)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call of a store in a thread of the server."""
        work = partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self.pool, work)


def context_of(connection: HTTPConnection) -> Context:
    """Return the context of the request's server."""
    return cast("Context", connection.app.state.context)
