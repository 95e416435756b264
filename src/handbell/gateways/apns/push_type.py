"""Which push type a notification is of, and what Apple takes with it.

Apple refuses or silently drops what does not fit a push type; it is refused here, before anything
is sent. Sources: sending-notification-requests-to-apns; for Live Activities
starting-and-updating-live-activities-with-activitykit-push-notifications.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from handbell._text import nearest
from handbell.creation.notification import Notification, has_any
from handbell.errors import NotificationError
from handbell.services.apns.protocol import (
    INTERRUPTION_LEVELS,
    MAX_COLLAPSE_ID_BYTES,
    PUSH_TYPES,
    PushType,
)

LIVE_ACTIVITY_EVENTS: Final = ("start", "update", "end")

ALERT: Final = (
    "title",
    "subtitle",
    "body",
    "launch_image",
    "title_loc_key",
    "title_loc_args",
    "subtitle_loc_key",
    "subtitle_loc_args",
    "loc_key",
    "loc_args",
)
_START_ONLY: Final = ("attributes_type", "attributes", "input_push_token", "input_push_channel")
LIVE_ACTIVITY: Final = (
    "event",
    "timestamp",
    "content_state",
    "stale_date",
    "dismissal_date",
    *_START_ONLY,
)
_SHOWN = (*ALERT, "badge", "sound", "mutable_content", "image_url", "interruption_level")
_WAKING = ("content_available", "silent")
_CONTROLS = (*_SHOWN, *_WAKING, *LIVE_ACTIVITY)

# Fields that each type may not have: Apple would refuse or drop them.
_FORBIDDEN: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "alert": ("silent", "content_changed", *LIVE_ACTIVITY),
        "background": (*_SHOWN, "content_changed", *LIVE_ACTIVITY),
        "location": (*_SHOWN, *_WAKING, "content_changed", *LIVE_ACTIVITY),
        "liveactivity": (
            "subtitle",
            "subtitle_loc_key",
            "launch_image",
            "badge",
            "mutable_content",
            "image_url",
            "content_changed",
            *_WAKING,
        ),
        "controls": _CONTROLS,
        "widgets": _CONTROLS,
    }
)
_FORBIDDEN_ELSEWHERE = ("silent", "content_changed", *LIVE_ACTIVITY)
# Sets, for a fast check that no such field is given.
_FORBIDDEN_SETS: Final = MappingProxyType(
    {name: frozenset(forbidden) for name, forbidden in _FORBIDDEN.items()}
)
_FORBIDDEN_ELSEWHERE_SET: Final = frozenset(_FORBIDDEN_ELSEWHERE)
_NEEDS_TEXT: Final = ("mutable_content", "image_url", "launch_image")


def checked_push_type(notification: Notification) -> PushType:
    """Return the push type of a notification: the one it names, or the one its fields make.

    Raises NotificationError for an unknown one, for fields that it may not have or has to have,
    and for values that Apple does not take.
    """
    kind = _push_type(notification)
    _refuse_forbidden(notification, kind)
    _check_kind(notification, kind)
    _check_values(notification, kind)
    return kind


def _push_type(notification: Notification) -> PushType:
    name = notification.push_type or _derived_push_type(notification)
    if name == "mdm":
        raise NotificationError(
            "The push type mdm is not supported: its topic comes from a certificate of its own",
            fix="Send to managed devices through your device management server",
        )
    if name not in PUSH_TYPES:
        raise _none_of("push_type", name, PUSH_TYPES)
    return PUSH_TYPES[name]


def _derived_push_type(notification: Notification) -> str:
    if notification.event is not None:
        return "liveactivity"
    if notification.content_changed:
        raise NotificationError(
            "`content_changed` does not say what has changed",
            fix="Set `push_type` to `widgets` or to `controls`",
        )
    return "alert" if notification.is_shown else "background"


def _refuse_forbidden(notification: Notification, kind: PushType) -> None:
    if not has_any(notification, _FORBIDDEN_SETS.get(kind.name, _FORBIDDEN_ELSEWHERE_SET)):
        return
    for name in notification.given(_FORBIDDEN.get(kind.name, _FORBIDDEN_ELSEWHERE)):
        raise NotificationError(
            f"`{name}` cannot be sent with the push type {kind.name}", fix=_advice(name, kind)
        )


def _advice(field: str, kind: PushType) -> str:
    if field in LIVE_ACTIVITY and kind.name != "liveactivity":
        return f"`{field}` is for Live Activities: set `event`, and leave `push_type` out"
    if field == "content_changed":
        return "Set `push_type` to `widgets` or to `controls`"
    if kind.name == "background":
        return "A background notification shows and plays nothing; leave `push_type` out to show it"
    return f"Leave `{field}` out, or choose another `push_type`"


def _check_kind(notification: Notification, kind: PushType) -> None:
    if kind.name == "alert":
        _check_alert(notification)
    if kind.name == "liveactivity":
        _check_live_activity(notification)


def _check_alert(notification: Notification) -> None:
    if not notification.is_shown:
        raise NotificationError(
            "The push type is alert, and there is nothing to show",
            fix="Give a `title`, a `body`, a `badge` or a `sound`",
        )
    if not notification.has_alert:
        for name in notification.given(_NEEDS_TEXT):
            raise NotificationError(
                f"`{name}` does nothing without a text to show", fix="Give a `title` or a `body`"
            )


def _check_live_activity(notification: Notification) -> None:
    event = notification.event
    if event is None:
        raise NotificationError(
            "The push type is liveactivity, and `event` is missing",
            fix="Set `event` to start, update or end",
        )
    if event not in LIVE_ACTIVITY_EVENTS:
        raise _none_of("event", event, LIVE_ACTIVITY_EVENTS)
    if event == "start":
        _check_start(notification)
    else:
        _refuse_start_only(notification, event)
    if notification.content_state is None:
        raise _missing("content_state", event)
    _check_live_activity_sound(notification)


def _check_start(notification: Notification) -> None:
    for name in ("attributes_type", "attributes"):
        if getattr(notification, name) is None:
            raise _missing(name, "start")
    if not notification.has_alert:
        raise _missing("title", "start")


def _refuse_start_only(notification: Notification, event: str) -> None:
    for name in notification.given(_START_ONLY):
        raise NotificationError(
            f"`{name}` belongs to the start of a Live Activity, and `event` is {event}",
            fix=f"Leave `{name}` out",
        )


def _check_live_activity_sound(notification: Notification) -> None:
    if notification.sound is None:
        return
    if not isinstance(notification.sound, str):
        raise NotificationError(
            "A Live Activity has no critical sound", fix="Give the name of a sound as text"
        )
    if not notification.has_alert:
        raise NotificationError(
            "The `sound` of a Live Activity belongs to its alert, and there is none",
            fix="Give a `title` and a `body`",
        )


def _check_values(notification: Notification, kind: PushType) -> None:
    level = notification.interruption_level
    if level is not None and level not in INTERRUPTION_LEVELS:
        raise _none_of("interruption_level", level, INTERRUPTION_LEVELS)
    score = notification.relevance_score
    if score is not None and kind.name != "liveactivity" and not 0 <= score <= 1:
        raise NotificationError(
            f"`relevance_score` is {score}",
            fix="It must be between 0 and 1 outside Live Activities",
        )
    if notification.collapse_id is not None:
        _check_collapse_id(notification.collapse_id)


def _check_collapse_id(collapse_id: str) -> None:
    size = len(collapse_id.encode())
    if size > MAX_COLLAPSE_ID_BYTES:
        raise NotificationError(
            f"`collapse_id` is {size:,} bytes long",
            fix=f"Apple takes {MAX_COLLAPSE_ID_BYTES} bytes in UTF-8",
        )
    if not collapse_id.isprintable() or collapse_id != collapse_id.strip():
        raise NotificationError(
            f"`collapse_id` is {collapse_id!r}, which no header can carry",
            fix="Leave out control characters, and blanks at its ends",
        )


def _missing(field: str, event: str) -> NotificationError:
    return NotificationError(
        f"`event` is {event}, and `{field}` is missing", fix=f"A Live Activity's {event} needs it"
    )


def _none_of(field: str, value: str, known: Iterable[str]) -> NotificationError:
    names = tuple(known)
    near = nearest(value[:80], names)
    hint = f"Did you mean {near}?" if near else f"It must be one of {', '.join(names)}"
    return NotificationError(f"`{field}` is {value[:80]!r}", fix=hint)
