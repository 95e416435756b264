"""The state of a twin: keys, apps, phones and received requests. It opens no socket."""

import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from handbell.errors import HandbellError, TwinError

from .apns import rules
from .apns.known import ApnsKnown
from .apns.provider_token import Key
from .apns.request_handler import ApnsSide, RequestHandler
from .device_store import DeviceStore
from .discovery import Address
from .faults import Fault, FaultPlan
from .history import History, IdEvent, ReceivedRequest, Subscription
from .hooks import TwinHooks, call
from .phone import Card, Phone
from .reception import Reception
from .sides import APNS_SIDES, check_side
from .webpush.handler import SIDE as WEBPUSH_SIDE
from .webpush.handler import EndpointHandler

DEFAULT_APP: Final = "HANDBELL00.com.example.app"
"""The default app of a phone while the twin knows no app."""

_MAX_NAME: Final = 200
_TOKEN_DIGITS: Final = 64


class TwinState:
    """The state of one twin: what its answers and its page depend on.

    It belongs to one event loop. ``now`` is the twin's clock in UNIX seconds.
    """

    def __init__(self, *, hooks: TwinHooks | None, now: Callable[[], float]) -> None:
        self._hooks = TwinHooks() if hooks is None else hooks
        self._now = now
        self._apps: dict[str, str] = {}
        self._device_store = DeviceStore()
        self._history = History()
        self._address: Address | None = None
        self._page_token = secrets.token_urlsafe(16)
        self.faults = FaultPlan(self._on_fault)
        self.links: dict[str, str] = {}
        self._reception = Reception(
            self._device_store, self._history, on_displayed=self._hooks.on_displayed, now=now
        )
        self._apns = ApnsKnown(
            self._device_store, self._apps, find_key=self._hooks.find_key, now=now
        )
        self._apns_handler = RequestHandler(self._apns, self._reception, faults=self.faults)
        self._webpush = EndpointHandler(
            self._reception, faults=self.faults, origin=lambda: self.address.webpush_url
        )

    def _apns_sides(self) -> list[ApnsSide]:
        return [ApnsSide(name, self._apns_handler) for name in APNS_SIDES]

    @property
    def address(self) -> Address:
        """Return the addresses of the running twin; raises TwinError when it is not running."""
        if self._address is None:
            raise TwinError("The twin is not running", fix="Start it first")
        return self._address

    def allows_token(self, token: str) -> bool:
        """Return whether a caller with this token, or without one, may use the page."""
        if hmac.compare_digest(token.encode(), self._page_token.encode()):
            return True
        return call(self._hooks.guards_page) is False

    # Configuration

    @property
    def keys(self) -> Mapping[tuple[str, str], Key]:
        """Return the known keys, by team id and key id."""
        return self._apns.keys

    @property
    def apps(self) -> Mapping[str, str]:
        """Return the names of the known apps, by app id."""
        return MappingProxyType(self._apps)

    def add_key(
        self,
        team_id: str,
        key_id: str,
        key_pem: str | bytes,
        environment: str | None = None,
        topics: Sequence[str] | None = None,
    ) -> None:
        """Add a key from the PEM of its public half, or from a ``.p8``, of which only that is kept.

        ``environment`` limits it to ``production`` or ``development``, ``topics`` to those apps.
        Raises CredentialError when it is not a P-256 key.
        """
        self._apns.add_key(team_id, key_id, key_pem, environment, topics)

    def remove_key(self, team_id: str, key_id: str) -> None:
        """Revoke a key: its tokens are an ``InvalidProviderToken`` from now on."""
        self._apns.remove_key(team_id, key_id)

    def add_app(self, app_id: str, name: str) -> None:
        """Add an app, ``TEAM123456.com.sample.myapp``, so that phones can have it."""
        team, _, bundle_id = app_id.partition(".")
        if not team or not bundle_id:
            raise TwinError(
                f"{app_id!r} is not an app id", fix="Write it as TEAM123456.com.sample.myapp"
            )
        self._apps[app_id] = name

    # Phones

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
    ) -> Phone:
        """Create a phone with an app and return it.

        Without ``app`` it gets the first known one. ``token`` is a random one of ``token_digits``
        hex digits unless given; this may be the token of a removed app. ``kind`` is the push type
        of the token if it is not for alerts (``voip``, say). Raises TwinError for a side, app,
        kind or token that is invalid, and the HandbellError of the ``on_phone`` hook.
        """
        check_side(side)
        if kind not in rules.TOKEN_KINDS:
            raise TwinError(
                f"There is no token of the kind {kind!r}",
                fix=f"Use one of {', '.join(rules.TOKEN_KINDS)}",
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

    def _subscribe(self, phone: Phone) -> Phone:
        key = call(self._hooks.web_push_key, phone.app)
        return self._webpush.subscribe(phone, key=key if isinstance(key, str) else None)

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
        self._change(replace(former, is_on=is_on, stored=() if is_on else former.stored))
        handler = self._webpush if former.service == "webpush" else self._apns_handler
        for push in former.stored if is_on else ():
            handler.deliver_stored(self.phone(former.id), push)
        return self.phone(former.id)

    def set_badge(self, phone: Phone | str, badge: int) -> Phone:
        """Set the app's badge, as the app itself can, and return the phone; 0 clears it."""
        return self._change(replace(self.phone(_id(phone)), badge=badge or None))

    def open_app(self, phone: Phone | str) -> Phone:
        """Open the app as its user would, and return the phone.

        Like a real app it registers at each start, by the hook ``on_phone``; with a new token
        after an uninstall. The badge is cleared. Raises HandbellError when the back end refuses;
        the phone is unchanged then.
        """
        former = self.phone(_id(phone))
        opened = replace(former, badge=None, is_gone=False)
        if former.is_gone and former.service == "webpush":
            opened = self._subscribe(opened)
        elif former.is_gone:
            opened = replace(opened, token=secrets.token_hex(len(former.token) // 2))
        call(self._hooks.on_phone, opened, passes=(HandbellError,))
        if former.is_gone:
            self._device_store.add(opened)
        return self._change(opened)

    def open_card(self, phone: Phone | str, card_id: str) -> Phone:
        """Open a card as the user would, report it once, and return the phone.

        Raises TwinError when the phone shows no such card.
        """
        former = self.phone(_id(phone))
        card = _card(former, card_id)
        opened = self._change(former.open_card(card_id, self._now()))
        if card.opened_at is None:
            call(self._hooks.on_opened, opened, _card(opened, card_id))
        return opened

    def dismiss_card(self, phone: Phone | str, card_id: str) -> Phone:
        """Dismiss a card and return the phone; raises TwinError for an unknown card."""
        former = self.phone(_id(phone))
        _card(former, card_id)
        return self._change(former.dismiss_card(card_id))

    def _change(self, phone: Phone) -> Phone:
        self._device_store.put(phone)
        self._history.publish("phone", phone)
        return phone

    # History

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The last requests, newest first, 1000 at most."""
        return self._history.requests

    @property
    def accepted(self) -> int:
        """Return how many pushes were accepted since the start."""
        return self._reception.total

    def accepted_of(self, token: str) -> dict[str, int]:
        """Return how often each push, by its id, was accepted for the token."""
        return self._reception.accepted.of(token)

    def shown(self, token: str) -> dict[str, int]:
        """Return how often each push, by its id, was shown on the phone of the token.

        Replacing an older card with the same collapse id counts too.
        """
        return self._reception.shown.of(token)

    def listen(self) -> AbstractContextManager[Subscription]:
        """Yield a listener that receives every change while the block runs."""
        return self._history.listen()

    def _on_fault(self, name: str, fault: Fault) -> None:
        self._history.publish(name, fault if name == "fault" else IdEvent(fault.id))


def _id(phone: Phone | str) -> str:
    return phone if isinstance(phone, str) else phone.id


def _card(phone: Phone, card_id: str) -> Card:
    card = phone.card(card_id)
    if card is None:
        raise TwinError(f"{phone.name} shows no card {card_id!r}", fix="Look at its cards first")
    return card


def _short(text: str | None) -> str | None:
    return text[:_MAX_NAME] if text else None
