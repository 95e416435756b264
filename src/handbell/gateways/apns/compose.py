"""Compose a notification into APNs' payload and headers, or raise a clear error.

What Apple would refuse, delay or silently drop is refused here, before anything is sent. Sources:
generating-a-remote-notification and sending-notification-requests-to-apns; for Live Activities
starting-and-updating-live-activities-with-activitykit-push-notifications.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from pydantic_core import to_json

from handbell._text import count
from handbell.apps.app import App
from handbell.creation.notification import RESERVED_MEMBER, Notification
from handbell.errors import NotificationError, PayloadTooLargeError
from handbell.gateways.gateway import Message
from handbell.services.apns.protocol import (
    APNS_COLLAPSE_ID,
    APNS_EXPIRATION,
    APNS_PRIORITY,
    APNS_PUSH_TYPE,
    APNS_TOPIC,
    DEFAULT_PRIORITY,
    PushType,
)

from .push_type import ALERT, LIVE_ACTIVITY, checked_push_type

_APS = (
    "badge",
    "thread_id",
    "category",
    "target_content_id",
    "interruption_level",
    "relevance_score",
    "filter_criteria",
)


def _kebab(names: Iterable[str]) -> Callable[[tuple[str, ...]], Sequence[tuple[str, str]]]:
    """Return a function that selects these fields among given ones, with Apple's names."""
    kebab = {name: name.replace("_", "-") for name in names}

    # Senders set the same few fields, thousands of times a second.
    @lru_cache(maxsize=1000)
    def find(given: tuple[str, ...]) -> Sequence[tuple[str, str]]:
        return tuple((ours, theirs) for ours, theirs in kebab.items() if ours in given)

    return find


_ALERT_NAMES: Final = _kebab(ALERT)
_APS_NAMES: Final = _kebab(_APS)
_LIVE_ACTIVITY_NAMES: Final = _kebab((*LIVE_ACTIVITY, *_APS))
_RAW_SHOWN = frozenset({"alert", "badge", "sound"})


def compose(
    notification: Notification, *, app: App, now: float, notification_id: str = ""
) -> Message:
    """Return the message for every device of one send.

    ``now`` (UNIX seconds) is when the notification was accepted: ``ttl`` counts from it. The
    expiry 0 stands for one attempt and no storage. ``notification_id`` is added next to ``aps`` as
    ``handbell``: a device does not get its apns-id and refers to the notification by this in
    receipts. Raises :class:`~handbell.errors.NotificationError` when two fields contradict each
    other or a value is not one of Apple's, and :class:`~handbell.errors.PayloadTooLargeError` when
    the payload is over the push type's limit.
    """
    content = content_of(notification, now=now, notification_id=notification_id)
    kind = content.kind
    payload = to_json(content.payload)
    if len(payload) > kind.max_payload_bytes:
        raise _too_large(notification, kind, len(payload))
    topic = app.apple.bundle_id + kind.topic_suffix
    headers = headers_of(content, notification.collapse_id)
    return Message(
        payload=payload,
        headers=((APNS_TOPIC, topic), *headers, ("content-type", "application/json")),
        topic=topic,
        push_type=kind.name,
        priority=content.priority,
        collapse_id=notification.collapse_id,
        expires_at=content.expires_at,
    )


class Content(NamedTuple):
    """What goes to one of Apple's devices, whichever way it takes; ``payload`` is not measured."""

    kind: PushType
    priority: int
    expires_at: int | None
    payload: dict[str, Any]


def content_of(notification: Notification, *, now: float, notification_id: str) -> Content:
    """Return a notification as Apple's devices take it, checked but for its size.

    The arguments and the NotificationError are those of :func:`compose`.
    """
    kind = checked_push_type(notification)
    priority = _priority(notification, kind)
    expires_at = _expiry(notification, now)
    payload = _payload(notification, kind, now)
    if notification_id:
        payload[RESERVED_MEMBER] = notification_id
    return Content(kind, priority, expires_at, payload)


def unsupported(_: Notification) -> list[str]:
    """Return nothing: each field of a notification is sent to Apple, or refused."""
    return []


def headers_of(content: Content, collapse_id: str | None) -> list[tuple[str, str]]:
    """Return the headers of Apple's that follow from a notification, without the topic."""
    headers = [(APNS_PUSH_TYPE, content.kind.name)]
    if content.priority != DEFAULT_PRIORITY:
        headers.append((APNS_PRIORITY, str(content.priority)))
    if content.expires_at is not None:
        headers.append((APNS_EXPIRATION, str(content.expires_at)))
    if collapse_id is not None:
        headers.append((APNS_COLLAPSE_ID, collapse_id))
    return headers


def _priority(notification: Notification, kind: PushType) -> int:
    priority = notification.priority
    if priority is None:
        return kind.default_priority
    if priority not in kind.priorities:
        allowed = " or ".join(str(known) for known in kind.priorities)
        raise NotificationError(
            f"`priority` is {priority}, which the push type {kind.name} does not allow",
            fix=f"It must be {allowed}",
        )
    return priority


def _expiry(notification: Notification, now: float) -> int | None:
    expires_at = notification.expiry(now)
    if expires_at and expires_at <= now:
        raise NotificationError(
            f"`expires_at` was {count(int(now - expires_at), 'second')} ago",
            fix="Give an instant to come, or 0 for one attempt without storage",
        )
    return expires_at


def _payload(notification: Notification, kind: PushType, now: float) -> dict[str, Any]:
    if kind.name == "liveactivity":
        aps = _live_activity_aps(notification, now)
    else:
        aps = _aps(notification, kind)
    payload = {"aps": aps, **notification.user_info}
    if notification.url is not None:
        # Inside ``aps`` for the 4D app, which reads it there; outside, where Apple wants custom
        # keys.
        aps["url"] = payload["url"] = notification.url
    if notification.image_url is not None:
        payload["data"] = {"media-url": notification.image_url}
    if notification.payload is not None:
        _add_raw(payload, notification.payload, kind)
    return payload


def _add_raw(payload: dict[str, Any], raw: Mapping[str, Any], kind: PushType) -> None:
    """Add custom members; none may contradict the fields."""
    inside = raw.get("aps", {})
    if kind.name == "background" and (shown := sorted(inside.keys() & _RAW_SHOWN)):
        raise NotificationError(
            f"`payload.aps.{shown[0]}` cannot be sent with the push type background",
            fix="A background notification shows and plays nothing; leave `push_type` out",
        )
    _add_members(payload["aps"], inside, "payload.aps")
    _add_members(payload, {key: raw[key] for key in raw if key != "aps"}, "payload")


def _add_members(members: dict[str, Any], raw: Mapping[str, Any], where: str) -> None:
    for key, value in raw.items():
        if key in members and members[key] != value:
            raise NotificationError(
                f"`{where}.{key}` and another field of the notification differ, "
                "and both go to one place",
                fix="Keep one of them",
            )
        members[key] = value


def _aps(notification: Notification, kind: PushType) -> dict[str, Any]:
    aps: dict[str, Any] = {}
    if alert := _renamed(notification, _ALERT_NAMES):
        aps["alert"] = alert
    aps.update(_renamed(notification, _APS_NAMES))
    if notification.sound is not None:
        aps["sound"] = _sound(notification)
    if notification.content_available or kind.name == "background":
        aps["content-available"] = 1
    if notification.mutable_content or notification.image_url is not None:
        aps["mutable-content"] = 1
    if kind.name in ("controls", "widgets"):
        aps["content-changed"] = True
    return aps


def _sound(notification: Notification) -> str | dict[str, Any] | None:
    sound = notification.sound
    return sound if sound is None or isinstance(sound, str) else sound.to_dict()


def _live_activity_aps(notification: Notification, now: float) -> dict[str, Any]:
    aps: dict[str, Any] = {"timestamp": int(now)}
    aps.update(_renamed(notification, _LIVE_ACTIVITY_NAMES))
    if "input-push-token" in aps:
        aps["input-push-token"] = 1
    if notification.has_alert:
        aps["alert"] = _live_activity_alert(notification)
    return aps


def _live_activity_alert(notification: Notification) -> dict[str, Any]:
    alert = {
        "title": _localised(
            notification.title, notification.title_loc_key, notification.title_loc_args
        ),
        "body": _localised(notification.body, notification.loc_key, notification.loc_args),
        "sound": notification.sound,
    }
    return {name: value for name, value in alert.items() if value is not None}


def _localised(text: str | None, key: str | None, args: tuple[str, ...]) -> Any:
    if key is None:
        return text
    return {"loc-key": key, "loc-args": list(args)} if args else {"loc-key": key}


def _renamed(
    notification: Notification, find: Callable[[tuple[str, ...]], Sequence[tuple[str, str]]]
) -> dict[str, Any]:
    """Return the fields that are set, under Apple's names, in order."""
    given = notification.__dict__
    return {theirs: given[ours] for ours, theirs in find(tuple(given))}


def _too_large(notification: Notification, kind: PushType, size: int) -> PayloadTooLargeError:
    limit = kind.max_payload_bytes
    field, taken = largest(notification)
    return PayloadTooLargeError(
        f"The payload is {size:,} bytes, {size - limit:,} more than the {limit:,} that Apple takes",
        fix=f"Shorten `{field}`, the largest field with {taken:,} bytes",
        size=size,
        limit=limit,
    )


def largest(notification: Notification) -> tuple[str, int]:
    """Return the largest field of a notification, or member of one, and its bytes as JSON."""
    given = notification.to_dict()
    for name in ("user_info", "content_state", "attributes", "payload"):
        members = given.pop(name, {})
        given.update({f"{name}.{key}": value for key, value in members.items()})
    sizes = {name: len(to_json(value)) for name, value in given.items()}
    return max(sizes.items(), key=lambda item: item[1])
