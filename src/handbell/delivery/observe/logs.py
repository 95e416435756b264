"""Structured logs, as a hook: one line for each event. Needs the extra ``server``."""

import logging
import sys
from typing import TextIO

import structlog

from handbell.delivery.events import Event, name_of

from .log_lines import fields_of, level_of


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
        stream = sys.stderr if stream is None else stream
        is_terminal = stream.isatty() if is_terminal is None else is_terminal
        self._lowest = logging.getLevelNamesMapping()[level.upper()]
        # Nothing is configured process-wide: that is up to the program, not a library.
        self._log: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
            structlog.PrintLogger(stream),
            wrapper_class=structlog.make_filtering_bound_logger(self._lowest),
            cache_logger_on_first_use=True,
            processors=[structlog.processors.add_log_level, _renderer(is_terminal=is_terminal)],
        ).bind()

    def __call__(self, event: Event) -> None:
        """Write one event."""
        level = level_of(event)
        # A million deliveries may be held at once, so skipped events must cost next to nothing.
        if level >= self._lowest:
            self._log.log(level, name_of(type(event)), **fields_of(event))


def _renderer(*, is_terminal: bool) -> structlog.typing.Processor:
    if is_terminal:
        return structlog.dev.ConsoleRenderer(sort_keys=False)
    return structlog.processors.JSONRenderer(ensure_ascii=False)
