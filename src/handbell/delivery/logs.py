"""Structured logs, as a hook: one line for each event. Needs the extra ``server``."""

import dataclasses
import logging
import re
import sys
from datetime import UTC, datetime
from statistics import median
from types import MappingProxyType
from typing import Any, Final, TextIO

import structlog

from handbell._text import shortened

from .events import (
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
"""The level of an event; all others are told at INFO."""

_INSTANTS: Final = frozenset({"until", "probe_at"})
# Longer than any id of ours, and no push service has shorter tokens.
_TOKEN: Final = re.compile(r"[0-9A-Fa-f]{40,}")
_UNPRINTABLE: Final = re.compile(r"[^\S ]|[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]")


class Logs:
    """Writes each event to ``stream`` (standard error): a hook for the engine.

    On a terminal a line is for people: time, level, name, then key=value. Elsewhere it is one JSON
    object with ``timestamp`` (ISO 8601, UTC), ``level``, ``event`` and the event's own fields.
    ``is_terminal`` decides where the stream's own word is not wanted, ``level`` is the lowest that
    is written: ``debug`` also tells each delivery that waits.

    No line holds a notification's content or a key. A device token inside a text is shortened, and
    a text cannot begin a line of its own.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        is_terminal: bool | None = None,
        level: str = "info",
    ) -> None:
        stream = sys.stderr if stream is None else stream
        is_terminal = stream.isatty() if is_terminal is None else is_terminal
        self._lowest = logging.getLevelNamesMapping()[level.upper()]
        # Nothing is configured for the whole process: that is for the program, not for a library.
        self._log: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
            structlog.PrintLogger(stream),
            wrapper_class=structlog.make_filtering_bound_logger(self._lowest),
            cache_logger_on_first_use=True,
            processors=[structlog.processors.add_log_level, _renderer(is_terminal=is_terminal)],
        ).bind()

    def __call__(self, event: Event) -> None:
        """Write one event."""
        kind = type(event)
        level = LEVELS.get(kind, logging.INFO)
        # A million deliveries may be held at once: what is not written costs next to nothing.
        if level >= self._lowest:
            self._log.log(level, name_of(kind), **_fields(event))


def _renderer(*, is_terminal: bool) -> structlog.typing.Processor:
    if is_terminal:
        return structlog.dev.ConsoleRenderer(sort_keys=False)
    return structlog.processors.JSONRenderer(ensure_ascii=False)


def _fields(event: Event) -> dict[str, Any]:
    fields: dict[str, Any] = {"timestamp": _iso(event.at), "app": event.app}
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        if field.name == "seconds":
            fields |= _summary(value)
        elif field.name == "notification_ids":
            # A thousand ids in a line would tell nobody more than the ledger does.
            fields["notifications"] = len(value)
        elif field.name in _INSTANTS:
            fields[field.name] = _iso(value)
        elif field.name not in ("at", "app") and value is not None:
            fields[field.name] = _harmless(value) if isinstance(value, str) else value
    return fields


def _summary(seconds: tuple[float, ...]) -> dict[str, float]:
    return {
        "pushes": len(seconds),
        "median_seconds": round(median(seconds or (0.0,)), 4),
        "longest_seconds": round(max(seconds, default=0.0), 4),
    }


def _harmless(text: str) -> str:
    text = _TOKEN.sub(lambda found: shortened(found[0]), text)
    return _UNPRINTABLE.sub("?", text)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
