"""The number of deliveries in flight: a count per state, kept by tickets."""

from dataclasses import dataclass


@dataclass(slots=True)
class Load:
    """How many deliveries are in which state; changed by tickets alone."""

    waiting: int = 0
    handed: int = 0
    ended: int = 0

    @property
    def out(self) -> int:
        """The number without an outcome."""
        return self.waiting + self.handed

    @property
    def all(self) -> int:
        """The number in flight or unrecorded."""
        return self.waiting + self.handed + self.ended
