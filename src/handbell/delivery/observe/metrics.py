"""Prometheus metrics, as a hook. Needs the extra ``server``; docs/metrics.md lists the names."""

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from handbell.delivery.events import (
    CircuitClosed,
    CircuitOpened,
    DeliveryFailed,
    DeliveryHeld,
    Event,
    NotificationAccepted,
    NotificationsAccepted,
    ProbeSent,
    PushesSent,
    ServiceDown,
    ServiceUp,
    SessionClosed,
    SessionMoved,
    SessionQuarantined,
    SessionsReleased,
    VerdictLost,
)
from handbell.delivery.policy.meanings import OWN_REASONS
from handbell.errors import HandbellError
from handbell.services.table import SERVICES, service_of

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the latency histogram, in seconds."""
MOST_APPS: Final = 1000
"""The number of apps with their own series; the rest share ``other``."""
OTHER: Final = "other"

_WHERE: Final = ("app", "service", "environment")
_Place = tuple[str, str, str]
_ENVIRONMENTS: Final = frozenset({"production", "development", "twin"})


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineState:
    """A snapshot of an engine.

    ``depth`` counts deliveries that are due and not begun, ``oldest_age_seconds`` is how long the
    oldest has been due. ``held`` counts deliveries for a later time, ``in_flight`` the pushes on
    the wire, ``connections`` the open connections to push services. ``broker`` is None where there
    is none.
    """

    depth: int
    oldest_age_seconds: float
    in_flight: int
    connections: int
    held: int
    dead_letters: int = 0
    broker: "BrokerFigures | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerFigures:
    """A snapshot of a broker: whether it answers this process, and what it holds.

    ``messages`` are by urgency and state (``waiting``, ``held``, and ``redelivered``, which is a
    part of ``held``). All but ``is_up`` are None where the broker cannot be asked.
    """

    is_up: bool
    messages: Mapping[tuple[str, str], int] | None = None
    stored_bytes: int | None = None
    unpublished: int | None = None
    oldest_unpublished_seconds: float | None = None


class _Placed(Protocol):
    """An event of one push service and environment."""

    @property
    def service(self) -> str: ...
    @property
    def environment(self) -> str | None: ...


class Metrics:
    """Counts events: a hook for the engine, with a registry of its own.

    :meth:`observe` sets a function that returns the engine's state; it is called at each
    :meth:`render`. Every label has a bounded set of values: a reason that is in no table becomes
    ``other``, and so does the app after the first :data:`MOST_APPS`.
    """

    def __init__(self, observe: Callable[[], EngineState] | None = None) -> None:
        self._registry = CollectorRegistry()
        self._latency = _Latency()
        self._registry.register(self._latency)
        self._apps: set[str] = set()
        self._sent_by_place: dict[_Place, Counter] = {}
        self._open: set[tuple[str | None, ...]] = set()
        self._make_counters()
        if observe is not None:
            self.observe(observe)

    def observe(self, state: Callable[[], EngineState]) -> None:
        """Call ``state`` for the engine's state at each rendering. Call this once.

        It runs in the thread that renders. When it raises a
        :class:`~handbell.errors.HandbellError`, that rendering omits the gauges.
        """
        self._registry.register(_EngineGauges(state))

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format; safe in any thread."""
        return generate_latest(self._registry)

    def __call__(self, event: Event) -> None:
        """Count one event."""
        if isinstance(event, SessionsReleased):
            self._revocations.observe(event.waited)
            return
        app = self._app(event.app)
        if isinstance(event, PushesSent):
            # These come thousands of times a second.
            place = app, _service(event.service), _environment(event.environment)
            if place not in self._sent_by_place:
                self._sent_by_place[place] = self._sent.labels(*place)
            self._sent_by_place[place].inc(len(event.seconds))
            self._latency.add(place, event.seconds)
            return
        match event:
            case DeliveryFailed():
                reason = _reason(event.reason, event.service)
                self._failed.labels(*_where(app, event), event.state, reason).inc()
            case DeliveryHeld():
                reason = _reason(event.reason, event.service)
                self._held.labels(*_where(app, event), reason).inc()
            case _:
                self._count_rare(app, event)

    def _count_rare(self, app: str, event: Event) -> None:
        match event:
            case NotificationAccepted():
                self._accepted.labels(app).inc()
            case NotificationsAccepted():
                self._accepted.labels(app).inc(len(event.notification_ids))
            case SessionClosed():
                self._closed.labels(app, _reason(event.reason, event.service)).inc()
            case SessionQuarantined():
                self._quarantined.labels(app, _reason(event.reason, event.service)).inc()
            case SessionMoved():
                self._moved.labels(app, _environment(event.environment)).inc()
            case VerdictLost():
                self._lost.labels(*_where(app, event)).inc()
            case _:
                self._count_circuits(app, event)

    def _count_circuits(self, app: str, event: Event) -> None:
        match event:
            case CircuitOpened():
                if not event.has_other:
                    self._open.add((event.app, event.service, event.environment, event.topic))
                    self._circuit.labels(app).set(1)
                self._stops.labels(app, _reason(event.reason, event.service)).inc()
            case CircuitClosed():
                self._open.discard((event.app, event.service, event.environment, event.topic))
                is_open = any(one == event.app for one, *_ in self._open)
                self._circuit.labels(app).set(is_open)
            case ServiceDown():
                self._down.labels(*_where(app, event)).set(1)
                reason = _reason(event.reason, event.service)
                self._outages.labels(*_where(app, event), reason).inc()
            case ServiceUp():
                self._down.labels(*_where(app, event)).set(0)
            case ProbeSent():
                outcome = "passed" if event.is_passed else "failed"
                self._probes.labels(*_where(app, event), event.circuit, outcome).inc()

    def _app(self, app: str) -> str:
        if app not in self._apps:
            if len(self._apps) >= MOST_APPS:
                return OTHER
            self._apps.add(app)
        return app

    def _make_counters(self) -> None:
        self._accepted = self._counter(
            "notifications_accepted", "Notifications stored to be sent", "app"
        )
        self._sent = self._counter("pushes_sent", "Pushes that a push service accepted", *_WHERE)
        self._failed = self._counter(
            "deliveries_failed",
            "Deliveries that ended without being accepted",
            *(*_WHERE, "state", "reason"),
        )
        self._held = self._counter(
            "deliveries_held",
            "Times a delivery was held for a later attempt",
            *(*_WHERE, "reason"),
        )
        self._closed = self._counter(
            "sessions_closed", "Sessions whose device is gone", "app", "reason"
        )
        self._quarantined = self._counter(
            "sessions_quarantined", "Sessions whose token was refused", "app", "reason"
        )
        self._moved = self._counter(
            "sessions_moved", "Tokens found to live in this environment", "app", "environment"
        )
        self._lost = self._counter("verdicts_lost", "Refusals whose reason did not arrive", *_WHERE)
        self._make_circuits()

    def _make_circuits(self) -> None:
        self._stops = self._counter(
            "circuit_opened", "Times that an app's circuit opened", "app", "reason"
        )
        self._revocations = Histogram(
            "handbell_revocation_seconds",
            "Seconds until nothing was in flight to revoked sessions",
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._outages = self._counter(
            "service_outages", "Outages of a push service that an app met", *_WHERE, "reason"
        )
        self._probes = self._counter(
            "probes", "Pushes let through an open circuit", *_WHERE, "circuit", "outcome"
        )
        self._circuit = self._gauge("circuit_open", "1 while sending for the app is stopped", "app")
        self._down = self._gauge(
            "service_down", "1 during an outage of the push service for the app", *_WHERE
        )

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"handbell_{name}", about, labels, registry=self._registry)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"handbell_{name}", about, labels, registry=self._registry)


_COUNTED_AT_ONCE: Final = 1000


class _Latency(Collector):
    """The histogram of push durations.

    The library's histogram costs 1.5 us per value, where a whole push costs 20. Sorting a batch
    once and looking its buckets up costs 0.1 us.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[_Place, list[int]] = {}
        self._sums: dict[_Place, float] = {}
        self._uncounted: dict[_Place, list[float]] = {}

    def add(self, labels: _Place, seconds: tuple[float, ...]) -> None:
        """Count a batch under app, service and environment."""
        with self._lock:
            uncounted = self._uncounted.setdefault(labels, [])
            uncounted += seconds
            if len(uncounted) >= _COUNTED_AT_ONCE:
                self._count(labels)

    def _count(self, labels: _Place) -> None:
        ordered = sorted(self._uncounted.pop(labels))
        below = [bisect_right(ordered, bound) for bound in BUCKETS]
        counts = self._counts.setdefault(labels, [0] * (len(BUCKETS) + 1))
        for index, number in enumerate((*below, len(ordered))):
            counts[index] += number
        self._sums[labels] = self._sums.get(labels, 0.0) + sum(ordered)

    def collect(self) -> Iterator[Metric]:
        """Yield the histogram."""
        family = HistogramMetricFamily(
            "handbell_push_seconds",
            "Seconds from the hand-over of a push to its acceptance",
            labels=_WHERE,
        )
        with self._lock:
            for labels in list(self._uncounted):
                self._count(labels)
            for labels, counts in self._counts.items():
                bounds = (*(str(bound) for bound in BUCKETS), "+Inf")
                family.add_metric(
                    labels, list(zip(bounds, counts, strict=True)), self._sums[labels]
                )
        yield family


class _EngineGauges(Collector):
    """The gauges of an :class:`EngineState`."""

    def __init__(self, state: Callable[[], EngineState]) -> None:
        self._state = state

    def describe(self) -> Iterator[Metric]:
        """Yield nothing, so that registering does not call the engine."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Read the engine's state and yield its gauges."""
        try:
            state = self._state()
        except HandbellError:
            return
        for name, about, value in (
            ("queue_depth", "Due deliveries and shards that are not begun", state.depth),
            (
                "queue_oldest_seconds",
                "Age of the oldest due work, in seconds",
                state.oldest_age_seconds,
            ),
            (
                "queue_held",
                "Deliveries and shards that are due later",
                state.held,
            ),
            (
                "dead_letters",
                "Deliveries that Handbell gave up, to be sent again by hand",
                state.dead_letters,
            ),
            ("pushes_in_flight", "Pushes on the wire", state.in_flight),
            ("connections", "Open connections to push services", state.connections),
        ):
            yield GaugeMetricFamily(f"handbell_{name}", about, value=value)
        if state.broker is not None:
            yield from _broker_gauges(state.broker)


def _broker_gauges(broker: BrokerFigures) -> Iterator[Metric]:
    """Yield the gauges of a broker; those of its stream are missing while it cannot be asked."""
    for name, about, value in (
        ("broker_up", "1 while the broker answers this process", broker.is_up),
        ("broker_bytes", "Bytes of the stream's messages", broker.stored_bytes),
        (
            "broker_unpublished",
            "Due deliveries and shards that should have been taken and have no message",
            broker.unpublished,
        ),
        (
            "broker_unpublished_oldest_seconds",
            "Age of the oldest due work without a message, in seconds",
            broker.oldest_unpublished_seconds,
        ),
    ):
        if value is not None:
            yield GaugeMetricFamily(f"handbell_{name}", about, value=value)
    if broker.messages is not None:
        family = GaugeMetricFamily(
            "handbell_broker_messages", "Messages of the stream", labels=("urgency", "state")
        )
        for labels, number in broker.messages.items():
            family.add_metric(labels, number)
        yield family


def _environment(name: str | None) -> str:
    return name if name in _ENVIRONMENTS else OTHER


def _service(name: str) -> str:
    return name if name in SERVICES or name == "simulator" else OTHER


def _where(app: str, event: _Placed) -> _Place:
    return app, _service(event.service), _environment(event.environment)


def _reason(name: str, service: str = "apns") -> str:
    return name if name in OWN_REASONS or name in service_of(service).reasons else OTHER
