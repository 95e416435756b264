"""The twin: Apple's push service on loopback, with virtual phones. What a program starts and asks.

::

    async with Twin(folder) as twin:
        twin.add_key("TEAM123456", "KEY1234567", path.read_text())
        phone = twin.add_phone("First phone", app="TEAM123456.com.sample.myapp")
        ...                                     # push to twin.production_url, trust twin.ca_file
        twin.phones[phone.id].cards             # what the phone shows

:func:`handbell.twin.running.start_twin` runs one in a thread, for programs without an event loop.
"""

import asyncio
import contextlib
import hmac
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self
from urllib.parse import urlsplit

from handbell._threads import in_thread
from handbell.errors import CredentialError, HandbellError, TwinError

from . import rules
from .address import Address, remove_address, write_address
from .apns_server import IDLE_SECONDS, ApnsServer
from .certificates import Authority
from .device_store import DeviceStore
from .faults import Fault, FaultPlan
from .history import History, Listener, Named, Received
from .hooks import Hooks, call
from .phone import Card, Phone, switch
from .ports import bind, check_host
from .provider_token import Key, read_public_key
from .request_handler import RequestHandler
from .web import PageServer

DEFAULT_APP: Final = "HANDBELL00.com.example.app"
"""The app of a phone that names none, while the twin knows none."""

_MAX_NAME: Final = 200
_SIDES: Final = ("production", "development")
_TOKEN_DIGITS: Final = 64

logger = logging.getLogger(__name__)


class Twin:
    """One twin, with its two sides, its page and its phones. Use it within one event loop.

    ``folder`` keeps the certificate authority and the address file; a port of 0 is a free one.
    ``host`` has to be a loopback address. ``now`` is the twin's clock in UNIX seconds: provider
    tokens, expirations and the ``date`` of answers go by it. A connection without a frame for
    ``idle_seconds`` is told ``IdleTimeout`` and closed. Raises TwinError for a host, a folder or a
    port that cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        *,
        production_port: int = 0,
        development_port: int = 0,
        page_port: int = 0,
        host: str = "127.0.0.1",
        hooks: Hooks | None = None,
        now: Callable[[], float] = time.time,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        check_host(host)
        self._folder = folder
        self._host = host
        self._ports = (production_port, development_port, page_port)
        self._hooks = Hooks() if hooks is None else hooks
        self._now = now
        self._idle_seconds = idle_seconds
        self._keys: dict[tuple[str, str], Key] = {}
        self._apps: dict[str, str] = {}
        self._device_store = DeviceStore()
        self._history = History()
        self._running: _Running | None = None
        self._page_token = secrets.token_urlsafe(16)
        self.faults = FaultPlan(self._on_fault)
        self.links: dict[str, str] = {}
        self._handler = RequestHandler(
            self,
            self._device_store,
            faults=self.faults,
            history=self._history,
            on_displayed=self._hooks.on_displayed,
        )

    # Life

    async def start(self) -> None:
        """Open the three ports and write the address file; returns when all of them answer."""
        authority = await in_thread(Authority.open, self._folder)
        async with contextlib.AsyncExitStack() as undo:
            bound = [undo.enter_context(bind(self._host, port)) for port in self._ports]
            context = authority.server_context()
            sides = [
                ApnsServer(side, self._handler.handle, context, idle_seconds=self._idle_seconds)
                for side in _SIDES
            ]
            page = PageServer(self, bound[2])
            self._running = _Running(authority, self._addresses(authority, bound), sides, page)
            undo.push_async_exit(self.__aexit__)
            for server, listening in zip(sides, bound, strict=False):
                await server.start(listening)
            await page.start()
            write_address(self._folder, self.address)
            undo.pop_all()

    async def stop(self) -> None:
        """Close every connection and port, and remove the address file."""
        running, self._running = self._running, None
        if running is None:
            return
        remove_address(self._folder, running.address)
        self._history.close()
        await asyncio.gather(*(side.stop() for side in running.sides), running.page.stop())

    async def go_away(self) -> None:
        """Cut every connection, and refuse every other until :meth:`come_back`.

        The page with the phones stays.
        """
        await asyncio.gather(*(side.leave() for side in self._started().sides))

    async def come_back(self) -> None:
        """Accept connections again after :meth:`go_away`, on the ports of before.

        Raises TwinError where somebody else has taken one of them meanwhile.
        """
        running = self._started()
        for side, url in zip(
            running.sides, (self.production_url, self.development_url), strict=True
        ):
            await side.start(bind(self._host, urlsplit(url).port or 0))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.stop()

    def _addresses(self, authority: Authority, bound: Sequence[socket.socket]) -> Address:
        host = f"[{self._host}]" if ":" in self._host else self._host
        production, development, page = (f"{host}:{one.getsockname()[1]}" for one in bound)
        return Address(
            production_url=f"https://{production}",
            development_url=f"https://{development}",
            page_url=f"http://{page}",
            ca_file=str(authority.ca_file),
            pid=os.getpid(),
            page_token=self._page_token,
        )

    def lets_in(self, token: str) -> bool:
        """Return whether somebody who brings this token, or none, may use the page."""
        if hmac.compare_digest(token.encode(), self._page_token.encode()):
            return True
        return call(self._hooks.guards_page) is False

    def _started(self) -> "_Running":
        if self._running is None:
            raise TwinError("The twin is not running", fix="Start it first")
        return self._running

    @property
    def address(self) -> Address:
        """Where the running twin can be reached; raises TwinError when it is not running."""
        return self._started().address

    @property
    def production_url(self) -> str:
        """The production side, ``https://127.0.0.1:PORT``."""
        return self.address.production_url

    @property
    def development_url(self) -> str:
        """The development side, ``https://127.0.0.1:PORT``."""
        return self.address.development_url

    @property
    def page_url(self) -> str:
        """The page with the phones, ``http://127.0.0.1:PORT``."""
        return self.address.page_url

    @property
    def page_link(self) -> str:
        """The link to the page that opens it also where it asks for a token."""
        return self.address.page_link

    @property
    def ca_file(self) -> Path:
        """The PEM file of the authority that a client has to trust."""
        return Path(self.address.ca_file)

    # What the twin is told

    @property
    def keys(self) -> Mapping[tuple[str, str], Key]:
        """The keys known, by team id and key id."""
        return MappingProxyType(self._keys)

    @property
    def apps(self) -> Mapping[str, str]:
        """The names of the apps known, by app id."""
        return MappingProxyType(self._apps)

    def add_key(
        self,
        team_id: str,
        key_id: str,
        key_pem: str | bytes,
        environment: str | None = None,
        topics: Sequence[str] | None = None,
    ) -> None:
        """Make a key known by the PEM of its public half, or of the ``.p8``, whose rest is dropped.

        ``environment`` limits it to ``production`` or ``development``, ``topics`` to those apps.
        Raises CredentialError when it is not a P-256 key.
        """
        if environment is not None:
            _check_side(environment)
        self._keys[team_id, key_id] = Key(
            team_id=team_id,
            key_id=key_id,
            public_key=read_public_key(key_pem, key_id),
            environment=environment,
            topics=None if topics is None else frozenset(topics),
        )

    def remove_key(self, team_id: str, key_id: str) -> None:
        """Revoke a key: what it signed is an ``InvalidProviderToken`` from now on."""
        self._keys.pop((team_id, key_id), None)

    def add_app(self, app_id: str, name: str) -> None:
        """Make an app known, ``TEAM123456.com.sample.myapp``, so that phones can carry it."""
        team, _, bundle_id = app_id.partition(".")
        if not team or not bundle_id:
            raise TwinError(
                f"{app_id!r} is not an app id", fix="Write it as TEAM123456.com.sample.myapp"
            )
        self._apps[app_id] = name

    def issue_client_certificate(
        self, topics: Sequence[str], *, environment: str | None = None
    ) -> bytes:
        """Return a push certificate with its key, one PEM text, for certificate authentication.

        ``environment`` limits it to one side; without topics it is a certificate that cannot push.
        """
        if environment is not None:
            _check_side(environment)
        return self._started().authority.issue_client_certificate(topics, environment=environment)

    # Phones

    @property
    def phones(self) -> Mapping[str, Phone]:
        """The phones as they are now, by id, in the order they were made."""
        return self._device_store.phones

    def phone(self, phone_id: str) -> Phone:
        """Return the phone as it is now; raises TwinError when there is none of that id."""
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
        """Make a phone with an app on it and return it.

        Without ``app`` it gets the first one known. ``token`` is a random one of ``token_digits``
        hex digits unless given; the token of an app that was removed may come back so. ``kind`` is
        the push type that the token is for where it is not the app's own one (``voip``, say).
        Raises TwinError for a side, app, kind or token that cannot be used, and the HandbellError
        by which the ``on_phone`` hook says no.
        """
        _check_side(side)
        if kind not in rules.TOKEN_KINDS:
            raise TwinError(
                f"There is no token of the kind {kind!r}",
                fix=f"Use one of {', '.join(rules.TOKEN_KINDS)}",
            )
        app = app or next(iter(self._apps), DEFAULT_APP)
        if app not in self._apps:
            self.add_app(app, app.partition(".")[2])
        phone = Phone(
            id=secrets.token_hex(4),
            name=_short(name) or f"Phone {len(self.phones) + 1}",
            mail=_short(mail),
            app=app,
            app_name=self._apps[app],
            side=side,
            token=self._device_store.free_token(token, token_digits),
            kind=kind,
            is_on=is_on,
        )
        call(self._hooks.on_phone, phone, passes=(HandbellError,))
        self._device_store.add(phone)
        self._history.publish("phone", phone)
        return phone

    def remove_phone(self, phone: Phone | str) -> None:
        """Uninstall the app: its token answers 410 ``Unregistered`` from now on."""
        gone = self._device_store.remove(_id(phone), int(self._now() * 1000))
        if gone is None:
            return
        self._history.publish("phone-removed", Named(gone.id))
        call(self._hooks.on_phone_removed, gone)

    def switch(self, phone: Phone | str, is_on: bool) -> Phone:  # noqa: FBT001  as on the switch
        """Turn a phone on or off and return it; coming on, it gets what was stored for it."""
        former = self.phone(_id(phone))
        arrival = switch(former, is_on=is_on, now=self._now())
        self._change(arrival.phone if arrival else replace(former, is_on=is_on))
        if arrival and former.stored:
            self._handler.show(arrival, former.stored)
        return self.phone(former.id)

    def set_badge(self, phone: Phone | str, badge: int) -> Phone:
        """Set the number on the icon, as the app itself can, and return the phone; 0 clears."""
        return self._change(replace(self.phone(_id(phone)), badge=badge or None))

    def open_app(self, phone: Phone | str) -> Phone:
        """Open the app as the phone's owner would, and return the phone.

        As a real app does at each start it registers itself, by the hook ``on_phone``; after it was
        gone it does so with a new token. The badge is cleared. Raises HandbellError where the back
        end says no; the phone stays as it was then.
        """
        former = self.phone(_id(phone))
        opened = replace(former, badge=None, is_gone=False)
        if former.is_gone:
            opened = replace(opened, token=self._device_store.free_token(None, len(former.token)))
        call(self._hooks.on_phone, opened, passes=(HandbellError,))
        if former.is_gone:
            self._device_store.add(opened)
        return self._change(opened)

    def open_card(self, phone: Phone | str, card_id: str) -> Phone:
        """Open a card as the phone's owner would, report it once, and return the phone.

        Raises TwinError when the phone shows no such card.
        """
        former = self.phone(_id(phone))
        card = _card(former, card_id)
        opened = self._change(former.open_card(card_id, self._now()))
        if card.opened_at is None:
            call(self._hooks.on_opened, opened, _card(opened, card_id))
        return opened

    def dismiss_card(self, phone: Phone | str, card_id: str) -> Phone:
        """Swipe a card away and return the phone; raises TwinError when it shows no such card."""
        former = self.phone(_id(phone))
        _card(former, card_id)
        return self._change(former.dismiss_card(card_id))

    def _change(self, phone: Phone) -> Phone:
        self._device_store.put(phone)
        self._history.publish("phone", phone)
        return phone

    # What has happened

    @property
    def requests(self) -> list[Received]:
        """The last requests, newest first, 1000 at most."""
        return self._history.requests

    @property
    def accepted(self) -> int:
        """How many pushes were accepted since the start."""
        return self._handler.total

    @property
    def connections(self) -> int:
        """How many connections are open, on both sides."""
        return sum(side.connections for side in self._running.sides) if self._running else 0

    @property
    def opened(self) -> int:
        """How many connections were opened since the start, on both sides."""
        return sum(side.opened for side in self._running.sides) if self._running else 0

    def accepted_of(self, token: str) -> dict[str, int]:
        """Return how often each ``apns-id`` was accepted for the token."""
        return self._handler.accepted.of(token)

    def shown(self, token: str) -> dict[str, int]:
        """Return how often the push of each ``apns-id`` appeared on the phone of the token.

        Appearing in place of an older one with the same collapse id counts too.
        """
        return self._handler.shown.of(token)

    def listen(self) -> AbstractContextManager[Listener]:
        """Hear of every change while the block runs."""
        return self._history.listen()

    def _on_fault(self, name: str, fault: Fault) -> None:
        self._history.publish(name, fault if name == "fault" else Named(fault.id))

    # What the rules ask

    def now(self) -> float:
        """Return the time by the twin's clock, in UNIX seconds."""
        return self._now()

    def find_key(self, team_id: str, key_id: str) -> Key | None:
        """Return the key, after asking the ``find_key`` hook for one that is not known yet."""
        if (team_id, key_id) not in self._keys:
            pem = call(self._hooks.find_key, team_id, key_id)
            if isinstance(pem, str | bytes):
                try:
                    self.add_key(team_id, key_id, pem)
                except CredentialError as error:
                    logger.warning("The key that the hook found cannot be used: %s", error)
        return self._keys.get((team_id, key_id))

    def find_device(self, token: str) -> rules.Device | None:
        """Return what is known of a device token."""
        return self._device_store.device(token)

    def owns_topic(self, team_id: str, bundle_id: str) -> bool:
        """Return whether the team may push to the app; one the twin does not know is anybody's."""
        owners = {app.partition(".")[0] for app in self._apps if app.partition(".")[2] == bundle_id}
        return not owners or team_id in owners


@dataclass(frozen=True, slots=True)
class _Running:
    authority: Authority
    address: Address
    sides: list[ApnsServer]
    page: PageServer


def _id(phone: Phone | str) -> str:
    return phone if isinstance(phone, str) else phone.id


def _card(phone: Phone, card_id: str) -> Card:
    card = phone.card(card_id)
    if card is None:
        raise TwinError(f"{phone.name} shows no card {card_id!r}", fix="Look at its cards first")
    return card


def _short(text: str | None) -> str | None:
    return text[:_MAX_NAME] if text else None


def _check_side(side: str) -> None:
    if side not in _SIDES:
        raise TwinError(f"The twin has no side {side!r}", fix=f"Use {' or '.join(_SIDES)}")
