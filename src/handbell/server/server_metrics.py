"""Metrics of the server: its requests, and the state of its engine."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from handbell.delivery.observe.metrics import BrokerFigures, EngineState
from handbell.delivery.queue.broker_state import BrokerState
from handbell.delivery.queue.depth import count_dead_letters, read_depths
from handbell.system import System

BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
"""Upper bounds of the histogram of requests, in seconds."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMetrics:
    """Counts the requests of one server by method, route and status."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._count = Counter(
            "handbell_requests",
            "Requests answered",
            ["method", "route", "status"],
            registry=self._registry,
        )
        # Looking up a child by its labels costs more than counting.
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._times: dict[str, Histogram] = {}
        self._seconds = Histogram(
            "handbell_request_seconds",
            "Seconds from a request's head to the end of its answer",
            ["route"],
            buckets=BUCKETS,
            registry=self._registry,
        )

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request; status 0 means that its client left first."""
        method = method if method in _METHODS else "other"
        counter = self._counters.get((method, route, status))
        if counter is None:
            counter = self._count.labels(method, route, str(status))
            self._counters[method, route, status] = counter
            self._times[route] = self._seconds.labels(route)
        counter.inc()
        self._times[route].observe(seconds)

    def render(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self._registry)


def engine_state(system: System) -> EngineState:
    """Return the engine's state: work of all processes, connections of this one.

    Call it in a thread: it reads the database and looks at the broker. Raises StorageError when the
    database fails.
    """
    broker = None if system.broker_board is None else system.broker_board.read()
    now = int(system.now() * 1000)
    with system.database.read() as connection:
        depths = read_depths(connection, now)
        dead_letters = count_dead_letters(connection)
    begun = [depth.oldest_due_at for depth in depths if depth.oldest_due_at is not None]
    return EngineState(
        depth=sum(depth.due + depth.shards_due for depth in depths),
        oldest_age_seconds=(now - min(begun)) / 1000 if begun else 0.0,
        in_flight=system.in_flight,
        connections=system.connections,
        held=sum(depth.later + depth.shards_later for depth in depths),
        dead_letters=dead_letters,
        broker=None if broker is None else _broker_figures(system, broker, now),
    )


def _broker_figures(system: System, state: BrokerState, now: int) -> BrokerFigures:
    if not state.is_reachable:
        return BrokerFigures(is_up=False)
    oldest = state.oldest_unpublished_at
    return BrokerFigures(
        is_up=system.broker_away_since is None,
        messages={
            (one.urgency, name): number
            for one in state.by_urgency
            for name, number in (
                ("waiting", one.waiting),
                ("held", one.held),
                ("redelivered", one.redelivered),
            )
        },
        stored_bytes=state.bytes,
        unpublished=state.unpublished,
        oldest_unpublished_seconds=0.0 if oldest is None else (now - oldest) / 1000,
    )
