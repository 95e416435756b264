"""Virtual phones: what every kind of phone has. Immutable: a change returns a new phone.

What a phone makes of a push is its service's own: ``apns/phone.py``, ``fcm/phone.py``.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Protocol

from handbell._icon import AppIcon

MAX_CARDS: Final = 100
"""The maximum number of cards that a phone keeps, the newest first."""


class StoredPush(Protocol):
    """A push that its service keeps for a phone that is off."""

    def is_expired(self, now: float) -> bool:
        """Return whether it is not delivered any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A notification shown on the phone. Instants are UNIX milliseconds.

    ``push_id`` is the id by which its sender knows the push: Apple's ``apns-id``, or the delivery
    that the data names. ``channel``, ``color``, ``icon``, ``actions`` and ``count`` are Android's;
    ``subtitle``, ``thread_id`` and ``badge`` Apple's; ``is_sticky`` means that a tap leaves it.
    """

    id: str
    push_id: str
    title: str
    subtitle: str = ""
    body: str
    image_url: str | None = None
    url: str | None = None
    sound: str | None = None
    thread_id: str | None = None
    badge: int | None = None
    interruption_level: str = "active"
    shown_at: int
    opened_at: int | None = None
    replaced: int = 0
    channel: str | None = None
    color: str | None = None
    icon: str | None = None
    actions: tuple[str, ...] = ()
    count: int | None = None
    is_sticky: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the card in the page's JSON form."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A notification channel of an Android app; its user may have switched it off."""

    id: str
    is_on: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Phone:
    """A virtual phone with one app on it: its token, its cards newest first, its badge.

    ``service`` is the push service that reaches it: ``apns``, ``fcm`` or ``webpush``. ``app`` is
    the app's id, of Apple's form ``TEAM123456.com.sample.myapp`` where it has a team; ``project``
    the Google project of an Android app. ``side`` is the token's environment, ``kind`` what it
    accepts. ``stored`` is what the service keeps for it while it is off, the oldest first.
    ``details`` is the rest of its address as JSON: the public key and the secret of a browser.
    ``is_gone`` means that the push service reported the app as uninstalled.
    """

    id: str
    name: str
    app: str
    app_name: str
    side: str
    token: str
    details: str | None = field(default=None, repr=False)
    service: str = "apns"
    kind: str = "alert"
    mail: str | None = None
    is_on: bool = True
    badge: int | None = None
    cards: tuple[Card, ...] = ()
    stored: tuple[StoredPush, ...] = ()
    is_gone: bool = False
    project: str | None = None
    package: str | None = None
    channels: tuple[Channel, ...] = ()
    has_own_channels: bool = False

    @property
    def platform(self) -> str:
        """Return the platform as a registration names it; empty for the default of APNs."""
        return {"fcm": "android", "webpush": "web"}.get(self.service, "")

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

    def with_card(self, card: Card) -> "Phone":
        """Return the phone with this card on top, in place of one with the same id."""
        others = tuple(other for other in self.cards if other.id != card.id)
        return replace(self, cards=(card, *others)[:MAX_CARDS])

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
        return replace(self, is_gone=True, cards=(), badge=None, stored=())

    def to_dict(self) -> dict[str, Any]:
        """Return the phone in the page's JSON form; ``waiting`` counts its stored pushes."""
        return {
            "id": self.id,
            "name": self.name,
            "mail": self.mail,
            "app": self.app,
            "app_name": self.app_name,
            "icon": AppIcon.of(self.app, self.app_name).to_dict(),
            "service": self.service,
            "platform": self.platform or "ios",
            "side": self.side,
            "token": self.token,
            "kind": self.kind,
            "project": self.project,
            "package": self.package,
            "channels": [asdict(channel) for channel in self.channels],
            "is_on": self.is_on,
            "is_gone": self.is_gone,
            "badge": self.badge,
            "cards": [card.to_dict() for card in self.cards],
            "waiting": len(self.stored),
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


def free_card_id(phone: Phone, wanted: str) -> str:
    """Return an id for a card that replaces none: the wanted one, or one derived from it."""
    taken = {card.id for card in phone.cards}
    names = (wanted, *(f"{wanted}~{number}" for number in range(2, MAX_CARDS + 2)))
    return next(name for name in names if name not in taken)
