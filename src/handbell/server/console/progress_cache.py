"""What became of a notification, asked for by many pages each second and counted seldom."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

SHARE: Final = 8
"""A value is kept so many times longer than it took to find."""
AT_LEAST_SECONDS: Final = 0.05
KEPT: Final = 500


class Watched(Generic[T]):
    """Values by key, each found once at a time and kept in proportion to what finding costs.

    A broadcast to a million devices is counted in a quarter of a second: whoever looks each second,
    and however many look, an eighth of a core at most is spent on it. Safe to use from threads.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._finding: dict[str, threading.Lock] = {}
        self._known: OrderedDict[str, tuple[float, T]] = OrderedDict()

    def get(self, key: str, find: Callable[[], T]) -> T:
        """Return the value of a key, found anew when the known one is too old.

        What finding raises is raised, and nothing is kept.
        """
        with self._lock:
            known = self._fresh(key)
            if known is not None:
                return known[1]
            turn = self._finding.setdefault(key, threading.Lock())
        try:
            with turn:
                with self._lock:
                    known = self._fresh(key)
                if known is not None:
                    return known[1]
                return self._find(key, find)
        finally:
            with self._lock:
                if not turn.locked():
                    self._finding.pop(key, None)

    def forget(self, key: str) -> None:
        """Find a value anew when it is asked for next."""
        with self._lock:
            self._known.pop(key, None)

    def _fresh(self, key: str) -> tuple[float, T] | None:
        known = self._known.get(key)
        return known if known is not None and self._clock() < known[0] else None

    def _find(self, key: str, find: Callable[[], T]) -> T:
        began = self._clock()
        value = find()
        now = self._clock()
        until = now + max(AT_LEAST_SECONDS, SHARE * (now - began))
        with self._lock:
            self._known[key] = (until, value)
            self._known.move_to_end(key)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return value
