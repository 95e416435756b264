"""Permissions to probe an open circuit: one push at a time, over all workers of a database."""

from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any, Final, Protocol

from handbell.delivery.policy.circuit import CircuitScope, StoredCircuit
from handbell.delivery.policy.probe import Probe
from handbell.delivery.policy.rules_store import RulesStore
from handbell.delivery.work.routes import Route, Routes
from handbell.errors import ContradictionError

ELSEWHERE_SECONDS: Final = 2.0
"""When a circuit is checked again while another worker probes it, in seconds."""


class Call(Protocol):
    """Calls a store function in a thread, retrying while the database is unavailable."""

    def __call__(self, what: Callable[..., Any], /, *arguments: Any) -> Awaitable[Any]:
        """Return the function's result."""


class Probes:
    """Gives one worker the permission to probe; belongs to its event loop.

    ``worker`` gives the worker's id. ``write_circuits`` writes unwritten circuit states,
    ``on_closed`` is called for a circuit that other workers have closed, and ``begin`` runs a
    task.
    """

    def __init__(
        self,
        rules_store: RulesStore,
        routes: Routes,
        *,
        worker: Callable[[], int],
        call: Call,
        write_circuits: Callable[[], Awaitable[None]],
        on_closed: Callable[[CircuitScope], None],
        begin: Callable[[Coroutine[Any, Any, None]], None],
        now: Callable[[], float],
    ) -> None:
        self._rules_store = rules_store
        self._routes = routes
        self._worker = worker
        self._call = call
        self._write_circuits = write_circuits
        self._on_closed = on_closed
        self._begin = begin
        self._now = now

    async def acquire(self, route: Route) -> Probe | None:
        """Return the permission to send one push through all circuits of a route that are open.

        None where none is open any more, one need not be probed yet, or is being probed, by this
        worker or another one.
        """
        probe = route.acquire(self._now())
        if probe is None:
            return None
        places, worker = [one.place for one in route.open], self._worker()
        try:
            is_mine, noted = await self._claim(places, worker)
        except BaseException:
            probe.release()
            raise
        if is_mine:
            probe.bind(_Claim(self, places, worker))
            return probe
        probe.release()
        for place in self._routes.adopt_open(route, noted):
            self._on_closed(place)
        self._routes.wait(route, ELSEWHERE_SECONDS)
        return None

    async def _claim(
        self, places: Collection[CircuitScope], worker: int
    ) -> tuple[bool, list[StoredCircuit]]:
        await self._write_circuits()
        try:
            found: tuple[bool, list[StoredCircuit]] = await self._call(
                self._rules_store.claim_probe, places, worker
            )
        except ContradictionError:
            # The worker is being struck off: it probes nothing under this id any more.
            return False, self._routes.noted(places)
        return found

    def release(self, places: Collection[CircuitScope], worker: int) -> None:
        """Let other workers probe, once the result of the probe is written."""
        self._begin(self._release(places, worker))

    async def _release(self, places: Collection[CircuitScope], worker: int) -> None:
        await self._write_circuits()
        await self._call(self._rules_store.release_probe, places, worker)


class _Claim:
    """A worker's claim in the database, until its probe is over."""

    def __init__(self, probes: Probes, places: Collection[CircuitScope], worker: int) -> None:
        self._probes = probes
        self._places = places
        self._worker = worker

    def take_back(self, _probe: Probe) -> None:
        """Let other workers probe."""
        self._probes.release(self._places, self._worker)
