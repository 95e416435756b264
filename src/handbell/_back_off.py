"""How long is waited before the next attempt: longer each time, with an end, spread by chance."""

from random import Random
from typing import Final, NamedTuple

JITTER: Final = 0.25
"""How much chance adds to a delay, as a share of it, so that many do not come back at once."""
_STEPS_AT_MOST: Final = 32


class BackOff(NamedTuple):
    """Delays in seconds: ``first * factor ** steps``, at most ``longest``."""

    first: float
    factor: float
    longest: float

    def delay(self, steps: float) -> float:
        """Return the delay after so many delays before it, without chance.

        ``steps`` may be a fraction, and below 0 for a delay that is shorter than the first.
        """
        # A power of a large number of steps is not worth computing, and does not fit a float.
        return min(self.longest, self.first * float(self.factor ** min(steps, _STEPS_AT_MOST)))

    def spread(self, steps: float, rng: Random, *, asked: float = 0.0) -> float:
        """Return the delay, or what was ``asked`` if that is longer, and up to a quarter by chance.

        The quarter is of the delay, not of what was asked.
        """
        delay = self.delay(steps)
        return max(delay, asked) + JITTER * delay * rng.random()
