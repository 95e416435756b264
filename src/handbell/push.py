"""The front door: write a title and a body, name a person, send.

Nothing heavy is imported until something is sent.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from ._clients import AppClient, BlockingClient, blocking
from ._thread_pool import in_thread
from ._timeout import read_timeout
from .auth import Auth, find_unregistered, own_auth
from .creation.notification import Notification
from .creation.recipients import EVERYBODY, Recipients
from .creation.tap_target import TapTarget
from .creation.template import read_template_use
from .errors import RecipientsError, SettingsError
from .sessions import AsyncSessions, Sessions

if TYPE_CHECKING:
    from .apps.app import App
    from .delivery.events import Hook
    from .delivery.response import Response
    from .delivery.urgency import Urgency
    from .services.apns.credential import AuthKey
    from .settings import Settings
    from .system import System

__all__ = [
    "AsyncPushNotification",
    "AsyncSessions",
    "Auth",
    "NotificationLike",
    "PushNotification",
    "RecipientsLike",
    "SendOptions",
    "Sessions",
    "TargetLike",
]

NotificationLike = Notification | Mapping[str, Any]
RecipientsLike = Recipients | str | Sequence[str | Mapping[str, Any]] | Mapping[str, Any]
TargetLike = TapTarget
SendAtLike = str | float | datetime | None


class SendOptions(TypedDict):
    """How to send, beside what and to whom; None is what was left out."""

    send_at: SendAtLike
    urgency: "Urgency | None"
    idempotency_key: str | None


class AsyncPushNotification(AppClient):
    """Sends to an app's users, for asynchronous callers.

    ``app`` is an app id such as ``TEAM123456.com.sample.myapp``, a bundle id or a name; it may be
    left out where there is one app. An :class:`Auth` (or a mapping of its members) needs no entry
    in the registry; a copy of it is the sender's own ``auth``, of which ``is_development`` may be
    set at any time. ``home`` is the folder of the database and the secret key, by default the one
    that the ``handbell`` command uses.

    With a ``url`` everything is asked of the send server there, which an ``api_key`` with the scope
    ``send`` opens.

    ``recipients`` may be set beforehand, for calls that name none. The app is looked up at the
    first call, which raises UnknownAppError or AmbiguousAppError when that fails, or by
    ``async with``.

    What the calls that send have in common: ``send_at`` is an instant (UNIX seconds, an aware
    datetime, ISO 8601 with an offset) or a local time in each recipient's zone (without one).
    ``urgency`` says who goes first. An ``idempotency_key`` makes a repeated call return the first
    answer. ``timeout`` is for how many seconds they wait once the send is accepted. When it is
    over, nothing is lost or taken back: sending goes on, and the answer holds what is known so far,
    with ``is_running`` and a warning that say so. ``timeout=0`` returns as soon as all is stored.
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
        self.auth = own_auth(app, is_development=is_development)
        self.recipients: RecipientsLike | None = None
        super().__init__(
            app if isinstance(app, str) else None,
            home=home,
            settings=settings,
            url=url,
            api_key=api_key,
            has_auth=not (app is None or isinstance(app, str)),
        )

    async def send(
        self,
        notification: NotificationLike,
        recipients: RecipientsLike | None = None,
        *,
        send_at: SendAtLike = None,
        urgency: "Urgency | None" = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> "Response":
        """Send a notification to people, device tokens or simulators, and say what became of it.

        A mapping with ``template`` and ``variables`` is sent as that template of the app makes it;
        what else is in it wins over the template's own.

        Stored before anything is sent; returns when every delivery has ended, or waits for its time
        or another attempt, which follows by itself. The class lists the options. Raises
        NotificationError or RecipientsError when what was given cannot be sent, IdempotencyError
        for a key used before, and MissingCredentialError, TwinError or StorageError when nothing
        could be sent from here; nothing is stored then. What one device answers is never raised:
        :meth:`Response.raise_for_errors` does.
        """
        named = Recipients.read(self._named(recipients))
        send_options = SendOptions(
            send_at=send_at, urgency=urgency, idempotency_key=idempotency_key
        )
        return await self._send(notification, named, send_options, timeout)

    async def enqueue(
        self,
        notification: NotificationLike,
        recipients: RecipientsLike | None = None,
        *,
        send_at: SendAtLike = None,
        urgency: "Urgency | None" = None,
        idempotency_key: str | None = None,
    ) -> "Response":
        """Accept a notification and return at once, as :meth:`send` with ``timeout=0`` does.

        It is stored then and will be sent: by this process while it lives, by a worker, or by the
        next process that sends. The answer has its ``notification_id``, the warnings, and the
        deliveries by state so far; :meth:`wait` tells the outcome later. Raises as :meth:`send`.
        To everybody: ``enqueue(notification, {"everybody": True})``.
        """
        return await self.send(
            notification,
            recipients,
            send_at=send_at,
            urgency=urgency,
            idempotency_key=idempotency_key,
            timeout=0,
        )

    async def send_all(
        self,
        notification: NotificationLike,
        *,
        send_at: SendAtLike = None,
        urgency: "Urgency | None" = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> "Response":
        """Send a notification to every active session of the app. Raises as :meth:`send` does."""
        send_options = SendOptions(
            send_at=send_at, urgency=urgency, idempotency_key=idempotency_key
        )
        return await self._send(notification, EVERYBODY, send_options, timeout)

    async def send_each(
        self,
        notification: NotificationLike | str,
        variables_of: Mapping[str, Mapping[str, Any]],
        *,
        send_at: SendAtLike = None,
        urgency: "Urgency | None" = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> "dict[str, Response]":
        """Send a template to many, each with variables of their own, and return each one's answer.

        ``notification`` is the template's name, or a mapping as :meth:`send` takes it, whose
        ``variables`` are common to all. ``variables_of`` names each recipient with their variables.
        What is wrong with one (a variable, the address, the size) is in the errors of that answer
        and no matter to the others. An ``idempotency_key`` gets the recipient's name behind it. The
        ``timeout`` is for all of them together.
        """
        seconds = read_timeout(timeout)
        send_options = SendOptions(
            send_at=send_at, urgency=urgency, idempotency_key=idempotency_key
        )
        from ._send_each import read_template, send_each  # noqa: PLC0415 - heavy

        use = read_template(notification)
        if self._remote is not None:
            from handbell.remote.requests import write_each, write_options  # noqa: PLC0415 - heavy

            common = write_options(send_options, is_development=self.auth.is_development)
            entries = write_each(use, variables_of, common)
            return await self._remote.send_each(use.template, entries, timeout=seconds)
        from .delivery.engine import Options  # noqa: PLC0415 - heavy

        def options_of(name: str) -> Options:
            key = idempotency_key and f"{idempotency_key}:{name}"
            own: SendOptions = {**send_options, "idempotency_key": key}
            return Options.read(is_development=self.auth.is_development, **own)

        async with self._ready() as (system, app, key):
            return await send_each(
                system, app, use, variables_of, options_of=options_of, key=key, timeout=seconds
            )

    async def open(
        self,
        target: TargetLike,
        notification: NotificationLike,
        recipients: RecipientsLike | None = None,
        *,
        send_at: SendAtLike = None,
        urgency: "Urgency | None" = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> "Response":
        """Send a notification that opens a data class or a record in the app.

        ``target`` is the name of a data class, a :class:`Record`, a pair (data class, primary key)
        or a mapping with ``dataClass`` and ``entity``. Opening a record asks the app to synchronise
        its data first, unless the notification's ``user_info`` decides ``dataSynchro`` itself.
        Raises as :meth:`send` does.
        """
        content: NotificationLike
        if self._remote is not None and read_template_use(notification) is not None:
            content = _with_target(notification, target)
        else:
            content = (await self._content(notification)).with_target(target)
        named = Recipients.read(self._named(recipients))
        send_options = SendOptions(
            send_at=send_at, urgency=urgency, idempotency_key=idempotency_key
        )
        return await self._send(content, named, send_options, timeout)

    async def wait(
        self,
        notification_id: str,
        *,
        timeout: float | None = None,
    ) -> "Response":
        """Return what became of a notification once every delivery has ended, or waits.

        With ``timeout=0`` it says how things stand now. Warnings that were given when it was
        accepted (about people without a device) are not repeated. Raises UnknownNotificationError
        when there is no such notification of this app.
        """
        seconds = read_timeout(timeout)
        if self._remote is not None:
            return await self._remote.wait(notification_id, timeout=seconds)
        from ._outcome import outcome  # noqa: PLC0415 - heavy

        async with self._ready() as (system, app, _):
            row = (await in_thread(system.ledger.find, app, notification_id)).id
            await system.engine.start()
            return await outcome(system, row, notification_id, timeout=seconds)

    async def cancel(self, notification_id: str) -> int:
        """Cancel what is not sent yet, and return the number of cancelled deliveries.

        Raises UnknownNotificationError when there is no such notification of this app.
        """
        if self._remote is not None:
            return await self._remote.cancel(notification_id)
        async with self._ready() as (system, app, _):
            return await system.engine.cancel(app, notification_id)

    async def replace(
        self,
        notification_id: str,
        notification: NotificationLike,
        *,
        timeout: float | None = None,
    ) -> "Response":
        """Send new content, under the same collapse id, to those who got a notification.

        What is not sent yet of the former one is cancelled. Raises NotificationError when the
        former one had no collapse id, and UnknownNotificationError when there is no such one.
        """
        seconds = read_timeout(timeout)
        if self._remote is not None:
            from handbell.remote.requests import write_notification  # noqa: PLC0415 - heavy

            content = write_notification(notification)
            return await self._remote.replace(notification_id, content, timeout=seconds)
        from ._outcome import outcome  # noqa: PLC0415 - heavy

        async with self._ready() as (system, app, key):
            said = await self._content(notification)
            await system.engine.start()
            new = await system.engine.accept_replacement(app, notification_id, said, key=key)
            return await outcome(system, new.row, new.id, new.warnings, timeout=seconds)

    async def add_hook(self, hook: "Hook") -> None:
        """Call ``hook`` with every event from now on, for all senders of this loop and home.

        Events are frozen values such as :class:`~handbell.DeliveryFailed`. The hook is called in
        the event loop (of synchronous senders, one in another thread) and should be quick; one that
        raises is logged and disturbs nobody. Raises SettingsError where a send server does the
        sending: it has webhooks.
        """
        if self._remote is not None:
            raise SettingsError(
                "Events happen on the send server, and no hook of this process can hear them",
                fix="Add a webhook there: handbell webhook add",
            )
        async with self._ready() as (system, _, _):
            system.hooks.add(hook)

    async def close(self) -> None:
        """Finish what is in flight and close the connections; they open again when needed.

        Senders that share them keep them open; so does a call that still runs, until it ends.
        """
        await self._leave()

    async def prepare(self) -> None:
        """Look the app and its key up now instead of at the first call."""
        await super().prepare()
        if self._remote is not None:
            app = await self._remote.find()
            self.auth.bundle_id, self.auth.team_id = app["bundle_id"], app["team_id"]

    def _named(self, recipients: RecipientsLike | None) -> RecipientsLike:
        named = self.recipients if recipients is None else recipients
        if named is None:
            raise RecipientsError(
                "No recipients were named",
                fix="Pass them to send(), set .recipients, or use send_all()",
            )
        return named

    async def _send(
        self,
        notification: NotificationLike,
        recipients: Recipients,
        send_options: SendOptions,
        timeout: object,
    ) -> "Response":
        seconds = read_timeout(timeout)
        if self._remote is not None:
            from handbell.remote.requests import write_notification, write_options  # noqa: PLC0415 - heavy

            entry = {
                **write_options(send_options, is_development=self.auth.is_development),
                "notification": write_notification(notification),
                "recipients": recipients.to_dict(),
            }
            return await self._remote.send(entry, timeout=seconds)
        content = await self._content(notification)
        from ._outcome import outcome  # noqa: PLC0415 - heavy
        from .delivery.engine import Options  # noqa: PLC0415

        options = Options.read(is_development=self.auth.is_development, **send_options)
        async with self._ready() as (system, app, key):
            await system.engine.start()
            stored, warnings = await system.engine.accept(
                app, content, recipients, options, key=key
            )
            return await outcome(system, stored.row, stored.id, warnings, timeout=seconds)

    async def _content(self, notification: NotificationLike) -> Notification:
        if read_template_use(notification) is None:
            return Notification.read(notification)
        async with self._ready() as (system, app, _):
            return await in_thread(system.templates.read_notification, app, notification)

    def _look_up(self, system: "System") -> "tuple[App, AuthKey | None]":
        if self.auth.auth_key is not None:
            return find_unregistered(system, self.auth)
        app, key = super()._look_up(system)
        self.auth.bundle_id, self.auth.team_id = app.bundle_id, app.team_id
        return app, key


class PushNotification(BlockingClient[AsyncPushNotification]):
    """Sends to an app's users. The same as :class:`AsyncPushNotification`, for ordinary callers.

    Raises UnknownAppError or AmbiguousAppError at once when the app cannot be told. Many objects in
    one process share their connections, which are closed when the process ends, or when the last
    ``with`` or :meth:`close` says so: what is not sent by then is handed back, and goes out with
    the next process that sends.
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
        super().__init__(
            AsyncPushNotification(
                app,
                home=home,
                is_development=is_development,
                settings=settings,
                url=url,
                api_key=api_key,
            )
        )

    @property
    def auth(self) -> Auth:
        """How the app proves itself: the sender's own; ``auth.is_development`` may be set."""
        return self._client.auth

    @property
    def recipients(self) -> RecipientsLike | None:
        """Who is meant by calls that name nobody."""
        return self._client.recipients

    @recipients.setter
    def recipients(self, value: RecipientsLike | None) -> None:
        self._client.recipients = value

    send = blocking(AsyncPushNotification.send)
    enqueue = blocking(AsyncPushNotification.enqueue)
    send_all = blocking(AsyncPushNotification.send_all)
    send_each = blocking(AsyncPushNotification.send_each)
    open = blocking(AsyncPushNotification.open)
    wait = blocking(AsyncPushNotification.wait)
    cancel = blocking(AsyncPushNotification.cancel)
    replace = blocking(AsyncPushNotification.replace)
    add_hook = blocking(AsyncPushNotification.add_hook)
    close = blocking(AsyncPushNotification.close)


def _with_target(notification: NotificationLike, target: TargetLike) -> Mapping[str, Any]:
    """Return the use of a template with what opens a target, which wins over the template's own."""
    content = dict(notification) if isinstance(notification, Mapping) else {}
    info = content.pop("user_info", content.pop("userInfo", None))
    opened = Notification.read({"silent": True, "user_info": info}).with_target(target)
    return {**content, "user_info": dict(opened.user_info)}
