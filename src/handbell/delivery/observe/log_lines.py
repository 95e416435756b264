"""Map events to log records: a level, and fields without contents, keys and tokens."""

import dataclasses
import json
import logging
import re
from datetime import UTC, datetime
from functools import lru_cache
from statistics import median
from types import MappingProxyType
from typing import Any, Final

from handbell._text import short_token
from handbell.delivery.events import (
    CircuitOpened,
    DeliveryFailed,
    DeliveryHeld,
    Event,
    ProbeSent,
    ServiceDown,
    SessionQuarantined,
    SessionsReleased,
    name_of,
)

LEVELS: Final = MappingProxyType(
    {
        CircuitOpened: logging.ERROR,
        ServiceDown: logging.ERROR,
        DeliveryFailed: logging.WARNING,
        SessionQuarantined: logging.WARNING,
        DeliveryHeld: logging.DEBUG,
        ProbeSent: logging.DEBUG,
        SessionsReleased: logging.DEBUG,
    }
)
"""The level of an event; the default is INFO."""

_PLAIN: Final = re.compile(r"[^\s\"=]+")
_INSTANTS: Final = frozenset({"until", "probe_at"})
# Longer than any id of ours, and no push service has shorter tokens.
_SHORTEST_TOKEN: Final = 40
_TOKEN: Final = re.compile(rf"[0-9A-Fa-f]{{{_SHORTEST_TOKEN},}}")
_UNPRINTABLE: Final = re.compile(r"[^\S ]|[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]")

_known_names: dict[type[Event], tuple[str, ...]] = {}

LOGGER: Final = "handbell.events"
"""The logger of :class:`LoggedEvents`."""


class LoggedEvents:
    """Logs each event through ``logging``, one key=value line per event: an engine hook.

    It needs the standard library only; the extra ``server`` adds structured logs. The program
    configures level, handlers and format of the logger :data:`LOGGER`.
    """

    def __init__(self) -> None:
        self._logger = logging.getLogger(LOGGER)

    def __call__(self, event: Event) -> None:
        """Log one event."""
        level = level_of(event)
        if self._logger.isEnabledFor(level):
            fields = fields_of(event)
            # Handlers add the time themselves.
            del fields["timestamp"]
            line = " ".join(f"{name}={_value(value)}" for name, value in fields.items())
            self._logger.log(level, "%s %s", name_of(type(event)), line)


def level_of(event: Event) -> int:
    """Return the ``logging`` level of an event."""
    if isinstance(event, DeliveryFailed) and event.state == "dead_letter":
        return logging.ERROR
    return LEVELS.get(type(event), logging.INFO)


def _value(value: Any) -> str:
    is_plain = isinstance(value, str) and _PLAIN.fullmatch(value)
    return value if is_plain else json.dumps(value, ensure_ascii=False, default=str)


def fields_of(event: Event) -> dict[str, Any]:
    """Return the fields logged for an event, with its time as ISO 8601 and its app first."""
    fields: dict[str, Any] = {"timestamp": _iso(event.at), "app": event.app}
    for name in _names(type(event)):
        value = getattr(event, name)
        if name == "seconds":
            fields |= _summary(value)
        elif name == "notification_ids":
            # A line with a thousand ids would be of no use; the ledger has them.
            is_one = len(value) == 1
            fields |= {"notification_id": value[0]} if is_one else {"notifications": len(value)}
        elif name in _INSTANTS:
            fields[name] = _iso(value)
        elif value is not None:
            fields[name] = _harmless(value) if isinstance(value, str) else value
    return fields


def _names(kind: type[Event]) -> tuple[str, ...]:
    """Return the fields of an event except its time and its app."""
    if kind not in _known_names:
        names = (field.name for field in dataclasses.fields(kind))
        _known_names[kind] = tuple(name for name in names if name not in ("at", "app"))
    return _known_names[kind]


def _summary(seconds: tuple[float, ...]) -> dict[str, float]:
    return {
        "pushes": len(seconds),
        "median_seconds": round(_median(seconds), 4),
        "longest_seconds": round(max(seconds, default=0.0), 4),
    }


def _median(seconds: tuple[float, ...]) -> float:
    # Single pushes are the most frequent event.
    return seconds[0] if len(seconds) == 1 else median(seconds or (0.0,))


def _harmless(text: str) -> str:
    if len(text) < _SHORTEST_TOKEN and text.isascii() and text.isprintable():
        return text
    text = _TOKEN.sub(lambda found: short_token(found[0]), text)
    return _UNPRINTABLE.sub("?", text)


@lru_cache(maxsize=16)
def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
