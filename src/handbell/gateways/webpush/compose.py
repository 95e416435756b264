"""Compose a notification into the message of Web Push: its plaintext and its headers.

The text is a declarative message (Push API, "declarative push message"): a browser that knows them
shows it by itself, any other one hands the same JSON to the page's service worker. What a push
service or a browser would refuse is refused here, before anything is sent.
"""

from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic_core import to_json

from handbell._text import count
from handbell.apps.app import App
from handbell.creation.notification import RESERVED_MEMBER, Notification
from handbell.errors import NotForServiceError, NotificationError, PayloadTooLargeError
from handbell.gateways.gateway import Message
from handbell.services.webpush.protocol import (
    AES128GCM,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    DECLARATIVE_MARK,
    MAX_PLAINTEXT_BYTES,
    MAX_TOPIC_CHARACTERS,
    MAX_TTL_SECONDS,
    OCTET_STREAM,
    TOPIC,
    TTL,
    URGENCY,
)

_ALERT: Final = "alert"
_DEFAULT_PRIORITY: Final = 10
# As on Apple's devices: 10, the default, is at once; 5 minds the battery; 1 does not wake a device.
_URGENCIES: Final = MappingProxyType({10: "high", 5: "normal", 1: "low"})
_QUIET: Final = "passive"
_WITHOUT_TEXT: Final = (
    "A browser shows each push, and revokes the permission of a page that sends others: give a "
    "`title` or a `body`"
)
_ONLY_APPLES: Final = ("event", "content_changed")
# What a browser has no place for, with the reason for the preview.
_NOT_SHOWN: Final = MappingProxyType(
    {
        "subtitle": "is not shown by browsers",
        "subtitle_loc_key": "is not shown by browsers",
        "title_loc_key": "is looked up in the files of an app, which a page has none of",
        "loc_key": "is looked up in the files of an app, which a page has none of",
        "sound": "is not played by browsers, which have a sound of their own",
        "color": "is Android's alone",
        "launch_image": "is Apple's alone",
        "thread_id": "groups nothing in browsers",
        "category": "has no buttons in browsers; `web.actions` has them",
        "content_available": "does not wake a page beside a text",
        "target_content_id": "is Apple's alone",
        "relevance_score": "is Apple's alone",
        "filter_criteria": "is Apple's alone",
        "payload": "is for Apple's devices; `web` is the same for browsers",
    }
)
_HATCH_FIELDS: Final = MappingProxyType(
    {"tag": "collapse_id", "image": "image_url", "navigate": "url"}
)
"""A member of ``web``, and the field of the notification that says the same."""
_URLS: Final = ("navigate", "icon", "badge", "image")


def compose(
    notification: Notification, *, app: App, now: float, notification_id: str = ""
) -> Message:
    """Return the message for every browser of one send; the client encrypts it for each.

    ``now`` (UNIX seconds) is when the notification was accepted: ``ttl`` counts from it. The header
    TTL is that of this moment; the client counts it anew from ``expires_at`` as it sends.
    ``notification_id`` is the member ``handbell`` of the data, for receipts, and the ``tag`` where
    there is no collapse id: a repeat replaces what it repeats. A tap opens ``url``, or else the
    app's web origin. Raises :class:`~handbell.errors.NotForServiceError` for what shows no text,
    :class:`~handbell.errors.PayloadTooLargeError` above 3,993 bytes, and
    :class:`~handbell.errors.NotificationError` for fields that contradict each other.
    """
    _check_kind(notification)
    expires_at = _expiry(notification, now)
    payload = to_json(_declared(notification, app, notification_id))
    if len(payload) > MAX_PLAINTEXT_BYTES:
        raise _too_large(notification, len(payload))
    priority = notification.priority or _DEFAULT_PRIORITY
    headers = [
        (TTL, str(seconds_to_live(expires_at, now))),
        (URGENCY, _URGENCIES[priority]),
        (CONTENT_ENCODING, AES128GCM),
        (CONTENT_TYPE, OCTET_STREAM),
    ]
    if notification.collapse_id is not None:
        headers.append((TOPIC, topic_of(notification.collapse_id)))
    return Message(
        payload=payload,
        headers=tuple(headers),
        topic="",
        push_type=_ALERT,
        priority=priority,
        collapse_id=notification.collapse_id,
        expires_at=expires_at,
    )


def unsupported(notification: Notification) -> list[str]:
    """Return a sentence for each field that is set and does nothing in browsers."""
    told = [f"`{name}` {_NOT_SHOWN[name]}." for name in notification.given(_NOT_SHOWN)]
    if notification.interruption_level not in (None, _QUIET, "active"):
        told.append("`interruption_level` does nothing in browsers, but for `passive`.")
    return told


@lru_cache(maxsize=1000)
def topic_of(collapse_id: str) -> str:
    """Return the Topic for a collapse id: 32 characters that stand for any text, by SHA-256."""
    digest = sha256(collapse_id.encode()).digest()
    return urlsafe_b64encode(digest).decode("ascii")[:MAX_TOPIC_CHARACTERS]


def seconds_to_live(expires_at: int | None, now: float) -> int:
    """Return the TTL of a message; 0 stands for now or never."""
    if expires_at is None:
        return MAX_TTL_SECONDS
    return max(0, min(MAX_TTL_SECONDS, int(expires_at - now)))


def _check_kind(notification: Notification) -> None:
    kind = notification.push_type
    if kind not in (None, _ALERT):
        raise NotForServiceError(
            f"A push of the type {kind} is not for browsers", fix=_WITHOUT_TEXT
        )
    for name in notification.given(_ONLY_APPLES):
        raise NotForServiceError(f"`{name}` is for Apple's devices alone", fix=_WITHOUT_TEXT)
    if notification.title is None and notification.body is None:
        raise NotForServiceError("There is no text that a browser could show", fix=_WITHOUT_TEXT)


def _expiry(notification: Notification, now: float) -> int | None:
    expires_at = notification.expiry(now)
    if expires_at and expires_at <= now:
        raise NotificationError(
            f"`expires_at` was {count(int(now - expires_at), 'second')} ago",
            fix="Give an instant to come, or 0 for one attempt without storage",
        )
    return expires_at


def _declared(notification: Notification, app: App, notification_id: str) -> dict[str, Any]:
    shown = _shown(notification, app, notification_id)
    message: dict[str, Any] = {}
    if "navigate" in shown:
        # Without an address to open it is no declarative message, and for a service worker alone.
        message["web_push"] = DECLARATIVE_MARK
    message["notification"] = shown
    if notification.badge is not None:
        message["app_badge"] = notification.badge
    is_mutable = (notification.web or {}).get("mutable", notification.mutable_content)
    if is_mutable:
        message["mutable"] = True
    return message


def _shown(notification: Notification, app: App, notification_id: str) -> dict[str, Any]:
    """Return the members of the notification itself, those of ``web`` last."""
    is_quiet = notification.interruption_level == _QUIET
    # As on Apple's devices: what replaces another one is announced like it.
    is_announced = notification.collapse_id is not None and not is_quiet
    members = {
        "title": notification.title or app.name,
        "body": notification.body,
        "navigate": _target(notification.url, app.web_origin),
        "tag": notification.collapse_id or notification_id or None,
        "silent": is_quiet or None,
        "renotify": is_announced or None,
        "image": notification.image_url,
    }
    shown: dict[str, Any] = {name: value for name, value in members.items() if value is not None}
    for name, value in (notification.web or {}).items():
        if name != "mutable":
            _check_hatch(notification, name, value)
            shown[name] = value
    if shown.get("silent") and "vibrate" in shown:
        raise NotificationError(
            "It is to be silent, and `web.vibrate` is given: no browser shows such a notification",
            fix="Keep one of the two; `interruption_level` passive is silent as well",
        )
    if data := _data(notification, notification_id):
        shown["data"] = data
    for place, name in _addresses(shown):
        place[name] = _absolute(place[name], app.web_origin)
    return shown


def _target(url: str | None, origin: str | None) -> str | None:
    """Return what a tap opens: a web address; that of the app where the field is another link."""
    if url is not None and (url.startswith("/") or urlsplit(url).scheme in ("https", "http")):
        return _absolute(url, origin)
    return origin and f"{origin}/"


def _absolute(url: str, origin: str | None) -> str:
    is_path = url.startswith("/") and not url.startswith("//")
    return f"{origin}{url}" if is_path and origin else url


def _addresses(shown: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each place of a web address."""
    yield from ((shown, name) for name in _URLS if name in shown)
    if "actions" in shown:
        shown["actions"] = [dict(action) for action in shown["actions"]]
        for action in shown["actions"]:
            yield from ((action, name) for name in _URLS if name in action)


def _check_hatch(notification: Notification, name: str, value: Any) -> None:
    field = _HATCH_FIELDS.get(name)
    said = None if field is None else getattr(notification, field)
    if said is not None and said != value:
        raise NotificationError(
            f"`web.{name}` and `{field}` differ, and both go to one place",
            fix="Keep one of them",
        )


def _data(notification: Notification, notification_id: str) -> Mapping[str, Any]:
    data = dict(notification.user_info)
    if notification.url is not None:
        data["url"] = notification.url
    if notification_id:
        data[RESERVED_MEMBER] = notification_id
    return data


def _too_large(notification: Notification, size: int) -> PayloadTooLargeError:
    field, taken = _largest(notification)
    over = size - MAX_PLAINTEXT_BYTES
    return PayloadTooLargeError(
        f"The message is {size:,} bytes, {over:,} more than the {MAX_PLAINTEXT_BYTES:,} that push "
        "services take",
        fix=f"Shorten `{field}`, the largest field with {taken:,} bytes",
        size=size,
        limit=MAX_PLAINTEXT_BYTES,
    )


def _largest(notification: Notification) -> tuple[str, int]:
    given = {
        name: value for name, value in notification.to_dict().items() if name not in _NOT_SHOWN
    }
    given.pop("languages", None)
    for name in ("user_info", "web"):
        members = given.pop(name, {})
        given.update({f"{name}.{key}": value for key, value in members.items()})
    sizes = {name: len(to_json(value)) for name, value in given.items()}
    return max(sizes.items(), key=lambda item: item[1])
