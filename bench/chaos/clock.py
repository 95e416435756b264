"""The clocks of a machine, which a test may set and let run ahead."""

import time
from dataclasses import dataclass

from handbell.clocks import MachineClock, boot_id, seconds_since_boot


@dataclass
class Clock:
    """The machine's clocks, and how many seconds ahead of them twin and senders are.

    ``wrong`` is by how many seconds the wall's clock was set; the others cannot be.
    """

    ahead: float = 0.0
    wrong: float = 0.0

    def __call__(self) -> float:
        """Return the time in UNIX seconds."""
        return self.right() + self.wrong

    def right(self) -> float:
        """Return the time in UNIX seconds, by a clock that nobody has set."""
        return time.time() + self.ahead

    def steady(self) -> float:
        """Return seconds that only ever pass."""
        return time.monotonic() + self.ahead

    @property
    def machine(self) -> MachineClock:
        """The clock that all processes of the machine share."""
        return MachineClock(boot_id(), lambda: seconds_since_boot() + self.ahead)

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.ahead += seconds

    def set(self, seconds: float) -> None:
        """Set the wall's clock forward, or back."""
        self.wrong += seconds
