"""Who goes first when a push service takes pushes again after an outage."""

from collections.abc import Callable
from typing import Final

from .circuit import Place, ServiceCircuit

_WAITING_SECONDS: Final = 1.0


class Ramps:
    """Grants what services may be sent after an outage, the urgent first; of one event loop.

    ``clock`` is the loop's.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: dict[tuple[Place, int], float] = {}

    def grant(self, service: ServiceCircuit, urgency: int, wanted: int, now: float) -> int:
        """Return how many of so many pushes of an urgency may go now; 0 where others go first.

        Whoever gets none asks again within a moment, or is not waited for.
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
