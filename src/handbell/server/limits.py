"""How much of something one caller may have in a time: token buckets in memory."""

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
        """Return a bucket from which nothing was taken yet."""
        rate = self.number / self.seconds
        return TokenBucket(size=self.number, rate=rate, tokens=self.number, at=now)


class Limiter:
    """Token buckets, one for each pair of a purpose and a caller. ``now`` returns seconds.

    ``most`` of them are remembered. Safe to use from several threads. The buckets of a process are
    its own: several servers behind one address each grant the limit.
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
        """How many buckets are remembered."""
        return len(self._buckets)

    def take(self, purpose: str, who: str, limit: Limit, amount: float = 1.0) -> float:
        """Take from a bucket and return 0; or take nothing and return the seconds to wait."""
        now = self._now()
        with self._lock:
            bucket = self._buckets.get((purpose, who)) or limit.full(now)
            bucket = bucket.filled(now)
            if (wait := bucket.wait_for(amount)) > 0:
                return wait
            self._buckets[purpose, who] = bucket.without(amount)
            if len(self._buckets) > self._most:
                self._forget(now)
        return 0.0

    def require(self, purpose: str, who: str, limit: Limit, amount: float = 1.0) -> None:
        """Take from a bucket. Raises RateLimitedError, which says how long to wait."""
        wait = self.take(purpose, who, limit, amount)
        if wait > 0:
            raise RateLimitedError(
                "Rate limit exceeded",
                fix=f"Wait {max(1, round(wait))} s, then try again",
                retry_after=wait,
            )

    def give_back(self, purpose: str, who: str, amount: float = 1.0) -> None:
        """Put back what was taken for nothing."""
        with self._lock:
            if (purpose, who) in self._buckets:
                bucket = self._buckets[purpose, who]
                self._buckets[purpose, who] = bucket.without(-amount)

    def forget(self, purpose: str, who: str) -> None:
        """Fill a bucket again, as after a sign-in that succeeded."""
        with self._lock:
            self._buckets.pop((purpose, who), None)

    def _forget(self, now: float) -> None:
        def room(key: tuple[str, str]) -> float:
            bucket = self._buckets[key]
            return bucket.size - bucket.filled(now).tokens

        for key in sorted(self._buckets, key=room)[: self._most // 2]:
            del self._buckets[key]
