"""Rate limits per caller: token buckets in memory."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from handbell._token_bucket import TokenBucket
from handbell.errors import RateLimitedError

MOST_BUCKETS: Final = 100_000
"""How many callers are remembered; beyond that the fullest buckets are forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """``number`` at once, and as many again, evenly, in each ``seconds``."""

    number: float
    seconds: float

    def full(self, now: float) -> TokenBucket:
        """Return a full bucket."""
        rate = self.number / self.seconds
        return TokenBucket(size=self.number, rate=rate, tokens=self.number, at=now)


class Limiter:
    """Token buckets by purpose and caller. ``now`` returns seconds.

    At most ``most`` are kept. Thread-safe. Buckets are per process: several servers behind one
    address each grant the limit.
    """

    def __init__(
        self, *, now: Callable[[], float] = time.monotonic, most: int = MOST_BUCKETS
    ) -> None:
        self._now = now
        self._most = most
        self._lock = threading.Lock()
        self._buckets: dict[tuple[str, str], TokenBucket] = {}

    @property
    def size(self) -> int:
        """Return the number of buckets."""
        return len(self._buckets)

    def take(self, purpose: str, caller: str, limit: Limit, amount: float = 1.0) -> float:
        """Take from a bucket and return 0; or take nothing and return the seconds to wait."""
        now = self._now()
        with self._lock:
            bucket = self._buckets.get((purpose, caller)) or limit.full(now)
            bucket = bucket.filled(now)
            if (wait := bucket.wait_for(amount)) > 0:
                return wait
            self._buckets[purpose, caller] = bucket.without(amount)
            if len(self._buckets) > self._most:
                self._forget(now)
        return 0.0

    def require(self, purpose: str, caller: str, limit: Limit, amount: float = 1.0) -> None:
        """Take from a bucket. Raises RateLimitedError with the time to wait."""
        wait = self.take(purpose, caller, limit, amount)
        if wait > 0:
            raise RateLimitedError(
                "Rate limit exceeded",
                fix=f"Wait {max(1, round(wait))} s, then try again",
                retry_after=wait,
            )

    def give_back(self, purpose: str, caller: str, amount: float = 1.0) -> None:
        """Return unused tokens."""
        with self._lock:
            if (purpose, caller) in self._buckets:
                bucket = self._buckets[purpose, caller]
                self._buckets[purpose, caller] = bucket.without(-amount)

    def forget(self, purpose: str, caller: str) -> None:
        """Refill a bucket, as after a successful sign-in."""
        with self._lock:
            self._buckets.pop((purpose, caller), None)

    def _forget(self, now: float) -> None:
        def room(key: tuple[str, str]) -> float:
            bucket = self._buckets[key]
            return bucket.size - bucket.filled(now).tokens

        for key in sorted(self._buckets, key=room)[: self._most // 2]:
            del self._buckets[key]
