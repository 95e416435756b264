"""The iPhone: how a device of Apple's handles a push.

A phone has one app and one token, of one kind: the app's own, which accepts ``alert`` and
``background``, or one that PushKit, ActivityKit and others issue for one push type. A real device
has several of them; on the twin each is a phone.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from handbell.services.apns.protocol import INTERRUPTION_LEVELS, STORED_AT_MOST_SECONDS
from handbell.twin.phone import Arrival, Card, Phone, StoredPush, free_card_id
from handbell.twin.untrusted import as_count, as_mapping, as_text

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
    return Arrival(replace(phone, stored=(push,)), "stored", why)


def deliver_stored(phone: Phone, push: StoredPush, now: float) -> Arrival:
    """Return the arrival of a push that APNs stored, on a phone that is on again."""
    if not isinstance(push, Push) or push.is_expired(now):
        return Arrival(phone, "discarded", "It expired while the phone was off.")
    return _display(phone, push, now)


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
    why = "Shown, in place of the one with this collapse id." if card.replaced else "Shown."
    return Arrival(phone.with_card(card), "shown", why, card)


def _silence(push_type: str | None, content: "_Content") -> str:
    if push_type == "background" and content.has_alert:
        return "The push type is background, but there is an alert in it: iOS may drop it."
    return f"A push of type {push_type} goes to the app: nothing appears on the screen."


def _badge(former: int | None, badge: int | None) -> int | None:
    return former if badge is None else badge or None


def _card(phone: Phone, push: Push, content: "_Content", now: float) -> Card:
    former = phone.card(push.collapse_id) if push.collapse_id else None
    return Card(
        id=push.collapse_id or free_card_id(phone, push.apns_id),
        push_id=push.apns_id,
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
        aps, data = as_mapping(said.get("aps")), as_mapping(said.get("data"))
        alert = aps.get("alert")
        alert = {"body": alert} if isinstance(alert, str) else as_mapping(alert)
        level = as_text(aps.get("interruption-level"))
        return cls(
            title=_alert_text(alert, "title", "title-loc"),
            subtitle=_alert_text(alert, "subtitle", "subtitle-loc"),
            body=_alert_text(alert, "body", "loc"),
            image_url=as_text(data.get("media-url")),
            url=as_text(said.get("url")) or as_text(aps.get("url")),
            sound=_sound(aps.get("sound")),
            thread_id=as_text(aps.get("thread-id")),
            badge=as_count(aps.get("badge")),
            interruption_level=level if level in INTERRUPTION_LEVELS else "active",
        )


def _sound(value: Any) -> str | None:
    return as_text(value) or as_text(as_mapping(value).get("name"))


def _alert_text(alert: Mapping[str, Any], name: str, localised: str) -> str:
    """Return the text, or the key with its arguments filled in, as an app without strings would."""
    key = as_text(alert.get(f"{localised}-key"))
    if key is None:
        return as_text(alert.get(name)) or ""
    said = alert.get(f"{localised}-args")
    arguments = [str(argument) for argument in said] if isinstance(said, list) else []
    following = iter(arguments)

    def fill(found: re.Match[str]) -> str:
        if found[1] is None:
            return next(following, "")
        place = int(found[1]) - 1
        return arguments[place] if 0 <= place < len(arguments) else ""

    return _PLACEHOLDER.sub(fill, key)
