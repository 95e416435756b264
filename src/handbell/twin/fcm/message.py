"""A posted message: parsed and checked as FCM publishes its form. Pure.

Source: https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages . Members may be
written in snake case or in camel case, as JSON of protocol buffers. An unknown member, or a value
of another type, is refused by the layer in front of FCM, which names no code of FCM's.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from handbell.services.fcm.protocol import (
    ANALYTICS_LABEL,
    ANDROID,
    ANDROID_NOTIFICATION,
    COLOR,
    DURATION,
    ENUMS,
    MAX_TTL_SECONDS,
    NOTIFICATION,
    RESERVED_DATA_KEYS,
    RESERVED_DATA_PREFIXES,
    TARGETS,
    Kind,
)

from .responses import FcmRefusal

_OPTIONS: Final = MappingProxyType({"analytics_label": Kind.LABEL})
_MESSAGE: Final = MappingProxyType(
    {
        "name": Kind.TEXT,
        "data": Kind.TEXT_MAPPING,
        "notification": NOTIFICATION,
        "android": ANDROID,
        "webpush": {
            "headers": Kind.TEXT_MAPPING,
            "data": Kind.TEXT_MAPPING,
            "notification": None,
            "fcm_options": {**_OPTIONS, "link": Kind.TEXT},
        },
        "apns": {
            "headers": Kind.TEXT_MAPPING,
            "payload": None,
            "fcm_options": {**_OPTIONS, "image": Kind.TEXT},
            "live_activity_token": Kind.TEXT,
        },
        "fcm_options": _OPTIONS,
        **dict.fromkeys(TARGETS, Kind.TEXT),
    }
)
_LIGHT: Final = MappingProxyType(
    {
        "color": None,
        "light_on_duration": Kind.DURATION,
        "light_off_duration": Kind.DURATION,
    }
)
_BODY: Final = MappingProxyType({"message": _MESSAGE, "validate_only": Kind.FLAG})
_NESTED: Final = MappingProxyType(
    {Kind.NOTIFICATION: ANDROID_NOTIFICATION, Kind.OPTIONS: _OPTIONS, Kind.LIGHT: _LIGHT}
)
_HUMP: Final = re.compile(r"(?<=[a-z0-9])[A-Z]")
_TOPIC: Final = re.compile(r"[a-zA-Z0-9\-_.~%]+")
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
_PRIORITIES: Final = frozenset(
    {*ENUMS[Kind.PRIORITY], *(name.upper() for name in ENUMS[Kind.PRIORITY])}
)
_INT32: Final = 2**31

Message = Mapping[str, Any]


class RefusalError(Exception):
    """The refusal of a message."""

    def __init__(self, refused: FcmRefusal) -> None:
        super().__init__(refused.code)
        self.refused = refused


def read_body(body: bytes) -> Mapping[str, Any]:
    """Return the posted object with names in snake case; raises RefusalError as FCM refuses it."""
    try:
        posted = json.loads(body)
    except (ValueError, RecursionError):
        raise _front("Invalid JSON payload received. Unexpected token.", "") from None
    if not isinstance(posted, dict):
        text = 'Invalid JSON payload received. Unknown name "": Root element must be a message.'
        raise _front(text, "")
    read = _object(posted, _BODY, "")
    message = read.get("message")
    if message is None:
        raise _argument("message", "Message is missing.", message="Request contains no message.")
    return read


def check_message(message: Message) -> None:
    """Refuse a message whose values FCM does not allow; raises RefusalError."""
    targets = [name for name in TARGETS if message.get(name)]
    if not targets:
        text = "Recipient of the message is not set."
        raise _argument("message", text, message=text)
    if len(targets) > 1:
        text = f"oneof field 'target' is already set. Cannot set '{targets[1]}'"
        raise _front(f"Invalid value at 'message' (oneof), {text}", "message")
    topic = message.get("topic", "")
    if topic and not _TOPIC.fullmatch(topic.removeprefix("/topics/")):
        raise _argument("message.topic", "Invalid topic name")
    android = message.get("android", {})
    for path, data in (("message.data", message), ("message.android.data", android)):
        _check_data(path, data.get("data", {}))
    _check_ttl(android.get("ttl"))
    _check_shown(android.get("notification", {}))
    _check_labels(message)
    link = message.get("webpush", {}).get("fcm_options", {}).get("link", "")
    if link and not link.startswith("https://"):
        raise _argument("message.webpush.fcm_options.link", "The link has to be an HTTPS address")


def size_of(message: Message) -> int:
    """Return the bytes of keys and values that go to an Android device.

    Data of ``android`` stands in place of the message's, texts of ``android.notification`` in
    place of those of ``notification``. How FCM counts exactly is not published; our choice.
    """
    return sum(
        len(str(key).encode("utf-8", "surrogatepass"))
        + len((value if isinstance(value, str) else json.dumps(value)).encode("utf-8", "replace"))
        for key, value in (*data_of(message).items(), *notification_of(message).items())
    )


def data_of(message: Message) -> Mapping[str, str]:
    """Return the data that an Android app gets: that of ``android``, else the message's."""
    data: Mapping[str, str] = message.get("android", {}).get("data") or message.get("data", {})
    return data


def notification_of(message: Message) -> Mapping[str, Any]:
    """Return what an Android device shows: ``android.notification`` over ``notification``."""
    return {**message.get("notification", {}), **message.get("android", {}).get("notification", {})}


def ttl_of(message: Message) -> float:
    """Return how long the message may be stored, in seconds."""
    written = message.get("android", {}).get("ttl")
    return MAX_TTL_SECONDS if written is None else float(written.removesuffix("s"))


def _check_data(path: str, data: Mapping[str, str]) -> None:
    for number, key in enumerate(data):
        if key in RESERVED_DATA_KEYS or key.startswith(RESERVED_DATA_PREFIXES):
            raise _argument(f"{path}[{number}].key", f"Invalid data payload key: {key}")


def _check_ttl(ttl: str | None) -> None:
    if ttl is not None and not 0 <= float(ttl.removesuffix("s")) <= MAX_TTL_SECONDS:
        said = f"The duration has to be from 0 to {MAX_TTL_SECONDS} seconds"
        raise _argument("message.android.ttl", said)


def _check_shown(shown: Mapping[str, Any]) -> None:
    path = "message.android.notification"
    color = shown.get("color")
    if color is not None and not COLOR.fullmatch(color):
        raise _argument(f"{path}.color", "The color has to be of the form #rrggbb")
    for name in ("title", "body"):
        if shown.get(f"{name}_loc_args") and not shown.get(f"{name}_loc_key"):
            raise _argument(f"{path}.{name}_loc_args", f"Needs {name}_loc_key")
    count = shown.get("notification_count")
    if count is not None and count < 0:
        raise _argument(f"{path}.notification_count", "The count may not be negative")


def _check_labels(message: Message) -> None:
    for place in ("", "android", "apns", "webpush"):
        options = (message.get(place, {}) if place else message).get("fcm_options", {})
        label = options.get("analytics_label")
        if label is not None and not ANALYTICS_LABEL.fullmatch(label):
            path = f"message.{place}." if place else "message."
            raise _argument(f"{path}fcm_options.analytics_label", "Invalid analytics label")


# Types


def _object(posted: Mapping[str, Any], members: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return an object with its names in snake case; a null counts as absent."""
    read: dict[str, Any] = {}
    for key, value in posted.items():
        name = _HUMP.sub(lambda hump: f"_{hump[0].lower()}", key)
        if name not in members:
            where = f" at '{path}'" if path else ""
            text = f'Invalid JSON payload received. Unknown name "{key}"{where}: Cannot find field.'
            raise _front(text, path)
        if value is not None:
            read[name] = _value(value, members[name], f"{path}.{name}" if path else name)
    return read


def _value(value: Any, kind: Any, path: str) -> Any:
    members = kind if isinstance(kind, Mapping) else _NESTED.get(kind)
    if members is not None:
        if not isinstance(value, dict):
            raise _wrong(path, "an object", value)
        return _object(value, members, path)
    if kind is not None and not _IS_OF[kind](value):
        suspects = _wrong_members(value, path) if kind is Kind.TEXT_MAPPING else iter(())
        where, wrong = next(suspects, (path, value))
        raise _wrong(where, _TYPE_NAMES.get(kind, "TYPE_STRING"), wrong)
    return value


def _wrong_members(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the members of a mapping of texts that are none, as FCM names them."""
    for number, member in enumerate(value.values() if isinstance(value, dict) else ()):
        if not isinstance(member, str):
            yield f"{path}[{number}].value", member


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return is_number and -_INT32 <= value < _INT32


def _is_duration(value: Any) -> bool:
    return isinstance(value, str) and DURATION.fullmatch(value.removeprefix("-")) is not None


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_IS_OF: Final[Mapping[Kind, Callable[[Any], bool]]] = MappingProxyType(
    {
        Kind.TEXT: _is_text,
        Kind.COLOR: _is_text,
        Kind.LABEL: _is_text,
        Kind.TEXTS: _is_texts,
        Kind.FLAG: lambda value: isinstance(value, bool),
        Kind.WHOLE: _is_whole,
        Kind.INSTANT: lambda value: _is_text(value) and bool(_INSTANT.fullmatch(value)),
        Kind.DURATION: _is_duration,
        Kind.DURATIONS: lambda value: isinstance(value, list) and all(map(_is_duration, value)),
        Kind.PRIORITY: lambda value: _is_text(value) and value in _PRIORITIES,
        Kind.SHOWN_PRIORITY: lambda value: value in ENUMS[Kind.SHOWN_PRIORITY],
        Kind.VISIBILITY: lambda value: value in ENUMS[Kind.VISIBILITY],
        Kind.PROXY: lambda value: value in ENUMS[Kind.PROXY],
        Kind.TEXT_MAPPING: lambda value: (
            isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
        ),
    }
)
_TYPE_NAMES: Final = MappingProxyType(
    {
        Kind.FLAG: "TYPE_BOOL",
        Kind.WHOLE: "TYPE_INT32",
        Kind.INSTANT: "type.googleapis.com/google.protobuf.Timestamp",
        Kind.DURATION: "type.googleapis.com/google.protobuf.Duration",
        Kind.DURATIONS: "type.googleapis.com/google.protobuf.Duration",
        Kind.PRIORITY: "type.googleapis.com/google.firebase.fcm.v1.AndroidMessagePriority",
        Kind.SHOWN_PRIORITY: "TYPE_ENUM",
        Kind.VISIBILITY: "TYPE_ENUM",
        Kind.PROXY: "TYPE_ENUM",
    }
)


def _wrong(path: str, type_name: str, value: Any) -> RefusalError:
    return _front(f"Invalid value at '{path}' ({type_name}), {json.dumps(value)[:80]}", path)


def _front(words: str, path: str) -> RefusalError:
    """Return the refusal of the layer in front: it names the field and no code of FCM's."""
    return RefusalError(
        FcmRefusal(
            code="INVALID_ARGUMENT",
            why=words,
            message=words,
            violations=((path, words),),
            is_front=True,
        )
    )


def _argument(path: str, words: str, *, message: str | None = None) -> RefusalError:
    """Return FCM's own refusal of a value."""
    return RefusalError(
        FcmRefusal(
            code="INVALID_ARGUMENT",
            why=f"{path}: {words}",
            message=message,
            violations=((path, words),),
        )
    )
