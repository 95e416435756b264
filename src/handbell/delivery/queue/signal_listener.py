"""Signals of the database, delivered in one event loop."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable
from typing import Final

from handbell.storage.signals import Kind, Signal, Signals

HeardNumbers = frozenset[int] | None
"""The numbers of a signal; None means that anything may have changed."""

RULES_PAUSE: Final = 0.1
"""How long changes of rules are collected before caches are dropped."""


class SignalListener:
    """Calls functions of one event loop when a signal arrives; see :mod:`handbell.storage.signals`.

    It listens from the first :meth:`listen` until :meth:`close`. ``signals`` is asked for then.
    """

    def __init__(self, signals: Callable[[], Signals]) -> None:
        self._find = signals
        self._signals: Signals | None = None
        self._calls: defaultdict[Kind, list[Callable[[HeardNumbers], None]]] = defaultdict(list)
        self._leave: Callable[[], None] | None = None
        self._changing: asyncio.TimerHandle | None = None

    @property
    def is_prompt(self) -> bool:
        """Whether signals of other processes arrive now; otherwise polling is needed."""
        return self._signals is not None and self._signals.is_prompt

    def pace(self, quick: float, slow: float) -> Callable[[], float]:
        """Return a function that gives the polling interval: slow while signals arrive."""
        return lambda: slow if self.is_prompt else quick

    def on(self, kind: Kind, call: Callable[[HeardNumbers], None]) -> None:
        """Call a function with the numbers of each signal of a kind."""
        self._calls[kind].append(call)

    def listen(self) -> None:
        """Receive signals in the running event loop from now on."""
        if self._leave is not None:
            return
        loop = asyncio.get_running_loop()

        def hear(signal: Signal) -> None:
            # The loop may be closed without a close() here.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._take, signal)

        self._signals = self._find()
        self._leave = self._signals.subscribe(hear)

    def close(self) -> None:
        """Stop receiving signals."""
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()
        if self._changing is not None:
            self._changing.cancel()
            self._changing = None

    def _take(self, signal: Signal) -> None:
        if self._leave is None:
            return
        if signal.kind is not Kind.RULES:
            self._call(signal)
        elif self._changing is None:
            loop = asyncio.get_running_loop()
            self._changing = loop.call_later(RULES_PAUSE, self._change, signal)

    def _change(self, signal: Signal) -> None:
        self._changing = None
        self._call(signal)

    def _call(self, signal: Signal) -> None:
        for call in self._calls[signal.kind]:
            call(signal.numbers)
