"""The front door: write a title and a body, name a person, send.

Nothing heavy is imported until something is sent.
"""

from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, TypeVar, Unpack

from ._portal import EXIT_SECONDS, portal
from ._text import nearest
from ._threads import in_thread
from .creation.notification import Notification, Record
from .creation.recipients import EVERYBODY, Recipients
from .creation.template import read_use
from .errors import AppError, CredentialError, RecipientsError, SettingsError

if TYPE_CHECKING:
    from handbell.delivery.ledger.why import Story
    from handbell.remote.client import RemoteApp

    from .apps.app import App
    from .apps.credentials import AuthKey
    from .delivery.events import Hook
    from .delivery.response import Response
    from .registry.session import Session
    from .settings import Settings
    from .system import System

NotificationLike = Notification | Mapping[str, Any]
RecipientsLike = Recipients | str | Sequence[str] | Mapping[str, Any]
TargetLike = str | Mapping[str, Any] | Record | tuple[str, Any]

T = TypeVar("T")

_CAMEL_CASE = {
    "bundleId": "bundle_id",
    "teamId": "team_id",
    "authKey": "auth_key",
    "keyId": "key_id",
    "isDevelopment": "is_development",
}


class How(TypedDict, total=False):
    """How to send, beside what and to whom. Each may be left out.

    ``send_at`` is an instant (UNIX seconds, an aware datetime, ISO 8601 with an offset) or a local
    time in each recipient's zone (without one). ``urgency`` is ``urgent``, ``normal`` or ``bulk``
    and says who goes first. An ``idempotency_key`` makes a repeated call return the first answer.
    """

    send_at: str | float | datetime | None
    urgency: str | None
    idempotency_key: str | None


@dataclass(slots=True, kw_only=True)
class Auth:
    """How an app proves itself to Apple, without an entry in the registry.

    ``auth_key`` is the path or the text of ``AuthKey_XXX.p8``; ``key_id`` is needed when the file
    name does not say it. ``is_development`` starts with Apple's development hosts wherever it is
    not known yet in which environment a device lives.
    """

    bundle_id: str | None = None
    team_id: str | None = None
    auth_key: str | Path | None = field(default=None, repr=False)
    key_id: str | None = None
    is_development: bool = False

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Self:
        """Return the auth object that a mapping describes, in either spelling.

        Raises AppError for an unknown or a missing member.
        """
        known = cls.__dataclass_fields__
        given = {_CAMEL_CASE.get(name, name): member for name, member in value.items()}
        for name in given:
            if name not in known:
                near = nearest(name, known)
                hint = f"Did you mean {near!r}?" if near else f"Known: {', '.join(known)}."
                raise AppError(f"The auth object has an unknown member {name!r}", fix=hint)
        missing = [name for name in ("bundle_id", "team_id", "auth_key") if not given.get(name)]
        if missing:
            raise AppError(
                f"The auth object lacks {' and '.join(missing)}",
                fix="It needs bundle_id, team_id and auth_key (a path or the key's text)",
            )
        return cls(**given)


class AsyncPushNotification:
    """Sends to an app's users, for asynchronous callers.

    ``app`` is an app id such as ``TEAM123456.com.sample.myapp``, a bundle id or a name; it may be
    left out where there is one app. An :class:`Auth` (or a mapping of its members) needs no entry
    in the registry. ``home`` is the folder of the database and the secret key, by default the one
    that the ``handbell`` command uses.

    With a ``url`` everything is asked of the send server there, which an ``api_key`` with the scope
    ``send`` opens; that needs the extra ``client``.

    ``recipients`` may be set beforehand, for calls that name none. The app is looked up at the
    first call, which raises UnknownAppError or AmbiguousAppError when that fails.
    """

    def __init__(
        self,
        app: str | Auth | Mapping[str, Any] | None = None,
        *,
        home: str | Path | None = None,
        is_development: bool = False,
        settings: "Settings | None" = None,
        url: str | None = None,
        api_key: str | None = None,
    ) -> None:
        self._reference = app if isinstance(app, str) else None
        self.auth = _read_auth(app)
        self.auth.is_development = self.auth.is_development or is_development
        self.recipients: RecipientsLike | None = None
        self._remote = _reach(url, api_key, self._reference, is_alone=app is None)
        self._settings = None if self._remote else settings or _load_settings(home)
        self._found: tuple[App, AuthKey | None] | None = None

    async def send(
        self,
        notification: NotificationLike,
        recipients: RecipientsLike | None = None,
        **how: Unpack[How],
    ) -> "Response":
        """Send a notification to people, device tokens or simulators, and say what became of it.

        A mapping with ``template`` and ``variables`` is sent as that template of the app makes it;
        what else is in it wins over the template's own.

        Stored before anything is sent; returns when every delivery has ended, or waits for its time
        or another attempt, which follows by itself. :class:`How` lists the options. Raises
        NotificationError or RecipientsError when what was given cannot be sent, IdempotencyError
        for a key used before, and MissingCredentialError, TwinError or StorageError when nothing
        could be sent from here; nothing is stored then. What one device answers is never raised.
        """
        return await self._send(notification, Recipients.read(self._named(recipients)), how)

    async def send_all(self, notification: NotificationLike, **how: Unpack[How]) -> "Response":
        """Send a notification to every active session of the app. Raises as :meth:`send` does."""
        return await self._send(notification, EVERYBODY, how)

    async def send_each(
        self,
        notification: NotificationLike | str,
        variables_of: Mapping[str, Mapping[str, Any]],
        **how: Unpack[How],
    ) -> "dict[str, Response]":
        """Send a template to many, each with variables of their own, and return each one's answer.

        ``notification`` is the template's name, or a mapping as :meth:`send` takes it, whose
        ``variables`` are common to all. ``variables_of`` names each recipient with their variables.
        What is wrong with one (a variable, the address, the size) is in the errors of that answer
        and no matter to the others. An ``idempotency_key`` gets the recipient's name behind it.
        """
        if self._remote is not None:
            return await self._send_each_remotely(self._remote, notification, variables_of, how)
        from ._send_each import read_template, send_each  # noqa: PLC0415 - heavy
        from .delivery.engine import Options  # noqa: PLC0415

        use, idempotency_key = read_template(notification), how.get("idempotency_key")

        def options_of(name: str) -> Options:
            own: How = {**how, "idempotency_key": idempotency_key and f"{idempotency_key}:{name}"}
            return Options.read(is_development=self.auth.is_development, **own)

        async with self._ready() as (system, app, key):
            return await send_each(system, app, use, variables_of, options_of=options_of, key=key)

    async def open(
        self,
        target: TargetLike,
        notification: NotificationLike,
        recipients: RecipientsLike | None = None,
        **how: Unpack[How],
    ) -> "Response":
        """Send a notification that opens a data class or a record in the app.

        ``target`` is the name of a data class, a :class:`Record`, a pair (data class, primary key)
        or a mapping with ``dataClass`` and ``entity``. Opening a record asks the app to synchronise
        its data first, unless the notification's ``user_info`` decides ``dataSynchro`` itself.
        """
        if self._remote is not None and read_use(notification) is not None:
            return await self.send(_with_target(notification, target), recipients, **how)
        content = (await self._content(notification)).with_target(target)
        return await self.send(content, recipients, **how)

    async def cancel(self, notification_id: str) -> int:
        """Take back what is not sent yet, and return how many deliveries that caught.

        Raises RegistryError when there is no such notification of this app.
        """
        if self._remote is not None:
            return await self._remote.cancel(notification_id)
        async with self._ready() as (system, app, _):
            return await system.engine.cancel(app, notification_id)

    async def replace(self, notification_id: str, notification: NotificationLike) -> "Response":
        """Send new content, under the same collapse id, to those who got a notification.

        What is not sent yet of the former one is cancelled. Raises NotificationError when the
        former one had no collapse id, and RegistryError when there is no such notification.
        """
        if self._remote is not None:
            from handbell.remote.requests import written  # noqa: PLC0415 - heavy

            return await self._remote.replace(notification_id, written(notification))
        async with self._ready() as (system, app, key):
            content = await self._content(notification)
            return await system.engine.replace(app, notification_id, content, key=key)

    async def add_hook(self, hook: "Hook") -> None:
        """Call ``hook`` with every event from now on, for all senders of this loop and home.

        Events are the frozen values of :mod:`handbell.delivery.events`. The hook is called in the
        event loop and should be quick; one that raises is logged and disturbs nobody. Raises
        SettingsError where a send server does the sending: it has webhooks.
        """
        if self._remote is not None:
            raise SettingsError(
                "Events happen on the send server, and no hook of this process can hear them",
                fix="Add a webhook there: handbell webhook add",
            )
        async with self._ready() as (system, _, _):
            system.hooks.add(hook)

    async def close(self) -> None:
        """Finish what is in flight and close the connections of this event loop.

        Senders that share them keep them open; so does a call that still runs, until it ends.
        Whoever sends afterwards opens them again.
        """
        await self._close()

    async def _close(self, *, within: float | None = None) -> None:
        if self._remote is not None:
            await self.close_remote()
            return
        from .shared_systems import leave  # noqa: PLC0415 - heavy

        await leave(self, within=within)

    async def close_remote(self) -> None:
        """Close the connections to a send server, where there is one."""
        if self._remote is not None:
            await self._remote.close()

    async def prepare(self) -> None:
        """Look the app and its key up now instead of at the first call."""
        if self._remote is None:
            async with self._ready():
                return
        app = await self._remote.find()
        self.auth.bundle_id, self.auth.team_id = app["bundle_id"], app["team_id"]

    async def __aenter__(self) -> Self:
        await self.prepare()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Whoever is interrupted, or fails, does not want to wait for what is on its way.
        await self._close(within=None if kind is None else EXIT_SECONDS)

    def _named(self, recipients: RecipientsLike | None) -> RecipientsLike:
        named = self.recipients if recipients is None else recipients
        if named is None:
            raise RecipientsError(
                "No recipients were named",
                fix="Pass them to send(), set .recipients, or use send_all()",
            )
        return named

    async def _send(
        self, notification: NotificationLike, recipients: Recipients, how: How
    ) -> "Response":
        if self._remote is not None:
            from handbell.remote.requests import written, written_how  # noqa: PLC0415 - heavy

            entry = {
                **written_how(how, is_development=self.auth.is_development),
                "notification": written(notification),
                "recipients": recipients.to_dict(),
            }
            return await self._remote.send(entry)
        content = await self._content(notification)
        from .delivery.engine import Options  # noqa: PLC0415 - heavy

        options = Options.read(is_development=self.auth.is_development, **how)
        async with self._ready() as (system, app, key):
            return await system.engine.send(app, content, recipients, options, key=key)

    async def _send_each_remotely(
        self,
        remote: "RemoteApp",
        notification: NotificationLike | str,
        variables_of: Mapping[str, Mapping[str, Any]],
        how: How,
    ) -> "dict[str, Response]":
        from handbell.remote.requests import written_each, written_how  # noqa: PLC0415 - heavy

        from ._send_each import read_template  # noqa: PLC0415 - heavy

        use = read_template(notification)
        common = written_how(how, is_development=self.auth.is_development)
        return await remote.send_each(use.template, written_each(use, variables_of, common))

    async def _content(self, notification: NotificationLike) -> Notification:
        if read_use(notification) is None:
            return Notification.read(notification)
        async with self._ready() as (system, app, _):
            return await in_thread(system.read_notification, app, notification)

    @asynccontextmanager
    async def _ready(self) -> "AsyncIterator[tuple[System, App, AuthKey | None]]":
        """Give the system to send with while the block runs, the app, and a key of its own."""
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
        if self.auth.auth_key is not None:
            return _read_explicit(system, self.auth)
        app = system.apps.find(self._reference or system.settings.app)
        self.auth.bundle_id, self.auth.team_id = app.bundle_id, app.team_id
        return app, None


class PushNotification:
    """Sends to an app's users. The same as :class:`AsyncPushNotification`, for ordinary callers.

    Raises UnknownAppError or AmbiguousAppError at once when the app cannot be told. Many objects in
    one process share their connections, which are closed when the process ends: what is not sent
    by then is handed back, and goes out with the next process that sends.
    """

    def __init__(
        self,
        app: str | Auth | Mapping[str, Any] | None = None,
        *,
        home: str | Path | None = None,
        is_development: bool = False,
        settings: "Settings | None" = None,
        url: str | None = None,
        api_key: str | None = None,
    ) -> None:
        self._push = AsyncPushNotification(
            app,
            home=home,
            is_development=is_development,
            settings=settings,
            url=url,
            api_key=api_key,
        )
        portal().run(_prepared(self._push))

    @property
    def auth(self) -> Auth:
        """How the app proves itself; ``auth.is_development`` may be set."""
        return self._push.auth

    @property
    def recipients(self) -> RecipientsLike | None:
        """Who is meant by calls that name nobody."""
        return self._push.recipients

    @recipients.setter
    def recipients(self, value: RecipientsLike | None) -> None:
        self._push.recipients = value

    def send(
        self,
        notification: NotificationLike,
        recipients: RecipientsLike | None = None,
        **how: Unpack[How],
    ) -> "Response":
        """Send a notification; see :meth:`AsyncPushNotification.send`."""
        return portal().run(self._push.send(notification, recipients, **how))

    def send_all(self, notification: NotificationLike, **how: Unpack[How]) -> "Response":
        """Send to every active session; see :meth:`AsyncPushNotification.send_all`."""
        return portal().run(self._push.send_all(notification, **how))

    def send_each(
        self,
        notification: NotificationLike | str,
        variables_of: Mapping[str, Mapping[str, Any]],
        **how: Unpack[How],
    ) -> "dict[str, Response]":
        """Send a template, each with own variables; see :meth:`AsyncPushNotification.send_each`."""
        return portal().run(self._push.send_each(notification, variables_of, **how))

    def open(
        self,
        target: TargetLike,
        notification: NotificationLike,
        recipients: RecipientsLike | None = None,
        **how: Unpack[How],
    ) -> "Response":
        """Open a data class or a record in the app; see :meth:`AsyncPushNotification.open`."""
        return portal().run(self._push.open(target, notification, recipients, **how))

    def cancel(self, notification_id: str) -> int:
        """Take back what is not sent yet; see :meth:`AsyncPushNotification.cancel`."""
        return portal().run(self._push.cancel(notification_id))

    def replace(self, notification_id: str, notification: NotificationLike) -> "Response":
        """Send new content to those who got it; see :meth:`AsyncPushNotification.replace`."""
        return portal().run(self._push.replace(notification_id, notification))

    def add_hook(self, hook: "Hook") -> None:
        """Hear of every event, in another thread; see :meth:`AsyncPushNotification.add_hook`."""
        portal().run(self._push.add_hook(hook))

    def close(self) -> None:
        """Finish what is in flight and close the connections; they open again when needed.

        Senders of this process that share them keep them open.
        """
        portal().run(self._push.close())


class Sessions:
    """Who can be reached in an app, and on what. The app is named as for :class:`PushNotification`.

    Raises UnknownAppError or AmbiguousAppError when the app cannot be told.
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
        self._remote = _reach(url, api_key, app, is_alone=app is None)
        if self._remote is not None:
            portal().run(_asked(self._remote, self._remote.find()))
            return
        from .system import System  # noqa: PLC0415 - heavy

        self._system = System(settings or _load_settings(home))
        self._registry = self._system.registry
        self._app = self._system.apps.find(app or self._system.settings.app)

    def all_device_tokens(self) -> list[str]:
        """Return the device tokens of all active sessions, each once."""
        if self._remote is not None:
            active = portal().run(_asked(self._remote, self._remote.sessions(status="active")))
            return sorted({session.token for session in active})
        return self._registry.device_tokens(self._app)

    def all_mail_addresses(self) -> list[str]:
        """Return the mail addresses of all users, sorted."""
        if self._remote is not None:
            return portal().run(_asked(self._remote, self._remote.mail_addresses()))
        return self._registry.mail_addresses(self._app)

    def sessions_of(self, mail: str) -> "list[Session]":
        """Return a user's sessions, whatever their status; empty for a mail that is not known."""
        if self._remote is not None:
            return portal().run(_asked(self._remote, self._remote.sessions(mail=mail)))
        return self._registry.sessions_of(self._app, mail)

    def why(self, mail: str) -> "Story":
        """Return why a person saw the last notifications, or did not.

        The story holds the facts and the sentences; ``str`` of it is the whole text, ``is_sent``
        whether the last notification was accepted by the push service. A mail that nobody has is a
        story, too.
        """
        if self._remote is not None:
            return portal().run(_asked(self._remote, self._remote.why(mail)))
        return self._system.why(self._app, mail)


async def _prepared(push: AsyncPushNotification) -> None:
    try:
        await push.prepare()
    except BaseException:
        await push.close_remote()
        raise


async def _asked(remote: "RemoteApp", question: Coroutine[Any, Any, T]) -> T:
    """Return the answer to a question that is asked seldom, and keep no connection for it."""
    try:
        return await question
    finally:
        await remote.close()


def _reach(
    url: str | None, api_key: str | None, reference: str | None, *, is_alone: bool = False
) -> "RemoteApp | None":
    """Return the way to an app on a send server, or None where no address is given."""
    if url is None and api_key is None:
        return None
    if url is None:
        raise SettingsError(
            "An API key was given without a server", fix="Give the server's address as url"
        )
    if reference is None and not is_alone:
        raise SettingsError(
            "An auth object was given beside a send server, which has keys of its own",
            fix="Name the app by its id, or leave it out",
        )
    from handbell.remote.client import RemoteApp  # noqa: PLC0415 - heavy

    return RemoteApp(url, api_key, reference)


def _with_target(notification: NotificationLike, target: TargetLike) -> Mapping[str, Any]:
    """Return the use of a template with what opens a target, which wins over the template's own."""
    written = dict(notification) if isinstance(notification, Mapping) else {}
    info = written.pop("user_info", written.pop("userInfo", None))
    opened = Notification.read({"silent": True, "user_info": info}).with_target(target)
    return {**written, "user_info": dict(opened.user_info)}


def _read_auth(app: str | Auth | Mapping[str, Any] | None) -> Auth:
    if isinstance(app, Auth):
        return app
    return Auth.read(app) if isinstance(app, Mapping) else Auth()


def _load_settings(home: str | Path | None) -> "Settings":
    from .settings import Settings  # noqa: PLC0415 - heavy

    return Settings.load() if home is None else Settings.load(home=Path(home))


def _read_explicit(system: "System", auth: Auth) -> "tuple[App, AuthKey]":
    from .apps.app import App  # noqa: PLC0415 - heavy
    from .apps.credentials import read_auth_key  # noqa: PLC0415 - heavy

    if auth.auth_key is None or auth.team_id is None or auth.bundle_id is None:
        raise CredentialError(
            "The auth object lacks its key, team id or bundle id",
            fix="Set auth_key, team_id and bundle_id",
        )
    app = App(team_id=auth.team_id, bundle_id=auth.bundle_id)
    key = read_auth_key(auth.auth_key, team_id=auth.team_id, key_id=auth.key_id)
    auth.key_id = key.key_id
    # Sessions of an app that the registry knows are found even so.
    return next((known for known in system.apps.list() if known.id == app.id), app), key
