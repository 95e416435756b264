"""Members of a notification that only browsers have: the field ``web`` of a notification.

They are those of the Notification API and of declarative messages
(https://notifications.spec.whatwg.org/, https://www.w3.org/TR/push-api/), checked by name and
kind. What has a field of its own is refused here.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from handbell.errors import NotificationError

from . import values

_INSTEAD: Final = MappingProxyType(
    {
        "title": "title",
        "body": "body",
        "data": "user_info",
        "app_badge": "badge",
        "topic": "collapse_id",
        "ttl": "ttl",
        "urgency": "priority",
    }
)
"""The members that have a field of their own which says the same."""
_MOST_ACTIONS: Final = 8
_MOST_PULSES: Final = 99


def read_web(name: str, value: object) -> dict[str, Any] | None:
    """Parse ``web``: members by name, spelled as browsers do (``requireInteraction``) or in snake.

    Returns them as browsers spell them, copied. An empty mapping counts as absent. Raises
    :class:`~handbell.errors.NotificationError` for an unknown member, a value of the wrong kind, a
    member that has a field of its own, and a text that holds a secret.
    """
    given = values.json_mapping(name, value)
    values.refuse_secrets(name, given)
    return _members(name, given, _READERS) or None


def _members(
    path: str, given: Mapping[str, Any], readers: Mapping[str, Callable[[str, Any], Any]]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in given.items():
        member = _CAMEL.get(key, key)
        where = f"{path}.{member}"
        if member not in readers:
            _refuse_own_field(where, member)
            raise values.unknown(f"in `{path}`", key, tuple(readers))
        if member in found:
            raise NotificationError(f"`{where}` is given in two spellings", fix="Keep one of them")
        if value is not None:
            found[member] = readers[member](where, value)
    return found


def _refuse_own_field(where: str, member: str) -> None:
    if member in _INSTEAD:
        raise NotificationError(
            f"`{where}` cannot be given", fix=f"Use the field `{_INSTEAD[member]}`"
        )


def _text(path: str, value: object) -> str:
    text = values.text(path, value)
    if text is None:
        raise values.wrong(path, value, "a text that is not empty")
    return text


def _direction(path: str, value: object) -> str:
    if value not in ("auto", "ltr", "rtl"):
        raise values.wrong(path, value, "auto, ltr or rtl")
    return str(value)


def _pulses(path: str, value: object) -> list[int]:
    listed = value if isinstance(value, list) else [value]
    if len(listed) > _MOST_PULSES:
        raise values.wrong(path, value, f"at most {_MOST_PULSES} milliseconds")
    return [values.badge(f"{path}[{place}]", each) for place, each in enumerate(listed)]


def _actions(path: str, value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list) or len(value) > _MOST_ACTIONS:
        raise values.wrong(path, value, f"a list of at most {_MOST_ACTIONS} actions")
    return [_action(f"{path}[{place}]", each) for place, each in enumerate(value)]


def _action(path: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise values.wrong(path, value, "a mapping with `action` and `title`")
    action = _members(path, value, _OF_ACTIONS)
    for member in ("action", "title"):
        if member not in action:
            raise NotificationError(f"`{path}.{member}` is missing", fix="An action has both")
    return action


_OF_ACTIONS: Final[Mapping[str, Callable[[str, Any], Any]]] = MappingProxyType(
    dict.fromkeys(("action", "title", "navigate", "icon"), _text)
)
_READERS: Final[Mapping[str, Callable[[str, Any], Any]]] = MappingProxyType(
    {
        **dict.fromkeys(("icon", "badge", "image", "lang", "tag", "navigate"), _text),
        **dict.fromkeys(("requireInteraction", "renotify", "silent", "mutable"), values.flag),
        "dir": _direction,
        "vibrate": _pulses,
        "timestamp": values.whole,
        "actions": _actions,
    }
)
_CAMEL: Final = MappingProxyType({"require_interaction": "requireInteraction"})
