"""A virtual browser: what a page's service worker makes of a decrypted message. Pure.

It shows the ``notification`` of a declarative message, as the service worker in clients/web does;
a browser that knows declarative messages does the same by itself (Push API, "Declarative push
message"), and so does the worker for one that does not say ``web_push``.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from handbell.twin.phone import Arrival, Card, Phone, free_card_id
from handbell.twin.untrusted import as_count, as_mapping, as_text

from .encryption import BrowserKeys, DecryptionError
from .subscriptions import PushMessage, enqueue


@dataclass(frozen=True, slots=True)
class Opened:
    """A message as a browser has decrypted it: what it shows, or why it shows nothing."""

    content: "_Content | None"
    why: str = ""
    plain: bytes | None = None

    @property
    def notification_id(self) -> str | None:
        """Return the id of the notification that it is of; None where it does not say."""
        return None if self.content is None else self.content.notification_id


def open_message(message: PushMessage, keys: BrowserKeys) -> Opened:
    """Return what a browser makes of a message with its keys."""
    if not message.body:
        return Opened(None, "There is no body: the push event has no data.")
    try:
        return read_message(keys.decrypt(message.body))
    except DecryptionError as error:
        return Opened(None, f"Accepted, but the browser cannot decrypt it: {error}")


def read_message(plain: bytes) -> Opened:
    """Return what a decrypted message shows."""
    content = _Content.read(plain)
    if content is None:
        why = "Decrypted, but it has no notification with a title: nothing appears."
        return Opened(None, why, plain)
    return Opened(content, plain=plain)


def arrive(phone: Phone, message: PushMessage, opened: Opened, now: float) -> Arrival:
    """Return the arrival of an accepted message at a virtual browser.

    While the browser is closed the service keeps each message as long as its TTL says.
    """
    if phone.is_on:
        return show(phone, opened, message.id, now)
    if message.ttl == 0:
        return Arrival(phone, "discarded", "The browser is closed, and TTL 0 forbids to store.")
    waiting = messages_of(phone)
    stored = enqueue(waiting, message, now)
    why = "The browser is closed; stored for when it is opened"
    why += ", in place of one with this topic." if len(stored) <= len(waiting) else "."
    return Arrival(replace(phone, stored=stored), "stored", why)


def messages_of(phone: Phone) -> tuple[PushMessage, ...]:
    """Return what waits for a virtual browser that is closed, the oldest first."""
    return tuple(item for item in phone.stored if isinstance(item, PushMessage))


def show(phone: Phone, opened: Opened, message_id: str, now: float) -> Arrival:
    """Return the arrival of a message at a browser that is open."""
    content = opened.content
    if content is None:
        return Arrival(phone, "silent", opened.why)
    if content.badge is not None:
        phone = replace(phone, badge=content.badge or None)
    card = _card(phone, message_id, content, now)
    why = "Decrypted and shown"
    why += ", in place of the one with this tag." if card.replaced else "."
    return Arrival(phone.with_card(card), "shown", why, card)


def _card(phone: Phone, message_id: str, content: "_Content", now: float) -> Card:
    former = phone.card(content.tag) if content.tag else None
    return Card(
        id=content.tag or free_card_id(phone, message_id),
        push_id=content.notification_id or message_id,
        title=content.title,
        body=content.body,
        image_url=content.image,
        url=content.navigate,
        sound=None if content.is_silent else "default",
        badge=content.badge,
        shown_at=int(now * 1000),
        replaced=former.replaced + 1 if former else 0,
        actions=content.actions,
        icon=content.icon,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    """The displayable content of a declarative message; values of a wrong type count as absent."""

    title: str
    body: str
    navigate: str | None
    tag: str | None
    image: str | None
    icon: str | None
    is_silent: bool
    badge: int | None
    actions: tuple[str, ...]
    notification_id: str | None

    @classmethod
    def read(cls, plain: bytes) -> "_Content | None":
        try:
            said = json.loads(plain)
        except (ValueError, RecursionError):
            return None
        said = as_mapping(said)
        shown = as_mapping(said.get("notification"))
        title = as_text(shown.get("title"))
        if title is None:
            return None
        return cls(
            title=title,
            body=as_text(shown.get("body")) or "",
            navigate=as_text(shown.get("navigate")),
            tag=as_text(shown.get("tag")),
            image=as_text(shown.get("image")),
            icon=as_text(shown.get("icon")),
            is_silent=shown.get("silent") is True,
            badge=_badge(said, shown),
            actions=_actions(shown.get("actions")),
            notification_id=as_text(as_mapping(shown.get("data")).get("handbell")),
        )


def _badge(badge: Mapping[str, Any], shown: Mapping[str, Any]) -> int | None:
    for value in (badge.get("app_badge"), shown.get("app_badge")):
        if isinstance(value, str) and value.isascii() and value.isdigit():
            return int(value[:9])
        if as_count(value) is not None:
            return as_count(value)
    return None


def _actions(value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, list) else []
    titles = (as_text(as_mapping(item).get("title")) for item in items)
    return tuple(title for title in titles if title)
