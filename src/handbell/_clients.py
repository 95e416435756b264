"""What every client of an app has in common, and how the synchronous ones are made.

There is one implementation, for asyncio. A synchronous client is a :class:`BlockingClient` around
it, whose methods are the asynchronous ones handed through :func:`blocking`: same names, signatures
and docstrings, because they are the same.
"""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from ._portal import EXIT_SECONDS, ask, run
from ._thread_pool import in_thread
from .errors import SettingsError

if TYPE_CHECKING:
    from handbell.remote.client import RemoteApp

    from .apps.app import App
    from .services.apns.credential import AuthKey
    from .settings import Settings
    from .system import System

P = ParamSpec("P")
T = TypeVar("T")


class AppClient:
    """An app in the home of this machine, or on a send server; its event loop is the caller's."""

    def __init__(
        self,
        reference: str | None,
        *,
        home: str | Path | None,
        settings: "Settings | None",
        url: str | None,
        api_key: str | None,
        has_auth: bool = False,
    ) -> None:
        self._reference = reference
        self._remote = _reach(url, api_key, reference, has_auth=has_auth)
        self._settings = None if self._remote else settings or _load_settings(home)
        self._found: tuple[App, AuthKey | None] | None = None

    async def prepare(self) -> None:
        """Look the app and its key up now instead of at the first call."""
        if self._remote is None:
            async with self._ready():
                return
        await self._remote.find()

    async def __aenter__(self) -> Self:
        await self.prepare()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Whoever is interrupted, or fails, does not want to wait for what is on its way.
        await self._leave(within=None if kind is None else EXIT_SECONDS)

    async def _leave(self, *, within: float | None = None) -> None:
        """Close what nobody else uses; whoever calls again opens it again."""
        if self._remote is not None:
            await self._remote.close()
            return
        from .shared_systems import leave  # noqa: PLC0415 - heavy

        await leave(self, within=within)

    @asynccontextmanager
    async def _ready(self) -> "AsyncIterator[tuple[System, App, AuthKey | None]]":
        """Give the system to work with while the block runs, the app, and a key of its own."""
        from .shared_systems import using  # noqa: PLC0415 - heavy

        if self._settings is None:
            raise SettingsError(
                "A send server does the sending",
                fix="Ask it over its API, or leave out the server's address to send from here",
            )
        async with using(self._settings, self) as system:
            if self._found is None:
                self._found = await in_thread(self._look_up, system)
            app, key = self._found
            yield system, app, key

    def _look_up(self, system: "System") -> "tuple[App, AuthKey | None]":
        return system.apps.find(self._reference or system.settings.app), None


C = TypeVar("C", bound=AppClient)


class BlockingClient(Generic[C]):
    """A client for ordinary callers: what it is asked runs in the thread of the portal.

    One that ``only_asks`` to be made may be made in that thread, too.
    """

    def __init__(self, client: C, *, only_asks: bool = False) -> None:
        self._client = client
        (ask if only_asks else run)(_prepared(client))

    def __init_subclass__(cls) -> None:
        for name, method in vars(cls).items():
            if hasattr(method, "__wrapped__"):
                method.__qualname__ = f"{cls.__qualname__}.{name}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        run(self._client.__aexit__(kind))


def blocking(
    method: Callable[Concatenate[C, P], Coroutine[Any, Any, T]], *, only_asks: bool = False
) -> Callable[Concatenate[BlockingClient[C], P], T]:
    """Return the method of a synchronous client that an asynchronous one is, awaited.

    One that ``only_asks`` needs no worker and may be called by a hook.
    """
    wait_for = ask if only_asks else run

    @wraps(method)
    def call(self: BlockingClient[C], /, *arguments: P.args, **named: P.kwargs) -> T:
        return wait_for(method(self._client, *arguments, **named))

    return call


async def _prepared(client: AppClient) -> None:
    try:
        await client.prepare()
    except BaseException:
        await client.__aexit__(None)
        raise


def _reach(
    url: str | None, api_key: str | None, reference: str | None, *, has_auth: bool
) -> "RemoteApp | None":
    """Return the way to an app on a send server, or None where no address is given."""
    if url is None and api_key is None:
        return None
    if url is None:
        raise SettingsError(
            "An API key was given without a server", fix="Give the server's address as url"
        )
    if has_auth:
        raise SettingsError(
            "An auth object was given beside a send server, which has keys of its own",
            fix="Name the app by its id, or leave it out",
        )
    from handbell.remote.client import RemoteApp  # noqa: PLC0415 - heavy

    return RemoteApp(url, api_key, reference)


def _load_settings(home: str | Path | None) -> "Settings":
    from .settings import Settings  # noqa: PLC0415 - heavy

    return Settings.load() if home is None else Settings.load(home=Path(home))
