"""A clock for tests: it stands still until it is set."""

from dataclasses import dataclass


@dataclass
class StandingClock:
    """A clock whose instant is ``at``, in seconds."""

    at: float

    def __call__(self) -> float:
        """Return the instant."""
        return self.at

    @property
    def milliseconds(self) -> int:
        """The instant as the database keeps it."""
        return int(self.at * 1000)
