"""A cap: the maximum number of notifications to one person within a period. Pure."""

from dataclasses import dataclass
from typing import Final

from handbell.creation.values import shown
from handbell.errors import AppError

from .periods import UNITS, read_count_per_period

LONGEST_PERIOD_SECONDS: Final = 31 * 24 * 3600
"""The longest period of a cap, in seconds."""


@dataclass(frozen=True, slots=True)
class Cap:
    """At most ``most`` notifications to one person in any period of ``seconds``.

    A person is a user of an app, with all their devices. The period is a rolling one, so caps do
    not all reset at the same hour. A push over the cap is recorded as ``capped``, not delayed.
    Only pushes that :func:`~handbell.delivery.policy.quiet_hours.disturbs` returns true for count.

    Raises :class:`~handbell.errors.AppError` for a cap of 0 and for a period beyond
    :data:`LONGEST_PERIOD_SECONDS`.
    """

    most: int
    seconds: int

    def __post_init__(self) -> None:
        if self.most < 1:
            raise AppError("A cap of 0 lets nothing through", fix="Switch the app off instead")
        if not 1 <= self.seconds <= LONGEST_PERIOD_SECONDS:
            raise AppError(
                f"A cap counts over {self.seconds} seconds",
                fix="Use a period between one second and 31 days, such as 5/day",
            )

    def __str__(self) -> str:
        name, unit = max(
            (each for each in UNITS.items() if self.seconds % each[1] == 0),
            key=lambda each: each[1],
        )
        times = self.seconds // unit
        return f"{self.most}/{name}" if times == 1 else f"{self.most}/{times} {name}s"

    def since(self, now: float) -> float:
        """Return the instant from which notifications count."""
        return now - self.seconds

    def allows(self, count_in_period: int) -> bool:
        """Return whether a person with ``count_in_period`` since :meth:`since` may get another."""
        return count_in_period < self.most


def read_cap(value: object) -> Cap:
    """Read ``5/day``, ``3 per 2 hours``. Raises :class:`~handbell.errors.AppError` otherwise."""
    if isinstance(value, Cap):
        return value
    number, seconds, burst = read_count_per_period("A cap", value, "5/day or 3/2 hours")
    if not number.is_integer() or burst is not None:
        raise AppError(f"A cap is {shown(value)}", fix="Write a whole number, such as 5/day")
    return Cap(int(number), seconds)
