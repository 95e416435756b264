"""The other front door: who can be reached in an app, and on what."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ._clients import AppClient, BlockingClient, blocking
from ._thread_pool import in_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handbell.delivery.ledger.why import Story

    from .registry.session import Environment, Platform, RegisteredSession, Session
    from .settings import Settings
    from .system import System

ACTOR: Final = "library"
"""Who is named in the audit trail where a program of this machine has changed something."""


class AsyncSessions(AppClient):
    """Who can be reached in an app, and on what, for asynchronous callers.

    The app, ``home``, ``url`` and ``api_key`` are as for :class:`~handbell.AsyncPushNotification`;
    a key of a send server needs the scope ``register``, and ``send`` for :meth:`why`. The app is
    looked up at the first call or by ``async with``, which raises UnknownAppError or
    AmbiguousAppError when it cannot be told.
    """

    def __init__(
        self,
        app: str | None = None,
        *,
        home: str | Path | None = None,
        settings: "Settings | None" = None,
        url: str | None = None,
        api_key: str | None = None,
    ) -> None:
        super().__init__(app, home=home, settings=settings, url=url, api_key=api_key)

    async def register(
        self,
        mail: str,
        address: "str | Mapping[str, object]",
        *,
        platform: "Platform | None" = None,
        service: str | None = None,
        environment: "Environment | None" = None,
        locale: str | None = None,
        time_zone: str | None = None,
        device: str | None = None,
        app_version: str | None = None,
        os_version: str | None = None,
        device_id: str | None = None,
        external_id: str | None = None,
    ) -> "RegisteredSession":
        """Note whose device it is that is reached at an address, and return its session.

        ``address`` is the device token, or a browser's subscription as its ``toJSON()`` gives it.
        The ``platform`` decides which push service's it is, unless ``service`` does (``apns``,
        ``fcm``, ``webpush``). Sessions of one device through several services have the same
        ``device_id``.

        You vouch for it: the session is active at once, the address moves from whoever had it, and
        when this returns nothing of the former user is on its way any more. For the same person the
        session is refreshed: call it whenever the app tells its token. What is left out stays as it
        is; a token of which nothing is said is an iPhone's (``ios``) in ``production``. What cannot
        be stored of the device (an unknown time zone) is left out with a warning.

        Raises RegistryError for a mail, an address, a platform or an environment that is none, and
        SessionLimitError when the person has too many devices.
        """
        told = {
            "locale": locale,
            "time_zone": time_zone,
            "device": device,
            "app_version": app_version,
            "os_version": os_version,
            "device_id": device_id,
            "external_id": external_id,
        }
        from .registry.backend_registration import read_registration  # noqa: PLC0415 - heavy

        new = read_registration(
            mail, address, platform=platform, service=service, environment=environment, **told
        )
        if self._remote is not None:
            return await self._remote.register(new)
        async with self._ready() as (system, app, _):
            registered = await in_thread(new.admit, system.registry, app, int(system.now() * 1000))
            await system.engine.release(registered.moved)
            return new.registered(registered.session)

    async def close(self, session: "Session | int") -> None:
        """Log a device out: nothing is sent to it until it registers again.

        When this returns nothing is on its way to it any more. ``session`` is one of
        :meth:`sessions_of`, or its id. Raises UnknownSessionError when the app has no such session.
        """
        session_id = session if isinstance(session, int) else session.id
        if self._remote is not None:
            await self._remote.close_session(session_id)
            return
        async with self._ready() as (system, app, _):
            await in_thread(_close, system, app, session_id)
            await system.engine.release([session_id])

    async def all_addresses(self) -> list[str]:
        """Return the addresses of all active sessions, each once, sorted."""
        if self._remote is not None:
            active = await self._remote.sessions(status="active")
            return sorted({session.address for session in active})
        async with self._ready() as (system, app, _):
            return await in_thread(system.registry.addresses, app)

    async def all_device_tokens(self) -> list[str]:
        """Return the device tokens among the addresses: all but browsers' subscriptions."""
        if self._remote is not None:
            active = await self._remote.sessions(status="active")
            return sorted({one.token for one in active if one.kind != "subscription"})
        async with self._ready() as (system, app, _):
            return await in_thread(system.registry.device_tokens, app)

    async def all_mail_addresses(self) -> list[str]:
        """Return the mail addresses of all users, sorted."""
        if self._remote is not None:
            return await self._remote.mail_addresses()
        async with self._ready() as (system, app, _):
            return await in_thread(system.registry.mail_addresses, app)

    async def sessions_of(self, mail: str) -> "list[Session]":
        """Return a user's sessions, whatever their status; empty for a mail that is not known."""
        if self._remote is not None:
            return await self._remote.sessions(mail=mail)
        async with self._ready() as (system, app, _):
            return await in_thread(system.registry.sessions_of, app, mail)

    async def why(self, mail: str) -> "Story":
        """Return why a person saw the last notifications, or did not.

        The story holds the facts and the sentences; ``str`` of it is the whole text, ``is_sent``
        whether the last notification was accepted by the push service. A mail that nobody has is a
        story, too.
        """
        if self._remote is not None:
            return await self._remote.why(mail)
        async with self._ready() as (system, app, _):
            return await in_thread(system.why, app, mail)


class Sessions(BlockingClient[AsyncSessions]):
    """Who can be reached in an app. The same as :class:`AsyncSessions`, for ordinary callers.

    Raises UnknownAppError or AmbiguousAppError at once when the app cannot be told. ``with`` closes
    the connections at its end; without it they are closed when the process ends. A hook may ask;
    :meth:`register` and :meth:`close` wait for the thread that calls hooks, and raise DeadlockError
    there.
    """

    def __init__(
        self,
        app: str | None = None,
        *,
        home: str | Path | None = None,
        settings: "Settings | None" = None,
        url: str | None = None,
        api_key: str | None = None,
    ) -> None:
        super().__init__(
            AsyncSessions(app, home=home, settings=settings, url=url, api_key=api_key),
            only_asks=True,
        )

    register = blocking(AsyncSessions.register)
    close = blocking(AsyncSessions.close)
    all_addresses = blocking(AsyncSessions.all_addresses, only_asks=True)
    all_device_tokens = blocking(AsyncSessions.all_device_tokens, only_asks=True)
    all_mail_addresses = blocking(AsyncSessions.all_mail_addresses, only_asks=True)
    sessions_of = blocking(AsyncSessions.sessions_of, only_asks=True)
    why = blocking(AsyncSessions.why, only_asks=True)


def _close(system: "System", app: Any, session_id: int) -> None:
    from .registry.session import CLOSED_BY_OPERATOR  # noqa: PLC0415 - heavy

    found = system.registry.session_of_app(app, session_id)
    if system.registry.close(found, CLOSED_BY_OPERATOR):
        system.audit.note(ACTOR, "session.close", f"session {found.id}", app=app.id)
