"""A cache of notifications' progress, for many polling pages."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

SHARE: Final = 8
"""The ratio of a value's time in the cache to its time of computation."""
AT_LEAST_SECONDS: Final = 0.05
KEPT: Final = 500


class ProgressCache(Generic[T]):
    """A cache in which each value is computed once at a time and kept in proportion to its cost.

    Counting a broadcast to a million devices takes a quarter of a second: however many pages poll
    each second, at most an eighth of a core is spent. Thread-safe.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._finding: dict[str, threading.Lock] = {}
        self._known: OrderedDict[str, tuple[float, T]] = OrderedDict()

    def get(self, key: str, find: Callable[[], T]) -> T:
        """Return the value of a key; compute it when the cached one is too old.

        Errors are raised and not cached.
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
        """Drop a key's value."""
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
