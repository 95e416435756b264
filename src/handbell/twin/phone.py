"""Virtual phones: how a device handles a push. Immutable: a change returns a new phone.

A phone has one app and one token, of one kind: the app's own, which accepts ``alert`` and
``background``, or one that PushKit, ActivityKit and others issue for one push type. A real device
has several of them; on the twin each is a phone.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from handbell._icon import AppIcon
from handbell.gateways.apns.protocol import INTERRUPTION_LEVELS, STORED_AT_MOST_SECONDS

MAX_CARDS: Final = 100
"""The maximum number of cards that a phone keeps, the newest first."""

_PLACEHOLDER: Final = re.compile(r"%(?:(\d+)\$)?@")
_SHOWING_TYPES: Final = (None, "alert")


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """An accepted push, as APNs delivers it to the phone.

    ``expires_at`` is ``apns-expiration`` in UNIX seconds: 0 is one attempt, None if absent.
    """

    apns_id: str
    token: str
    topic: str
    payload: bytes
    received_at: float
    push_type: str | None = None
    priority: int = 10
    collapse_id: str | None = None
    expires_at: int | None = None

    @property
    def is_storable(self) -> bool:
        """Return whether APNs may store it for an offline device: not with an expiration of 0."""
        return self.expires_at != 0

    def is_expired(self, now: float) -> bool:
        """Return whether a stored push has expired; without an expiration APNs keeps it 30 days."""
        last = self.expires_at
        return now > (self.received_at + STORED_AT_MOST_SECONDS if last is None else last)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A notification shown on the phone. Instants are UNIX milliseconds."""

    id: str
    apns_id: str
    title: str
    subtitle: str
    body: str
    image_url: str | None
    url: str | None
    sound: str | None
    thread_id: str | None
    badge: int | None
    interruption_level: str
    shown_at: int
    opened_at: int | None = None
    replaced: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the card in the page's JSON form."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phone:
    """A virtual phone with one app on it: its token, its cards newest first, its badge.

    ``app`` is the app id ``TEAM123456.com.sample.myapp``; ``side`` is the token's environment, and
    ``kind`` what it accepts: ``alert`` (``background`` too), or another push type. ``stored`` is
    what APNs keeps for it while it is off: one notification at most, the newest. ``is_gone`` means
    that the push service reported the app as uninstalled.
    """

    id: str
    name: str
    app: str
    app_name: str
    side: str
    token: str
    kind: str = "alert"
    mail: str | None = None
    is_on: bool = True
    badge: int | None = None
    cards: tuple[Card, ...] = ()
    stored: Push | None = None
    is_gone: bool = False

    @property
    def team_id(self) -> str:
        """Return the team that signs the app."""
        return self.app.partition(".")[0]

    @property
    def bundle_id(self) -> str:
        """Return the app's bundle id."""
        return self.app.partition(".")[2]

    def card(self, card_id: str) -> Card | None:
        """Return the card with this id, if it is shown."""
        return next((card for card in self.cards if card.id == card_id), None)

    def open_card(self, card_id: str, now: float) -> "Phone":
        """Return the phone after its user opened the card; only the first opening counts."""
        return replace(
            self,
            cards=tuple(
                replace(card, opened_at=card.opened_at or int(now * 1000))
                if card.id == card_id
                else card
                for card in self.cards
            ),
        )

    def dismiss_card(self, card_id: str) -> "Phone":
        """Return the phone without the card."""
        return replace(self, cards=tuple(card for card in self.cards if card.id != card_id))

    def lose_app(self) -> "Phone":
        """Return the phone without the app, its notifications and its badge."""
        return replace(self, is_gone=True, cards=(), badge=None, stored=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the phone in the page's JSON form; ``waiting`` counts its stored pushes."""
        return {
            "id": self.id,
            "name": self.name,
            "mail": self.mail,
            "app": self.app,
            "app_name": self.app_name,
            "icon": AppIcon.of(self.app, self.app_name).to_dict(),
            "side": self.side,
            "token": self.token,
            "kind": self.kind,
            "is_on": self.is_on,
            "is_gone": self.is_gone,
            "badge": self.badge,
            "cards": [card.to_dict() for card in self.cards],
            "waiting": int(self.stored is not None),
        }


@dataclass(frozen=True, slots=True)
class Arrival:
    """The arrival of a push: the phone afterwards, the result, and the card if shown.

    ``what`` is ``shown``, ``silent`` (nothing to show), ``stored`` (the phone is off) or
    ``discarded`` (off, and not storable). ``why`` is one plain sentence.
    """

    phone: Phone
    what: str
    why: str
    card: Card | None = None


def arrive(phone: Phone, push: Push, now: float) -> Arrival:
    """Return the arrival of an accepted push.

    APNs keeps one notification per bundle id for an offline device, usually the newest, and with
    ``apns-expiration: 0`` none (sending-notification-requests-to-apns).
    """
    if phone.is_on:
        return _display(phone, push, now)
    if not push.is_storable:
        return Arrival(
            phone, "discarded", "The phone is off, and apns-expiration 0 forbids to store."
        )
    if push.is_expired(now):
        return Arrival(phone, "discarded", "The phone is off, and the push has already expired.")
    why = "The phone is off; stored for when it comes back"
    why += ", in place of an older one." if phone.stored else "."
    return Arrival(replace(phone, stored=push), "stored", why)


def switch(phone: Phone, *, is_on: bool, now: float) -> Arrival | None:
    """Return the arrival of the stored push when a phone is turned on; None without one.

    Also None when the phone is turned off, or is in that state already.
    """
    if not is_on or phone.stored is None:
        return None
    ready = replace(phone, is_on=True, stored=None)
    if phone.stored.is_expired(now):
        return Arrival(ready, "discarded", "It expired while the phone was off.")
    return _display(ready, phone.stored, now)


def _display(phone: Phone, push: Push, now: float) -> Arrival:
    content = _Content.read(push.payload)
    if content is None:
        why = "Accepted, but the payload is not a JSON object: the phone drops it."
        return Arrival(phone, "silent", why)
    if push.push_type not in _SHOWING_TYPES:
        return Arrival(phone, "silent", _silence(push.push_type, content))
    phone = replace(phone, badge=_badge(phone.badge, content.badge))
    if not content.has_alert:
        return Arrival(phone, "silent", "There is no alert in it: nothing appears on the screen.")
    card = _card(phone, push, content, now)
    others = tuple(other for other in phone.cards if other.id != card.id)
    why = "Shown, in place of the one with this collapse id." if card.replaced else "Shown."
    return Arrival(replace(phone, cards=(card, *others)[:MAX_CARDS]), "shown", why, card)


def _silence(push_type: str | None, content: "_Content") -> str:
    if push_type == "background" and content.has_alert:
        return "The push type is background, but there is an alert in it: iOS may drop it."
    return f"A push of type {push_type} goes to the app: nothing appears on the screen."


def _badge(former: int | None, said: int | None) -> int | None:
    return former if said is None else said or None


def _card(phone: Phone, push: Push, content: "_Content", now: float) -> Card:
    former = phone.card(push.collapse_id) if push.collapse_id else None
    return Card(
        id=push.collapse_id or _free_id(phone, push.apns_id),
        apns_id=push.apns_id,
        title=content.title,
        subtitle=content.subtitle,
        body=content.body,
        image_url=content.image_url,
        url=content.url,
        sound=content.sound,
        thread_id=content.thread_id,
        badge=content.badge,
        interruption_level=content.interruption_level,
        shown_at=int(now * 1000),
        replaced=former.replaced + 1 if former else 0,
    )


def _free_id(phone: Phone, apns_id: str) -> str:
    """Return an id for the card; a repeated apns-id is a second card: only collapse ids replace."""
    taken = {card.id for card in phone.cards}
    names = (apns_id, *(f"{apns_id}~{number}" for number in range(2, MAX_CARDS + 2)))
    return next(name for name in names if name not in taken)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    """The displayable content of a payload; values of a wrong type count as absent."""

    title: str = ""
    subtitle: str = ""
    body: str = ""
    image_url: str | None = None
    url: str | None = None
    sound: str | None = None
    thread_id: str | None = None
    badge: int | None = None
    interruption_level: str = "active"

    @property
    def has_alert(self) -> bool:
        return bool(self.title or self.subtitle or self.body)

    @classmethod
    def read(cls, payload: bytes) -> "_Content | None":
        try:
            said = json.loads(payload)
        except (ValueError, RecursionError):
            return None
        if not isinstance(said, dict):
            return None
        aps, data = _mapping(said.get("aps")), _mapping(said.get("data"))
        alert = aps.get("alert")
        alert = {"body": alert} if isinstance(alert, str) else _mapping(alert)
        level = _text(aps.get("interruption-level"))
        return cls(
            title=_alert_text(alert, "title", "title-loc"),
            subtitle=_alert_text(alert, "subtitle", "subtitle-loc"),
            body=_alert_text(alert, "body", "loc"),
            image_url=_text(data.get("media-url")),
            url=_text(said.get("url")) or _text(aps.get("url")),
            sound=_sound(aps.get("sound")),
            thread_id=_text(aps.get("thread-id")),
            badge=_number(aps.get("badge")),
            interruption_level=level if level in INTERRUPTION_LEVELS else "active",
        )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> int | None:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and value >= 0 else None


def _sound(value: Any) -> str | None:
    return _text(value) or _text(_mapping(value).get("name"))


def _alert_text(alert: Mapping[str, Any], name: str, localised: str) -> str:
    """Return the text, or the key with its arguments filled in, as an app without strings would."""
    key = _text(alert.get(f"{localised}-key"))
    if key is None:
        return _text(alert.get(name)) or ""
    said = alert.get(f"{localised}-args")
    arguments = [str(argument) for argument in said] if isinstance(said, list) else []
    following = iter(arguments)

    def fill(found: re.Match[str]) -> str:
        if found[1] is None:
            return next(following, "")
        place = int(found[1]) - 1
        return arguments[place] if 0 <= place < len(arguments) else ""

    return _PLACEHOLDER.sub(fill, key)
