"""Ramp-ups: after an outage, and of a push service that wants traffic to rise slowly."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from handbell.services.service import PushService
from handbell.services.table import service_of

from .circuit import CircuitScope, ServiceCircuit

_WAITING_SECONDS: Final = 1.0


@dataclass(slots=True)
class TrafficRamp:
    """How many pushes may go to a service that wants its traffic to rise slowly. Pure.

    Over the service's ``ramp_seconds`` the rate rises in proportion to time, from what one second
    of the first share allows to ``peak_per_second``; from then on it is free, until nothing was
    sent for as long. Of several workers each has an equal ``share`` of that rate. Instants are
    those of a monotonic clock, in seconds.
    """

    service: PushService
    began: float = -math.inf
    last: float = -math.inf
    granted: int = 0

    def grant(self, wanted: int, now: float, share: float = 1.0) -> int:
        """Return how many of ``wanted`` pushes may go now."""
        seconds, peak = self.service.ramp_seconds, self.service.peak_per_second * share
        if now - self.last > seconds:
            self.began, self.granted = now, 0
        passed = now - self.began
        if passed < seconds:
            # The area below a rate that rises from 0, and one second's worth at once.
            allowed = peak * (passed * passed / 2 + 1) / seconds
            wanted = min(wanted, max(0, int(allowed) - self.granted))
        if wanted:
            self.last = now
            self.granted += wanted
        return wanted


class RampUps:
    """Grants pushes to services that recover or begin, the urgent ones first; of one event loop.

    ``clock`` is the loop's.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: dict[tuple[CircuitScope, int], float] = {}
        self._traffic: dict[CircuitScope, TrafficRamp] = {}
        self._workers = 1

    def divide(self, workers: int) -> None:
        """Share the services' own ramps with so many workers, this one among them."""
        self._workers = workers

    def pace(self, service: ServiceCircuit, wanted: int) -> int:
        """Return how many of ``wanted`` pushes a service's own ramp allows now.

        A caller that is granted none asks again soon. The twin has no ramp.
        """
        place = service.place
        its = service_of(place.service)
        if not its.ramp_seconds or place.environment == "twin":
            return wanted
        ramp = self._traffic.setdefault(place, TrafficRamp(its))
        return ramp.grant(wanted, self._clock(), 1 / self._workers)

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
