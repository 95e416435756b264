"""A token bucket: how much of something may be had now, and how long the rest takes. Pure."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """``tokens`` were there at the instant ``at``; ``rate`` come back each second, up to ``size``.

    Over any span of time no more can be had than ``size`` and the rate times the span. A clock that
    was set back adds nothing, and the bucket goes on from there. It is small enough to be stored.
    """

    size: float
    rate: float
    tokens: float
    at: float

    def filled(self, now: float) -> "TokenBucket":
        """Return the bucket as it stands at ``now``."""
        gained = max(0.0, now - self.at) * self.rate
        return replace(self, tokens=min(self.size, self.tokens + gained), at=now)

    def without(self, amount: float) -> "TokenBucket":
        """Return the bucket with so much taken, or with more where ``amount`` is below 0."""
        return replace(self, tokens=min(self.size, self.tokens - amount))

    def wait_for(self, amount: float) -> float:
        """Return the seconds from ``at`` until so much is there; 0 when it is."""
        return max(0.0, amount - self.tokens) / self.rate
