"""Structured logs, as a hook: one line for each event. Needs the extra ``server``."""

import asyncio
import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog
from pydantic_core import to_json

from handbell.delivery.events import Event, name_of

from .log_lines import fields_of, level_of

_LEVELS: Final = {
    level: name.lower() for name, level in logging.getLevelNamesMapping().items() if name != "WARN"
}


class Logs:
    """Writes each event to ``stream`` (standard error): a hook for the engine.

    On a terminal a line is human-readable: time, level, name, then key=value. Elsewhere it is one
    JSON object with ``timestamp`` (ISO 8601, UTC), ``level``, ``event`` and the event's own
    fields. ``is_terminal`` overrides the detection of a terminal, ``level`` is the lowest level
    written: ``debug`` includes each delivery that waits.

    No line contains a notification's content or a key. Device tokens in texts are shortened, and
    line breaks in texts are escaped.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        is_terminal: bool | None = None,
        level: str = "info",
    ) -> None:
        self._stream = stream = sys.stderr if stream is None else stream
        is_terminal = stream.isatty() if is_terminal is None else is_terminal
        self._lines: list[str] = []
        self._lowest = logging.getLevelNamesMapping()[level.upper()]
        # Not structlog's logger around its renderers: there are thousands of lines a second.
        self._render = structlog.dev.ConsoleRenderer(sort_keys=False) if is_terminal else _as_json

    def __call__(self, event: Event) -> None:
        """Write one event."""
        level = level_of(event)
        # A million deliveries may be held at once, so skipped events must cost next to nothing.
        if level >= self._lowest:
            named = {"event": name_of(type(event)), "level": _LEVELS[level]}
            self._lines.append(self._render(None, "", {**fields_of(event), **named}) + "\n")
            if len(self._lines) == 1:
                self._write_soon()

    def _write_soon(self) -> None:
        # One write per turn of the event loop, because each write releases the interpreter lock.
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._write()
        else:
            loop.call_soon(self._write)

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        self._stream.write("".join(lines))
        self._stream.flush()


def _as_json(_logger: object, _method: str, line: MutableMapping[str, Any]) -> str:
    return to_json(line, fallback=repr).decode()
