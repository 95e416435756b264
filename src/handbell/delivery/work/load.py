"""How much is on its way: a count per state, kept by tickets."""

from dataclasses import dataclass


@dataclass(slots=True)
class Load:
    """How many deliveries are in which state; changed by tickets alone."""

    waiting: int = 0
    handed: int = 0
    ended: int = 0

    @property
    def out(self) -> int:
        """How many have no end yet."""
        return self.waiting + self.handed

    @property
    def all(self) -> int:
        """How many are on their way, or not written down yet."""
        return self.waiting + self.handed + self.ended
