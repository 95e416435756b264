"""The phones of a twin, and what people do with them."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from handbell.errors import HandbellError, TwinError

from .apns import rules
from .apns.known import ApnsKnown
from .apns.request_handler import RequestHandler
from .device_store import DeviceStore
from .faults import Fault, FaultPlan
from .fcm.phone import new_token, with_badge
from .fcm.request_handler import FCM_SIDE, FcmHandler
from .history import History, IdEvent
from .hooks import TwinHooks, call
from .phone import Card, Channel, Phone
from .reception import Reception
from .sides import check_side
from .webpush.handler import REAL_BROWSER, EndpointHandler
from .webpush.handler import SIDE as WEBPUSH_SIDE

DEFAULT_APP: Final = "HANDBELL00.com.example.app"
"""The default app of a phone while the twin knows no app."""
DEFAULT_PROJECT: Final = "handbell-twin"
"""The Google project of an Android phone while the twin knows no service account."""
PLATFORMS: Final = ("ios", "android", "web")

_MAX_NAME: Final = 200
_TOKEN_DIGITS: Final = 64


class Phones:
    """The phones, the apps on them, and the handlers of the services that reach them."""

    def __init__(self, *, hooks: TwinHooks, now: Callable[[], float]) -> None:
        self._hooks = hooks
        self._now = now
        self._apps: dict[str, str] = {}
        self._device_store = DeviceStore()
        self._history = History()
        self.faults = FaultPlan(self._on_fault)
        self._reception = Reception(
            self._device_store, self._history, on_displayed=hooks.on_displayed, now=now
        )
        self._apns = ApnsKnown(self._device_store, self._apps, find_key=hooks.find_key, now=now)
        self._apns_handler = RequestHandler(self._apns, self._reception, faults=self.faults)
        self._fcm = FcmHandler(
            self._reception, faults=self.faults, find_account=hooks.find_service_account
        )
        self._webpush = EndpointHandler(
            self._reception, faults=self.faults, origin=self._webpush_origin
        )

    def _webpush_origin(self) -> str:
        raise NotImplementedError

    def _on_fault(self, name: str, fault: Fault) -> None:
        self._history.publish(name, fault if name == "fault" else IdEvent(fault.id))

    @property
    def apps(self) -> Mapping[str, str]:
        """Return the names of the known apps, by app id."""
        return MappingProxyType(self._apps)

    def add_app(self, app_id: str, name: str) -> None:
        """Add an app, ``TEAM123456.com.sample.myapp``, so that phones can have it.

        An app without Apple's side has an id of another form, such as ``shop``.
        """
        if not app_id or app_id.startswith(".") or app_id.endswith("."):
            raise TwinError(
                f"{app_id!r} is not an app id", fix="Write it as TEAM123456.com.sample.myapp"
            )
        self._apps[app_id] = name

    @property
    def phones(self) -> Mapping[str, Phone]:
        """Return the phones by id, in the order they were created."""
        return self._device_store.phones

    def phone(self, phone_id: str) -> Phone:
        """Return the phone; raises TwinError for an unknown id."""
        return self._device_store.get(phone_id)

    def add_phone(
        self,
        name: str | None = None,
        *,
        mail: str | None = None,
        app: str | None = None,
        side: str = "production",
        is_on: bool = True,
        token: str | None = None,
        token_digits: int = _TOKEN_DIGITS,
        kind: str = "alert",
        platform: str = "ios",
        project: str | None = None,
        package: str | None = None,
        channels: Sequence[str] = (),
    ) -> Phone:
        """Create a phone with an app and return it.

        Without ``app`` it gets the first known one. ``token`` is a random one of ``token_digits``
        hex digits unless given; this may be the token of a removed app. ``kind`` is the push type
        of the token if it is not for alerts (``voip``, say). Raises TwinError for a side, app,
        kind or token that is invalid, and the HandbellError of the ``on_phone`` hook.

        With the ``platform`` ``android`` it is an Android phone, with a registration token of a
        Google ``project``: that of the app, unless given. Its app has the notification
        ``channels``, and no others if any is given; otherwise it creates each that a message
        names. ``web`` is a browser; see :meth:`add_browser`.
        """
        if platform == "web":
            return self.add_browser(name, mail=mail, app=app, is_on=is_on)
        if platform == "android":
            android = self._android(name, self._known_app(app), project, package)
            return self._add(
                replace(
                    android,
                    mail=_short(mail),
                    is_on=is_on,
                    token=self._device_store.check_free(token or new_token()),
                    channels=tuple(Channel(id=one) for one in channels),
                    has_own_channels=bool(channels),
                )
            )
        if platform not in PLATFORMS:
            raise TwinError(
                f"There is no virtual phone of the platform {platform!r}",
                fix=f"Use one of {', '.join(PLATFORMS)}",
            )
        check_side(side)
        if kind not in rules.TOKEN_KINDS:
            raise TwinError(
                f"There is no token of the kind {kind!r}",
                fix=f"Use one of {', '.join(rules.TOKEN_KINDS)}",
            )
        if app is not None and "." not in app:
            raise TwinError(
                f"{app!r} is not an app that an iPhone can have",
                fix="Write it as TEAM123456.com.sample.myapp",
            )
        app = self._known_app(app)
        phone = Phone(
            id=secrets.token_hex(4),
            name=_short(name) or f"Phone {len(self.phones) + 1}",
            mail=_short(mail),
            app=app,
            app_name=self._apps[app],
            side=side,
            token=self._device_store.check_free(
                token.lower() if token else secrets.token_hex(token_digits // 2)
            ),
            kind=kind,
            is_on=is_on,
        )
        return self._add(phone)

    def _android(
        self, name: str | None, app: str, project: str | None, package: str | None
    ) -> Phone:
        known = call(self._hooks.android_of_app, app)
        its_project, its_package = known if isinstance(known, tuple) else (None, None)
        first = next(iter(self._fcm.accounts.projects), DEFAULT_PROJECT)
        return Phone(
            id=secrets.token_hex(4),
            name=_short(name) or f"Phone {len(self.phones) + 1}",
            app=app,
            app_name=self._apps[app],
            service="fcm",
            side=FCM_SIDE,
            token="",
            project=project or its_project or first,
            package=package or its_package,
        )

    def add_browser(
        self,
        name: str | None = None,
        *,
        mail: str | None = None,
        app: str | None = None,
        is_on: bool = True,
    ) -> Phone:
        """Create a browser that has subscribed on a page of the app, and return it.

        It is a phone whose token is the endpoint; it decrypts what it gets with keys of its own.
        The hook ``web_push_key`` says whose messages it takes; anybody's without one. Raises the
        HandbellError of the ``on_phone`` hook.
        """
        app = self._known_app(app)
        phone = Phone(
            id=secrets.token_hex(4),
            name=_short(name) or f"Browser {len(self.phones) + 1}",
            mail=_short(mail),
            app=app,
            app_name=self._apps[app],
            service="webpush",
            side=WEBPUSH_SIDE,
            token="",
            kind="subscription",
            is_on=is_on,
        )
        return self._add(self._subscribe(phone))

    def endpoint_of(self, former: str) -> str | None:
        """Return the endpoint of a former twin's subscription as it is now, or None."""
        found = self._webpush.restored(former)
        return None if found is None else found.endpoint

    def restore_browser(
        self,
        endpoint: str,
        details: str,
        *,
        name: str | None = None,
        mail: str | None = None,
        app: str | None = None,
    ) -> Phone | None:
        """Return the browser of a subscription that outlived a former twin, or None.

        Its endpoint is the former one, unless the twin's port is another one. A real browser is
        there again where it comes back by itself. Raises the HandbellError of the ``on_phone``
        hook.
        """
        found = self._webpush.restored(endpoint)
        if found is None:
            return None
        if found.keys is None:
            return self.adopt_browser(endpoint, details, name=name, mail=mail, app=app)
        app = self._known_app(app)
        return self._add(
            Phone(
                id=found.browser,
                name=_short(name) or f"Browser {len(self.phones) + 1}",
                mail=_short(mail),
                app=app,
                app_name=self._apps[app],
                service="webpush",
                side=WEBPUSH_SIDE,
                token=found.endpoint,
                details=details,
                kind="subscription",
            )
        )

    def adopt_browser(
        self,
        endpoint: str,
        details: str,
        *,
        name: str | None = None,
        mail: str | None = None,
        app: str | None = None,
    ) -> Phone:
        """Make a phone of a real browser that has subscribed here, and return it.

        ``details`` has its public key and secret, as JSON; what it shows is told by
        :meth:`note_shown`. Raises TwinError for a subscription of another push service, and the
        HandbellError of the ``on_phone`` hook.
        """
        self._webpush.check_own(endpoint)
        former = self._device_store.id_of_token(endpoint)
        if former is not None and former in self.phones:
            # It is the same subscription, of another user perhaps.
            self._device_store.remove(former, int(self._now() * 1000))
            self._history.publish("phone-removed", IdEvent(former))
        app = self._known_app(app)
        return self._add(
            Phone(
                id=secrets.token_hex(4),
                name=_short(name) or "This browser",
                mail=_short(mail),
                app=app,
                app_name=self._apps[app],
                service="webpush",
                side=WEBPUSH_SIDE,
                token=endpoint,
                details=details,
                kind=REAL_BROWSER,
            )
        )

    def note_shown(self, endpoint: str, message: bytes) -> None:
        """Show on the page what a real browser has decrypted and shown."""
        phone_id = self._device_store.id_of_token(endpoint)
        if phone_id in self.phones:
            self._webpush.note_shown(self.phones[phone_id or ""], message)

    def web_push_key(self, app: str | None = None) -> str | None:
        """Return the public key that an app's pages subscribe with; None where there is none."""
        key = call(self._hooks.web_push_key, self._known_app(app))
        return key if isinstance(key, str) else None

    def _subscribe(self, phone: Phone) -> Phone:
        return self._webpush.subscribe(phone, key=self.web_push_key(phone.app))

    def _known_app(self, app: str | None) -> str:
        app = app or next(iter(self._apps), DEFAULT_APP)
        known = call(self._hooks.name_of_app, app)
        if known or app not in self._apps:
            self.add_app(app, str(known or app.partition(".")[2]))
        return app

    def _add(self, phone: Phone) -> Phone:
        call(self._hooks.on_phone, phone, passes=(HandbellError,))
        self._device_store.add(phone)
        self._history.publish("phone", phone)
        return phone

    def remove_phone(self, phone: Phone | str) -> None:
        """Uninstall the app: its token answers 410 ``Unregistered`` from now on."""
        gone = self._device_store.remove(_id(phone), int(self._now() * 1000))
        if gone is None:
            return
        self._webpush.store.end(gone.token)
        self._history.publish("phone-removed", IdEvent(gone.id))
        call(self._hooks.on_phone_removed, gone)

    def switch(self, phone: Phone | str, is_on: bool) -> Phone:  # noqa: FBT001  as on the switch
        """Turn a phone on or off and return it; when turned on, it gets its stored pushes."""
        former = self.phone(_id(phone))
        _refuse_real(former)
        self._change(replace(former, is_on=is_on, stored=() if is_on else former.stored))
        deliver_stored = {
            "apns": self._apns_handler.deliver_stored,
            "fcm": self._fcm.deliver_stored,
            "webpush": self._webpush.deliver_stored,
        }[former.service]
        for push in former.stored if is_on else ():
            deliver_stored(self.phone(former.id), push)
        return self.phone(former.id)

    def set_badge(self, phone: Phone | str, badge: int) -> Phone:
        """Set the app's badge, as the app itself can, and return the phone; 0 clears it."""
        return self._change(replace(self.phone(_id(phone)), badge=badge or None))

    def open_app(self, phone: Phone | str) -> Phone:
        """Open the app as its user would, and return the phone.

        Like a real app it registers at each start, by the hook ``on_phone``; with a new token
        after an uninstall. The badge is cleared, but not on Android, where it counts what waits.
        Raises HandbellError when the back end refuses; the phone is unchanged then.
        """
        former = self.phone(_id(phone))
        badge = former.badge if former.service == "fcm" else None
        opened = replace(former, badge=badge, is_gone=False)
        if former.is_gone and former.service == "webpush":
            _refuse_real(former)
            opened = self._subscribe(opened)
        elif former.is_gone and former.service == "fcm":
            opened = replace(opened, token=new_token())
        elif former.is_gone:
            opened = replace(opened, token=secrets.token_hex(len(former.token) // 2))
        call(self._hooks.on_phone, opened, passes=(HandbellError,))
        if former.is_gone:
            self._device_store.add(opened)
        return self._change(opened)

    def open_card(self, phone: Phone | str, card_id: str) -> Phone:
        """Open a card as the user would, report it once, and return the phone.

        On Android a tap removes it, unless it is sticky. Raises TwinError when the phone shows no
        such card.
        """
        former = self.phone(_id(phone))
        card = _card(former, card_id)
        opened = former.open_card(card_id, self._now())
        if former.service == "fcm" and not card.is_sticky:
            left = self._change(with_badge(opened.dismiss_card(card_id)))
        else:
            left = self._change(opened)
        if card.opened_at is None:
            call(self._hooks.on_opened, left, _card(opened, card_id))
        return left

    def dismiss_card(self, phone: Phone | str, card_id: str) -> Phone:
        """Dismiss a card and return the phone; raises TwinError for an unknown card."""
        former = self.phone(_id(phone))
        _card(former, card_id)
        left = former.dismiss_card(card_id)
        return self._change(with_badge(left) if former.service == "fcm" else left)

    def set_channel(self, phone: Phone | str, channel_id: str, is_on: bool) -> Phone:  # noqa: FBT001
        """Switch a notification channel on or off, as the phone's user can, and return the phone.

        Raises TwinError when the app has no such channel.
        """
        former = self.phone(_id(phone))
        if channel_id not in {channel.id for channel in former.channels}:
            raise TwinError(
                f"{former.app_name} on {former.name} has no channel {channel_id!r}",
                fix="Look at its channels first",
            )
        channels = tuple(
            replace(one, is_on=is_on) if one.id == channel_id else one for one in former.channels
        )
        return self._change(replace(former, channels=channels))

    def _change(self, phone: Phone) -> Phone:
        self._device_store.put(phone)
        self._history.publish("phone", phone)
        return phone


def _id(phone: Phone | str) -> str:
    return phone if isinstance(phone, str) else phone.id


def _refuse_real(phone: Phone) -> None:
    if phone.kind == REAL_BROWSER:
        raise TwinError(
            f"{phone.name} is a real browser, which the twin cannot switch",
            fix="Open or close it, and subscribe in it again once its subscription has ended",
        )


def _card(phone: Phone, card_id: str) -> Card:
    card = phone.card(card_id)
    if card is None:
        raise TwinError(f"{phone.name} shows no card {card_id!r}", fix="Look at its cards first")
    return card


def _short(text: str | None) -> str | None:
    return text[:_MAX_NAME] if text else None
