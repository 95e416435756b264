"""A rate limit for an app. Pure."""

from dataclasses import dataclass
from math import ceil, isfinite
from typing import Final

from handbell.creation.values import shown
from handbell.errors import AppError

from .periods import read_count_per_period

FASTEST_PER_SECOND: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``per_second`` pushes a second on average, and ``burst`` at once.

    Raises :class:`~handbell.errors.AppError` for a rate that is not above 0, or over
    :data:`FASTEST_PER_SECOND`, and for a burst below 1.
    """

    per_second: float
    burst: int = 1

    def __post_init__(self) -> None:
        if not (isfinite(self.per_second) and 0 < self.per_second <= FASTEST_PER_SECOND):
            raise AppError(
                f"A rate limit is {self.per_second:g} per second",
                fix=f"Use more than 0 and at most {FASTEST_PER_SECOND:,} per second",
            )
        if self.burst < 1:
            raise AppError(f"A rate limit has a burst of {self.burst}", fix="Use 1 or more")

    def __str__(self) -> str:
        rate = repr(float(self.per_second)).removesuffix(".0")
        return f"{rate}/second burst {self.burst}"


def read_rate_limit(value: object) -> RateLimit:
    """Read ``200`` (per second), ``200/s``, ``6000 per minute``, ``200/s burst 500``.

    The burst is one second's worth unless it is given, and at least 1. Raises
    :class:`~handbell.errors.AppError` for anything else.
    """
    if isinstance(value, RateLimit):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return RateLimit(value, _burst(value))
    number, seconds, burst = read_count_per_period("A rate limit", value, "200/s or 6000/minute")
    if not seconds:
        raise AppError(f"A rate limit is {shown(value)}", fix="Use a period of a second or more")
    rate = number / seconds
    return RateLimit(rate, _burst(rate) if burst is None else burst)


def _burst(per_second: float) -> int:
    return ceil(per_second) if 1 < per_second <= FASTEST_PER_SECOND else 1
