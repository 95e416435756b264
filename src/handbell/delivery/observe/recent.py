"""Counts of the last minutes, as a hook on events."""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final

from handbell.delivery.events import (
    DeliveryFailed,
    Event,
    NotificationAccepted,
    NotificationsAccepted,
    PushesSent,
)

WINDOW_SECONDS: Final = 300.0
"""The length of the period that is counted, in seconds."""
_BUCKET_SECONDS: Final = 10.0


class Recent:
    """Counts what this process accepted, sent and failed to send in the last five minutes.

    What was cancelled does not count as failed. ``clock`` gives seconds that are never set.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._lock = threading.Lock()
        # Each: the start of a slot, then the numbers of accepted, sent and failed.
        self._buckets: deque[list[float]] = deque()

    def __call__(self, event: Event) -> None:
        """Count one event."""
        match event:
            case NotificationAccepted():
                self._add(1, 1)
            case NotificationsAccepted():
                self._add(1, len(event.notification_ids))
            case PushesSent():
                self._add(2, len(event.seconds))
            case DeliveryFailed() if event.state != "cancelled":
                self._add(3, 1)
            case _:
                pass

    def figures(self) -> Mapping[str, float]:
        """Return the counts, and the length of their period as ``seconds``."""
        now = self._clock()
        with self._lock:
            self._forget(now)
            _, *sums = [sum(column) for column in zip([0.0] * 4, *self._buckets, strict=True)]
        named = dict(zip(("accepted", "sent", "failed"), sums, strict=True))
        return {"seconds": round(min(WINDOW_SECONDS, now - self._began), 1), **named}

    def _add(self, place: int, number: int) -> None:
        now = self._clock()
        with self._lock:
            if not self._buckets or now - self._buckets[-1][0] >= _BUCKET_SECONDS:
                self._forget(now)
                self._buckets.append([now, 0, 0, 0])
            self._buckets[-1][place] += number

    def _forget(self, now: float) -> None:
        while self._buckets and now - self._buckets[0][0] > WINDOW_SECONDS:
            self._buckets.popleft()
