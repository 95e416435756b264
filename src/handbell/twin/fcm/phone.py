"""The Android phone: how the system and an app in the background handle a message.

Sources, below https://firebase.google.com/docs/cloud-messaging/ : customize-messages (what the
system shows, and what goes to the app's code), customize-messages/collapsible-message-types and
customize-messages/setting-message-lifespan (what is stored for a device that is off).
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from handbell.services.fcm.protocol import COLLAPSE_KEYS_AT_MOST, STORED_AT_MOST
from handbell.twin.phone import Arrival, Card, Channel, Phone, StoredPush, free_card_id
from handbell.twin.untrusted import as_count, as_text

from .message import Message, data_of, notification_of, ttl_of

FALLBACK_CHANNEL: Final = "Miscellaneous"
"""Where the system puts what names no channel that the app has."""
RECEIPT_MEMBER: Final = "handbell"
"""The member of the data by which an app's receipts name the notification."""

_PLACEHOLDER: Final = re.compile(r"%(?:(\d+)\$)?s")
_URL: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:\S+")
_LEVELS: Final = {"PRIORITY_MIN": "passive", "PRIORITY_LOW": "passive"}


def new_token() -> str:
    """Return a registration token of the form that FCM gives out: an installation's id in front."""
    return f"{secrets.token_urlsafe(16)}:APA91b{secrets.token_urlsafe(100)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FcmPush:
    """An accepted message to one device, as FCM delivers it."""

    name: str
    token: str
    message: Message = field(repr=False)
    received_at: float

    @property
    def push_id(self) -> str:
        """Return the id by which the sender knows it: that of the data, else the message's."""
        return data_of(self.message).get(RECEIPT_MEMBER) or self.name.rpartition("/")[2]

    @property
    def collapse_key(self) -> str | None:
        """Return the key that makes it collapsible."""
        return as_text(self.message.get("android", {}).get("collapse_key"))

    @property
    def is_storable(self) -> bool:
        """Return whether FCM may store it: not with a ttl of 0."""
        return ttl_of(self.message) > 0

    def is_expired(self, now: float) -> bool:
        """Return whether its ttl is over."""
        return now > self.received_at + ttl_of(self.message)


def arrive(phone: Phone, push: FcmPush, now: float) -> Arrival:
    """Return the arrival of an accepted message."""
    if phone.is_on:
        return _display(phone, push, now)
    if not push.is_storable:
        return Arrival(phone, "discarded", "The phone is off, and a ttl of 0s forbids to store.")
    return _store(phone, push)


def hold(phone: Phone, push: FcmPush, seconds: float) -> Arrival:
    """Return the arrival of a collapsible message that FCM holds back for a while."""
    stored = _store(phone, push)
    why = f"Too many collapsible messages: held back for {seconds:.0f} seconds, the newest alone."
    return replace(stored, why=why)


def deliver_stored(phone: Phone, push: StoredPush, now: float) -> Arrival:
    """Return the arrival of a message that FCM stored, on a phone that is on again."""
    if not isinstance(push, FcmPush) or push.is_expired(now):
        return Arrival(phone, "discarded", "It expired while the phone was off.")
    return _display(phone, push, now)


def _store(phone: Phone, push: FcmPush) -> Arrival:
    """Keep one message for each of four collapse keys, and 100 without one.

    Which of five keys is dropped is undefined; here it is the oldest. One more than 100, and all
    without a key are dropped.
    """
    why = "The phone is off; stored for when it comes back."
    kept = [item for item in phone.stored if isinstance(item, FcmPush)]
    if push.collapse_key is not None:
        others = [item for item in kept if item.collapse_key != push.collapse_key]
        if len(others) < len(kept):
            why = "The phone is off; stored in place of an older one with this collapse key."
        keys = [item for item in others if item.collapse_key is not None]
        if len(keys) >= COLLAPSE_KEYS_AT_MOST:
            others.remove(keys[0])
        return Arrival(replace(phone, stored=(*others, push)), "stored", why)
    plain = [item for item in kept if item.collapse_key is None]
    if len(plain) >= STORED_AT_MOST:
        kept = [item for item in kept if item.collapse_key is not None]
        why = f"The phone is off, and {STORED_AT_MOST} messages wait: all of them are dropped."
        return Arrival(replace(phone, stored=tuple(kept)), "discarded", why)
    return Arrival(replace(phone, stored=(*kept, push)), "stored", why)


def _display(phone: Phone, push: FcmPush, now: float) -> Arrival:
    shown = notification_of(push.message)
    if not shown:
        return Arrival(phone, "silent", "Data alone: it goes to the app's code, nothing appears.")
    phone, channel, why = _channel(phone, as_text(shown.get("channel_id")))
    if not channel.is_on:
        return Arrival(phone, "silent", f"The user has switched the channel {channel.id} off.")
    card = _card(phone, push, shown, channel, now)
    if not (card.title or card.body):
        return Arrival(phone, "silent", "Neither title nor body: nothing appears on the screen.")
    if card.replaced:
        why = "Shown, in place of the one with this tag."
    return Arrival(with_badge(phone.with_card(card)), "shown", why, card)


def with_badge(phone: Phone) -> Phone:
    """Return the phone with the launcher's badge: the notifications that wait on it."""
    total = sum(card.count if card.count is not None else 1 for card in phone.cards)
    return replace(phone, badge=total or None)


def _channel(phone: Phone, wanted: str | None) -> tuple[Phone, Channel, str]:
    """Return the channel of a message, which an app without a list of its own creates for it."""
    why = "Shown."
    name = wanted or FALLBACK_CHANNEL
    known = {channel.id: channel for channel in phone.channels}
    if name not in known and phone.has_own_channels and name != FALLBACK_CHANNEL:
        why = f"Shown in {FALLBACK_CHANNEL}: the app has no channel {name}."
        name = FALLBACK_CHANNEL
    if name not in known:
        phone = replace(phone, channels=(*phone.channels, Channel(id=name)))
    return phone, known.get(name, Channel(id=name)), why


def _card(
    phone: Phone, push: FcmPush, shown: Mapping[str, Any], channel: Channel, now: float
) -> Card:
    tag = as_text(shown.get("tag"))
    former = phone.card(tag) if tag else None
    data = data_of(push.message)
    action = as_text(shown.get("click_action")) or ""
    priority = as_text(shown.get("notification_priority")) or ""
    return Card(
        id=tag or free_card_id(phone, push.name.rpartition("/")[2]),
        push_id=push.push_id,
        title=_words(shown, "title"),
        body=_words(shown, "body"),
        image_url=as_text(shown.get("image")),
        url=as_text(data.get("url")) or (action if _URL.fullmatch(action) else None),
        actions=(action,) if action and not _URL.fullmatch(action) else (),
        sound=as_text(shown.get("sound")) or ("default" if shown.get("default_sound") else None),
        interruption_level=_LEVELS.get(priority, "active"),
        shown_at=int(now * 1000),
        replaced=former.replaced + 1 if former else 0,
        channel=channel.id,
        color=as_text(shown.get("color")),
        icon=as_text(shown.get("icon")),
        count=as_count(shown.get("notification_count")),
        is_sticky=shown.get("sticky") is True,
    )


def _words(shown: Mapping[str, Any], name: str) -> str:
    """Return the text, or the key with its arguments filled in, as an app without strings would."""
    key = as_text(shown.get(f"{name}_loc_key"))
    if key is None:
        return as_text(shown.get(name)) or ""
    arguments: list[str] = shown.get(f"{name}_loc_args", [])
    following = iter(arguments)

    def fill(found: re.Match[str]) -> str:
        if found[1] is None:
            return next(following, "")
        place = int(found[1]) - 1
        return arguments[place] if 0 <= place < len(arguments) else ""

    return _PLACEHOLDER.sub(fill, key)
