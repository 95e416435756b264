"""Ramp-up after an outage: which pushes go first when a push service recovers."""

from collections.abc import Callable
from typing import Final

from .circuit import CircuitScope, ServiceCircuit

_WAITING_SECONDS: Final = 1.0


class RampUps:
    """Grants pushes to recovering services, the urgent ones first; belongs to one event loop.

    ``clock`` is the loop's.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: dict[tuple[CircuitScope, int], float] = {}

    def grant(self, service: ServiceCircuit, urgency: int, wanted: int, now: float) -> int:
        """Return how many of ``wanted`` pushes may go now; 0 while more urgent ones wait.

        A caller that is granted none must ask again soon, or loses its turn.
        """
        if service.credit is None:
            return wanted
        at = self._clock()
        mine = (service.place, urgency)
        is_behind = any(
            place == service.place and level > urgency and at - seen < _WAITING_SECONDS
            for (place, level), seen in self._waiting.items()
        )
        granted = 0 if is_behind else service.grant(wanted, now)
        if granted < wanted:
            self._waiting[mine] = at
        else:
            self._waiting.pop(mine, None)
        return granted
