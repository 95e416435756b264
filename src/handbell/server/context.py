"""What every request of one server shares."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final, ParamSpec, TypeVar, cast

from starlette.requests import HTTPConnection

from handbell.delivery.metrics import Metrics
from handbell.settings import Settings
from handbell.system import System

from .limits import Limiter

P = ParamSpec("P")
T = TypeVar("T")

_THREADS: Final = 8


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="handbell-server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One per server, reached from a request by :func:`context_of`.

    ``public_url`` has no slash at its end and includes the root path: links in mails and on pages
    begin with it. ``has_worker`` says whether this process sends what it accepts, ``has_console``
    whether it shows the console.
    """

    system: System
    settings: Settings
    metrics: Metrics
    limiter: Limiter
    public_url: str
    has_worker: bool = True
    has_console: bool = True
    pool: ThreadPoolExecutor = field(default_factory=_threads, repr=False)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a blocking call of a store returns, made in a thread of the server."""
        work = partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self.pool, work)


def context_of(connection: HTTPConnection) -> Context:
    """Return the context of the server that a request came to."""
    return cast("Context", connection.app.state.context)
