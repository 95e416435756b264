"""A token bucket: how much is available now, and when the rest is. Pure."""

from dataclasses import dataclass, replace


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
