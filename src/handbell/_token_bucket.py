"""A token bucket: how much is available now, and when the rest is. Pure."""

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

_TICK: Final = 2e-6  # above the rounding error of an instant, so that a wait is never too short


class Taken(NamedTuple):
    """The result of a take: the granted count, the new bucket, and the wait for the rest.

    ``wait_seconds`` is 0 when all were granted. After that time the rest is available, up to the
    bucket's capacity.
    """

    granted: int
    bucket: "TokenBucket"
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """``tokens`` at the instant ``at``; ``rate`` are added each second, up to ``size``.

    Over any span of time at most ``size`` plus the rate times the span is granted. A clock that
    was set back adds nothing. It is small enough to be stored.
    """

    size: float
    rate: float
    tokens: float
    at: float

    @classmethod
    def full(cls, size: float, rate: float, now: float) -> "TokenBucket":
        """Return a full bucket."""
        return cls(size=size, rate=rate, tokens=size, at=now)

    def filled(self, now: float) -> "TokenBucket":
        """Return the bucket at ``now``."""
        gained = max(0.0, now - self.at) * self.rate
        return replace(self, tokens=min(self.size, self.tokens + gained), at=now)

    def without(self, amount: float) -> "TokenBucket":
        """Return the bucket with tokens taken, or added where ``amount`` is below 0."""
        return replace(self, tokens=min(self.size, self.tokens - amount))

    def wait_for(self, amount: float) -> float:
        """Return the seconds from ``at`` until ``amount`` is available; 0 when it is."""
        return max(0.0, amount - self.tokens) / self.rate

    def take(self, wanted: int, now: float) -> Taken:
        """Take up to ``wanted`` whole tokens at the instant ``now``."""
        filled = self.filled(now)
        granted = min(max(wanted, 0), int(filled.tokens))
        left = filled.without(granted)
        rest = min(wanted - granted, int(self.size))
        if rest <= 0:
            return Taken(granted, left, 0.0)
        return Taken(granted, left, left.wait_for(rest) + _TICK)
