"""Exponential back-off with an upper bound and jitter."""

from random import Random
from typing import Final, NamedTuple

JITTER: Final = 0.25
"""The largest jitter, as a share of the delay."""
_STEPS_AT_MOST: Final = 32


class BackOff(NamedTuple):
    """Delays in seconds: ``first * factor ** steps``, at most ``longest``."""

    first: float
    factor: float
    longest: float

    def delay(self, steps: float) -> float:
        """Return the delay after ``steps`` earlier ones, without jitter.

        ``steps`` may be a fraction, and negative for a delay shorter than the first.
        """
        # A power of a large number of steps is not worth computing, and does not fit a float.
        return min(self.longest, self.first * float(self.factor ** min(steps, _STEPS_AT_MOST)))

    def spread(self, steps: float, rng: Random, *, at_least: float = 0.0) -> float:
        """Return the delay, ``at_least`` so long, plus up to a quarter of the delay by chance."""
        delay = self.delay(steps)
        return max(delay, at_least) + JITTER * delay * rng.random()
