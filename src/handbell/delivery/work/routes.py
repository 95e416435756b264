"""A worker's routes to push services, each with its circuits."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from handbell.delivery.policy.circuit import (
    Circuit,
    CircuitScope,
    CircuitStop,
    ConfigurationCircuit,
    ServiceCircuit,
    StoredCircuit,
)
from handbell.delivery.policy.probe import Probe
from handbell.delivery.policy.standing import is_refused

SOON_SECONDS: Final = 1.0
"""When a route is checked again while it is probed, in seconds."""


@dataclass(slots=True, eq=False)
class Route:
    """Where the pushes of one topic of an app go, with one credential, and what may stop them.

    ``is_last`` says that every other credential was found to be refused as well.
    """

    configuration: ConfigurationCircuit
    service: ServiceCircuit
    is_last: bool = False

    @property
    def app(self) -> str:
        """The id of the app."""
        return self.configuration.place.app

    @property
    def open(self) -> list[Circuit]:
        """The circuits on it that are open."""
        both: tuple[Circuit, ...] = (self.configuration, self.service)
        return [one for one in both if one.stop is not None]

    @property
    def stop(self) -> CircuitStop | None:
        """Why nothing goes on this route now, or None."""
        return self.configuration.stop or self.service.stop

    @property
    def is_refused(self) -> bool:
        """Whether it is stopped because its credential was refused, not tokens or the service."""
        return is_refused(self.configuration.stop)

    @property
    def is_probed(self) -> bool:
        """Whether a probe through an open circuit is pending."""
        return any(one.probe is not None for one in self.open)

    def is_due(self, now: float) -> bool:
        """Return whether one push may probe it now."""
        return bool(self.open) and all(one.may_probe(now) for one in self.open)

    def acquire(self, now: float) -> Probe | None:
        """Return the permission to send one push through all circuits that are open.

        None where none is open, one need not be probed yet, or is being probed. It is given back
        by :meth:`~handbell.delivery.policy.probe.Probe.release`.
        """
        if not self.is_due(now):
            return None
        probe = Probe(self)
        for one in self.open:
            one.probe = probe
        return probe

    def take_back(self, probe: Probe) -> None:
        """Let the next one probe who asks; see :class:`~handbell.delivery.policy.probe.Circuit`."""
        # One that a circuit outlived may be another's permission by now.
        for one in (self.configuration, self.service):
            if one.probe is probe:
                one.probe = None

    def resume_at(self, now: float) -> float:
        """Return when a stopped route is checked again (UNIX seconds)."""
        return now + max(SOON_SECONDS, *(one.wait(now) for one in self.open), 0.0)


Known = Mapping[CircuitScope, CircuitStop | None]
"""How circuits stood before the database was asked about them."""


class Routes:
    """All routes of one worker, and what the database says of their circuits.

    ``unwritten`` is what the database does not say yet. Belongs to one event loop.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.unwritten: dict[CircuitScope, StoredCircuit] = {}
        self._now = now
        self._routes: dict[CircuitScope, Route] = {}
        self._services: dict[CircuitScope, ServiceCircuit] = {}
        self._noted: dict[CircuitScope, StoredCircuit] = {}

    def of(self, place: CircuitScope) -> Route:
        """Return the route of an app to an environment, created on first use."""
        route = self._routes.get(place)
        if route is None:
            route = Route(ConfigurationCircuit(place), self._service(place.shared))
            self._routes[place] = route
            self._adopt(route.configuration, self._noted.pop(place, StoredCircuit(place)))
        return route

    def _service(self, place: CircuitScope) -> ServiceCircuit:
        return self._services.setdefault(place, ServiceCircuit(place))

    def apps_of(self, service: CircuitScope) -> list[str]:
        """Return the ids of the apps that were seen to use a service."""
        return sorted({one.app for one in self._routes.values() if one.service.place == service})

    def due(self) -> list[Circuit]:
        """Return the open circuits that are to be probed now."""
        now = self._now()
        return [one for one in self._all() if one.may_probe(now)]

    def wait(self, route: Route, seconds: float) -> None:
        """Let a route's open circuits wait for their next probe: others are probing them."""
        now = self._now()
        for one in route.open:
            if one.stop is not None and one.wait(now) < seconds:
                one.stop = replace(one.stop, probe_at=now + seconds)

    def move(self, jump: float) -> None:
        """Move the probes of the circuits by the wall clock's jump in seconds."""
        for circuit in self._all():
            circuit.move(jump)

    def _all(self) -> list[Circuit]:
        configurations = [one.configuration for one in self._routes.values()]
        return [*configurations, *self._services.values()]

    # What other processes have noted

    def known(self, routes: Iterable[Route] = ()) -> Known:
        """Return the states of circuits: of all services, and of an app's routes.

        Call it before the database is read.
        """
        circuits = [*(one.configuration for one in routes), *self._services.values()]
        return {one.place: one.stop for one in circuits}

    def adopt(
        self, noted: Iterable[StoredCircuit], before: Known, routes: Iterable[Route] = ()
    ) -> list[CircuitScope]:
        """Take over the stored circuits of an app's routes and of all services.

        What has changed since ``before``, or is not written yet, is known better here. Returns
        which of them others have closed.
        """
        found = {one.place: one for one in noted}
        self._noted.update(found)
        for place in found:
            if place.is_service:
                self._service(place)
        circuits = [*(one.configuration for one in routes), *self._services.values()]
        return [one.place for one in circuits if self._adopt_one(one, found, before)]

    def noted(self, places: Collection[CircuitScope]) -> list[StoredCircuit]:
        """Return circuits as they stand here."""
        return [
            StoredCircuit(one.place, stop=one.stop) for one in self._all() if one.place in places
        ]

    def adopt_open(self, route: Route, noted: Iterable[StoredCircuit]) -> list[CircuitScope]:
        """Take over how a route's open circuits stand; return which of them others have closed."""
        found = {one.place: one for one in noted}
        return [
            one.place
            for one in route.open
            if one.place not in self.unwritten
            and self._adopt(one, found.get(one.place, StoredCircuit(one.place)))
        ]

    def _adopt_one(
        self, circuit: Circuit, found: Mapping[CircuitScope, StoredCircuit], before: Known
    ) -> bool:
        place = circuit.place
        if place in self.unwritten or before.get(place) is not circuit.stop:
            return False
        return self._adopt(circuit, found.get(place, StoredCircuit(place)))

    def _adopt(self, circuit: Circuit, noted: StoredCircuit) -> bool:
        if isinstance(circuit, ConfigurationCircuit) and noted.accepted_at is not None:
            circuit.is_established = True
        return circuit.adopt(noted.stop, self._now())
