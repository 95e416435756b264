"""Compose a notification into FCM's message, or raise a clear error.

What FCM would refuse or silently replace is refused here, before anything is sent. Sources:
https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages ,
https://firebase.google.com/docs/cloud-messaging/concept-options .
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from pydantic_core import to_json

from handbell._text import count
from handbell.apps.app import App
from handbell.creation.notification import RESERVED_MEMBER, Notification
from handbell.errors import NotForServiceError, NotificationError, PayloadTooLargeError
from handbell.gateways.gateway import Message
from handbell.services.fcm.protocol import (
    MAX_PAYLOAD_BYTES,
    MAX_TTL_SECONDS,
    OVERRIDDEN_DATA_KEY,
    RESERVED_DATA_KEYS,
    RESERVED_DATA_PREFIXES,
)

HEADERS: Final = (("content-type", "application/json"),)
TTL_HEAD: Final = b'{"android":{"ttl":"'
"""How the payload of a notification with an expiry begins; the seconds follow, then ``s``."""

_ALERT: Final = "alert"
_BACKGROUND: Final = "background"
_HIGH: Final = 10
_PRIORITIES: Final = MappingProxyType({10: "high", 5: "normal", 1: "normal"})
# A key of the app's strings on Android; others are keys of Apple's files only.
_RESOURCE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SOUND_FILE: Final = re.compile(r"(.+)\.(?:caf|aiff?|wav|mp3|ogg|m4a)", re.IGNORECASE)

# What Android has no place for, with the reason for the preview.
_NOT_SHOWN: Final = MappingProxyType(
    {
        "subtitle": "is not shown on Android",
        "subtitle_loc_key": "is not shown on Android",
        "subtitle_loc_args": "are not shown on Android",
        "launch_image": "is Apple's alone",
        "target_content_id": "is Apple's alone",
        "interruption_level": "is Apple's alone; on Android the channel decides",
        "relevance_score": "is Apple's alone",
        "filter_criteria": "is Apple's alone",
        "mutable_content": "is Apple's alone",
        "payload": "is for Apple's devices; `android` is the same for Android",
    }
)
_KEYS: Final = ("title_loc_key", "loc_key")
_ONLY_APPLES: Final = ("event", "content_changed")


def compose(
    notification: Notification,
    *,
    app: App,  # noqa: ARG001 - a token is for one app, which FCM knows by it
    now: float,
    notification_id: str = "",
) -> Message:
    """Return the message for every device of one send; its target is added when it is sent.

    ``now`` (UNIX seconds) is when the notification was accepted: ``ttl`` counts from it.
    ``notification_id`` is the member ``handbell`` of the data, for receipts, and the ``tag`` where
    there is no collapse id: a repeat replaces what it repeats. What shows nothing is sent as data
    alone, which wakes the app. Members of ``android`` come last: they replace what was derived, and
    must not contradict a field.

    The limit of 4,096 bytes is FCM's, of keys and values. Counted here is the whole message as
    JSON in UTF-8 without its target, which is never less than that, so that nothing passes that
    FCM refuses. Raises :class:`~handbell.errors.PayloadTooLargeError` above it,
    :class:`~handbell.errors.NotForServiceError` for what only Apple's devices take, and
    :class:`~handbell.errors.NotificationError` for fields that FCM would refuse.
    """
    is_shown = _is_shown(notification)
    data = _data(notification, notification_id)
    _check_kind(notification, is_shown=is_shown)
    expires_at = _expiry(notification, now)
    android: dict[str, Any] = {}
    if expires_at is not None:
        left = min(expires_at - int(now), MAX_TTL_SECONDS) if expires_at else 0
        android["ttl"] = f"{left}s"
    if notification.priority is not None:
        android["priority"] = _PRIORITIES[notification.priority]
    if notification.collapse_id is not None:
        android["collapse_key"] = notification.collapse_id
    shown = _android_notification(notification, notification_id) if is_shown else {}
    _add_hatch(android, shown, notification, is_shown=is_shown)
    if shown:
        android["notification"] = shown
    message = {"android": android, "notification": _texts(notification) if is_shown else {}}
    payload = to_json({name: value for name, value in {**message, "data": data}.items() if value})
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise too_large(len(payload), *_largest(notification))
    return Message(
        payload=payload,
        headers=HEADERS,
        topic="",
        push_type=_ALERT if is_shown else _BACKGROUND,
        priority=notification.priority or (_HIGH if is_shown else 5),
        collapse_id=notification.collapse_id,
        expires_at=expires_at,
    )


def unsupported(notification: Notification) -> list[str]:
    """Return a sentence for each field that is set and does nothing on Android."""
    told = [f"`{name}` {_NOT_SHOWN[name]}." for name in notification.given(_NOT_SHOWN)]
    told += [
        f"`{name}` is no name of a string resource of Android, and is left out."
        for name, key in notification.given(_KEYS).items()
        if not _has_key(key)
    ]
    is_shown = _is_shown(notification)
    if is_shown and notification.content_available:
        told.append("`content_available` does not wake the app on Android beside a text.")
    if not is_shown:
        told += [
            f"`{name}` does nothing on Android without a text to show."
            for name in notification.given(("badge", "sound"))
        ]
    elif notification.sound is not None and not isinstance(notification.sound, str):
        told.append(
            "`sound` is not played over silence on Android, as a critical alert of Apple's."
        )
    return told


def _is_shown(notification: Notification) -> bool:
    """Return whether the system shows something: a text, or what ``android`` brings for it."""
    if notification.silent or notification.push_type == _BACKGROUND:
        return False
    if notification.title is not None or notification.body is not None:
        return True
    if any(map(_has_key, notification.given(_KEYS).values())):
        return True
    hatch = _hatch_notification(notification)
    return any(name in hatch for name in ("title", "body", "title_loc_key", "body_loc_key"))


def _check_kind(notification: Notification, *, is_shown: bool) -> None:
    kind = notification.push_type
    if kind not in (None, _ALERT, _BACKGROUND):
        raise NotForServiceError(
            f"A push of the type {kind} is for Apple's devices alone",
            fix="Send Android a notification of its own, with a `title` or a `body`",
        )
    for name in notification.given(_ONLY_APPLES):
        raise NotForServiceError(
            f"`{name}` is for Apple's devices alone",
            fix="Send Android a notification of its own, with a `title` or a `body`",
        )
    if is_shown:
        return
    if notification.image_url is not None:
        raise NotificationError(
            "`image_url` does nothing without a text to show", fix="Give a `title` or a `body`"
        )
    has_task = notification.silent or notification.content_available or kind == _BACKGROUND
    if not has_task and not notification.user_info and notification.url is None:
        raise NotForServiceError(
            "There is nothing in it that Android shows or an app could use",
            fix="Give a `title` or a `body`, or `user_info` for the app",
        )


def _expiry(notification: Notification, now: float) -> int | None:
    expires_at = notification.expiry(now)
    if expires_at and expires_at <= now:
        raise NotificationError(
            f"`expires_at` was {count(int(now - expires_at), 'second')} ago",
            fix="Give an instant to come, or 0 for one attempt without storage",
        )
    return expires_at


def _texts(notification: Notification) -> dict[str, Any]:
    """Return what every system of FCM's shows.

    A text wins over a key on Android, so it is left out where the key is meant to replace it.
    """
    texts = {
        "title": None if _has_key(notification.title_loc_key) else notification.title,
        "body": None if _has_key(notification.loc_key) else notification.body,
        "image": notification.image_url,
    }
    return {name: value for name, value in texts.items() if value is not None}


def _has_key(key: str | None) -> bool:
    return key is not None and _RESOURCE.fullmatch(key) is not None


def _android_notification(notification: Notification, notification_id: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if notification.sound is not None:
        given["sound"] = _sound(notification)
    if notification.color is not None:
        given["color"] = notification.color
    if tag := notification.collapse_id or notification_id:
        given["tag"] = tag
    if notification.badge is not None:
        given["notification_count"] = notification.badge
    for ours, theirs in (("title_loc", "title_loc"), ("loc", "body_loc")):
        key = getattr(notification, f"{ours}_key")
        if _has_key(key):
            given[f"{theirs}_key"] = key
            if args := getattr(notification, f"{ours}_args"):
                given[f"{theirs}_args"] = list(args)
    return given


def _sound(notification: Notification) -> str:
    """Return the name of a sound as a resource of Android: without the ending of Apple's file."""
    sound = notification.sound
    name = sound if isinstance(sound, str) else getattr(sound, "name", "default")
    found = _SOUND_FILE.fullmatch(name)
    return found[1] if found else name


def _hatch_notification(notification: Notification) -> Mapping[str, Any]:
    hatch: Mapping[str, Any] = (notification.android or {}).get("notification", {})
    return hatch


# A member of `android`, and the field of the notification that says the same.
_EXPLICIT: Final = MappingProxyType({"priority": "priority", "collapse_key": "collapse_id"})
_EXPLICIT_SHOWN: Final = MappingProxyType(
    {
        "sound": "sound",
        "color": "color",
        "tag": "collapse_id",
        "notification_count": "badge",
        "title_loc_key": "title_loc_key",
        "title_loc_args": "title_loc_args",
        "body_loc_key": "loc_key",
        "body_loc_args": "loc_args",
    }
)


def _add_hatch(
    android: dict[str, Any], shown: dict[str, Any], notification: Notification, *, is_shown: bool
) -> None:
    """Add the members of ``android``; none may contradict a field."""
    hatch = notification.android
    if hatch is None:
        return
    outer = {name: value for name, value in hatch.items() if name != "notification"}
    _add_members(android, outer, _EXPLICIT, "android", notification)
    inner = hatch.get("notification", {})
    if inner and not is_shown:
        raise NotificationError(
            "`android.notification` is given, and there is nothing to show",
            fix="Give a `title` or a `body`, or leave it out",
        )
    _add_members(shown, inner, _EXPLICIT_SHOWN, "android.notification", notification)


def _add_members(
    members: dict[str, Any],
    given: Mapping[str, Any],
    explicit: Mapping[str, str],
    where: str,
    notification: Notification,
) -> None:
    for name, value in given.items():
        field = explicit.get(name, "")
        is_set = bool(field) and field in notification.__dict__ and name in members
        if is_set and members[name] != value:
            raise NotificationError(
                f"`{where}.{name}` and `{field}` differ, and both go to one place",
                fix="Keep one of them",
            )
        members[name] = value


def _data(notification: Notification, notification_id: str) -> dict[str, str]:
    """Return the data, texts alone, as FCM takes them; any other value becomes its JSON."""
    data = {key: _data_text(value) for key, value in notification.user_info.items()}
    for key in data:
        _check_data_key(key)
    for name in ("url", "category", "thread_id"):
        value = getattr(notification, name)
        if value is None:
            continue
        if data.get(name, value) != value:
            raise NotificationError(
                f"`{name}` and `user_info.{name}` differ, and both go to one place in the data",
                fix="Keep one of them",
            )
        data[name] = value
    if notification_id:
        data[RESERVED_MEMBER] = notification_id
    return data


def _check_data_key(key: str) -> None:
    if key in RESERVED_DATA_KEYS or key.startswith(RESERVED_DATA_PREFIXES):
        raise NotificationError(
            f"`user_info` holds `{key}`, a key that FCM keeps for itself",
            fix="Choose another key; not `from`, `gcm`, `message_type`, `notification`, nor one "
            "that begins with `google` or `gcm.`",
        )
    if key == OVERRIDDEN_DATA_KEY:
        raise NotificationError(
            f"`user_info` holds `{key}`, whose value FCM replaces by its own",
            fix="Choose another key, or use the field `collapse_id`",
        )


def _data_text(value: Any) -> str:
    return value if isinstance(value, str) else to_json(value).decode()


def too_large(size: int, field: str, taken: int) -> PayloadTooLargeError:
    """Return the error for a message of ``size`` bytes, whose largest field takes ``taken``."""
    return PayloadTooLargeError(
        f"The message is {size:,} bytes, {size - MAX_PAYLOAD_BYTES:,} more than the "
        f"{MAX_PAYLOAD_BYTES:,} that FCM takes",
        fix=f"Shorten `{field}`, the largest field with {taken:,} bytes",
        size=size,
        limit=MAX_PAYLOAD_BYTES,
    )


def _largest(notification: Notification) -> tuple[str, int]:
    given = {
        name: value for name, value in notification.to_dict().items() if name not in _NOT_SHOWN
    }
    given.pop("languages", None)
    members = given.pop("user_info", {})
    given.update({f"user_info.{key}": value for key, value in members.items()})
    sizes = {name: len(to_json(value)) for name, value in given.items()}
    return max(sizes.items(), key=lambda item: item[1])
