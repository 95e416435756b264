"""Members of a message that only Android has: the field ``android`` of a notification.

It is FCM's object ``android`` as Google publishes it, checked by its table of members. What has a
field of its own, and what FCM would refuse, is refused here.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from handbell._text import read_timestamp
from handbell.errors import NotificationError
from handbell.services.fcm.protocol import (
    ANALYTICS_LABEL,
    ANDROID,
    ANDROID_NOTIFICATION,
    DURATION,
    ENUMS,
    Kind,
)

from . import values

_INSTEAD: Final = MappingProxyType(
    {
        "android.ttl": "Use the field `ttl` or `expires_at` of the notification",
        "android.data": "Use the field `user_info` of the notification",
    }
)
"""The members that have a field of their own which says the same."""
_LIGHT: Final = ("color", "light_on_duration", "light_off_duration")
_RGBA: Final = ("red", "green", "blue", "alpha")
_LOC_ARGS: Final = ("title_loc_args", "body_loc_args")


def read_android(name: str, value: object) -> dict[str, Any] | None:
    """Parse ``android``: FCM's members by name, spelled in snake case or in camel case.

    Returns them in snake case, copied. An empty mapping counts as absent. Raises
    :class:`~handbell.errors.NotificationError` for an unknown member, a value of the wrong kind, a
    member that has a field of its own, and a text that holds a secret.
    """
    given = values.json_mapping(name, value)
    values.refuse_secrets(name, given)
    return _members(name, given, ANDROID) or None


def sample_of(where: str) -> str | None:
    """Return a text that the member at a path may have, such as ``android.notification.color``.

    None where any text may stand there, and for other paths: for a template, whose own text is an
    expression and not yet what it becomes.
    """
    match where.partition("[")[0].split("."):
        case ["android", "notification", name]:
            kind = ANDROID_NOTIFICATION.get(_SNAKE.get(name, name))
        case ["android", "notification", _, name] if name.endswith("duration"):
            kind = Kind.DURATION
        case ["android", name]:
            kind = ANDROID.get(_SNAKE.get(name, name))
        case _:
            kind = None
    if kind is None:
        return None
    return ENUMS[kind][0] if kind in ENUMS else _SAMPLES.get(kind)


_SAMPLES: Final = MappingProxyType(
    {
        Kind.COLOR: "#000000",
        Kind.INSTANT: "1970-01-01T00:00:00Z",
        Kind.DURATION: "0s",
        Kind.DURATIONS: "0s",
    }
)


def _members(path: str, given: object, known: Mapping[str, Kind]) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise values.wrong(path, given, "a mapping")
    found: dict[str, Any] = {}
    for key, value in given.items():
        member = _SNAKE.get(key, key)
        if member not in known:
            raise values.unknown(f"in `{path}`", key, tuple(known))
        where = f"{path}.{member}"
        if where in _INSTEAD:
            raise NotificationError(f"`{where}` cannot be given", fix=_INSTEAD[where])
        if member in found:
            raise NotificationError(f"`{where}` is given in two spellings", fix="Keep one of them")
        if value is not None:
            found[member] = _read(where, value, known[member])
    return found


def _read(path: str, value: object, kind: Kind) -> Any:
    if kind in ENUMS:
        return _one_of(path, value, kind)
    return _READERS[kind](path, value)


def _text(path: str, value: object) -> str:
    text = values.text(path, value)
    if text is None:
        raise values.wrong(path, value, "a text that is not empty")
    return text


def _one_of(path: str, value: object, kind: Kind) -> str:
    known = ENUMS[kind]
    text = _text(path, value)
    found = next((each for each in known if each.lower() == text.lower()), None)
    if found is None:
        raise values.wrong(path, value, kind.value)
    return found


def _color(path: str, value: object) -> str:
    return values.color(path, value) or _text(path, value)


def _duration(path: str, value: object) -> str:
    text = _text(path, value)
    if not DURATION.fullmatch(text):
        raise values.wrong(path, value, Kind.DURATION.value)
    return text


def _durations(path: str, value: object) -> list[str]:
    if not isinstance(value, list):
        raise values.wrong(path, value, Kind.DURATIONS.value)
    return [_duration(f"{path}[{place}]", each) for place, each in enumerate(value)]


def _instant(path: str, value: object) -> str:
    text = _text(path, value)
    try:
        has_zone = read_timestamp(text).utcoffset() is not None and "T" in text
    except ValueError:
        has_zone = False
    if not has_zone:
        raise values.wrong(path, value, Kind.INSTANT.value)
    return text


def _notification(path: str, value: object) -> dict[str, Any]:
    members = _members(path, value, ANDROID_NOTIFICATION)
    for args in _LOC_ARGS:
        key = args.replace("_args", "_key")
        if args in members and key not in members:
            raise NotificationError(
                f"`{path}.{args}` is given without `{path}.{key}`", fix=f"Name the `{key}`"
            )
    return members


def _light(path: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() - set(_LIGHT):
        raise values.wrong(path, value, Kind.LIGHT.value)
    for member in _LIGHT:
        if member not in value:
            raise NotificationError(f"`{path}.{member}` is missing", fix="FCM needs all three")
    color = value["color"]
    if not isinstance(color, dict) or color.keys() - set(_RGBA):
        raise values.wrong(f"{path}.color", color, "a mapping with red, green, blue and alpha")
    for part, share in color.items():
        if not 0 <= values.number(f"{path}.color.{part}", share) <= 1:
            raise values.wrong(f"{path}.color.{part}", share, "a number between 0 and 1")
    durations = {member: _duration(f"{path}.{member}", value[member]) for member in _LIGHT[1:]}
    return {"color": color, **durations}


def _options(path: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise values.wrong(path, value, Kind.OPTIONS.value)
    members = {_SNAKE.get(key, key): member for key, member in value.items()}
    for key in members:
        if key != "analytics_label":
            raise values.unknown(f"in `{path}`", key, ("analytics_label",))
    label = members.get("analytics_label")
    if not isinstance(label, str) or not ANALYTICS_LABEL.fullmatch(label):
        raise values.wrong(f"{path}.analytics_label", label, Kind.LABEL.value)
    return members


_READERS: Final[Mapping[Kind, Callable[[str, Any], Any]]] = MappingProxyType(
    {
        Kind.TEXT: _text,
        Kind.TEXTS: lambda path, value: list(values.texts(path, value)),
        Kind.FLAG: values.flag,
        Kind.WHOLE: values.badge,
        Kind.COLOR: _color,
        Kind.INSTANT: _instant,
        Kind.DURATION: _duration,
        Kind.DURATIONS: _durations,
        Kind.NOTIFICATION: _notification,
        Kind.LIGHT: _light,
        Kind.OPTIONS: _options,
    }
)


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.title() for word in rest)


_SNAKE: Final = MappingProxyType(
    {_camel(name): name for name in (*ANDROID, *ANDROID_NOTIFICATION, "analytics_label")}
)
