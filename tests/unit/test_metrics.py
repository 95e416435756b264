import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

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
    VerdictLost,
)
from handbell.delivery.observe.metrics import (
    BUCKETS,
    MOST_APPS,
    BrokerFigures,
    EngineState,
    Metrics,
)
from handbell.errors import DatabaseLockedError
from handbell.registry.session import Environment  # noqa: TC001 - not worth a block

PAGE = (Path(__file__).parents[2] / "docs/metrics.md").read_text(encoding="utf-8")
APP = "TEAM123456.com.sample.myapp"
STATE = EngineState(
    depth=4, oldest_age_seconds=1.5, in_flight=3, connections=2, held=5, dead_letters=2
)
BROKER = BrokerFigures(
    is_up=True,
    messages={("bulk", "held"): 7},
    stored_bytes=900,
    unpublished=2,
    oldest_unpublished_seconds=6.5,
)


def failed(**changed: object) -> DeliveryFailed:
    """Return a failure."""
    values: dict[str, object] = {
        "app": APP,
        "at": 0.0,
        "notification_id": "a",
        "number": 1,
        "mail": None,
        "state": "failed",
        "reason": "Unregistered",
        "status": 410,
        "attempts": 1,
        "environment": "production",
    }
    return DeliveryFailed(**{**values, **changed})  # type: ignore[arg-type]


def sent(*seconds: float) -> PushesSent:
    """Return a round of accepted pushes."""
    return PushesSent(
        app=APP, at=0.0, notification_ids=("a",), environment="production", seconds=seconds
    )


EVERYTHING: tuple[Event, ...] = (
    NotificationAccepted(app=APP, at=0.0, notification_id="a", targets=None),
    NotificationsAccepted(app=APP, at=0.0, notification_ids=("b", "c"), targets=2),
    sent(0.004),
    failed(),
    DeliveryHeld(
        app=APP, at=0.0, notification_id="a", number=1, reason="Shutdown", until=1.0, attempts=1
    ),
    SessionClosed(app=APP, at=0.0, session_id=1, mail=None, reason="Unregistered"),
    SessionQuarantined(app=APP, at=0.0, session_id=1, mail=None, reason="BadDeviceToken"),
    SessionMoved(app=APP, at=0.0, session_id=1, environment="development"),
    CircuitOpened(app=APP, at=0.0, reason="BadTopic", detail="", probe_at=1.0),
    ServiceDown(
        app=APP, at=0.0, environment="production", reason="HTTP 502", detail="", probe_at=1.0
    ),
    ProbeSent(app=APP, at=0.0, environment="production", circuit="service", is_passed=False),
    VerdictLost(
        app=APP, at=0.0, notification_id="a", number=1, environment="production", status=403
    ),
)


def families(metrics: Metrics) -> list[Metric]:
    """Return what Prometheus reads."""
    return list(text_string_to_metric_families(metrics.render().decode()))


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Return one sample, or None."""
    for family in families(metrics):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


def after(events: Iterable[Event]) -> Metrics:
    """Return metrics that have counted events."""
    metrics = Metrics()
    for event in events:
        metrics(event)
    return metrics


def test_failures_are_counted_by_app_environment_state_and_reason() -> None:
    """Two failures of one kind count two, another one counts for itself."""
    metrics = after([failed(), failed(), failed(reason="BadTopic")])
    name = "handbell_deliveries_failed_total"
    labels = {"app": APP, "service": "apns", "environment": "production", "state": "failed"}
    assert value(metrics, name, **labels, reason="Unregistered") == 2
    assert value(metrics, name, **labels, reason="BadTopic") == 1


def test_latency_is_a_histogram_whose_buckets_add_up() -> None:
    """Each push is in every bucket at or above its time, and the sum and the count are right."""
    metrics = after([sent(0.004, 0.005, 0.3), sent(0.3, 99.0)])
    labels = {"app": APP, "service": "apns", "environment": "production"}
    name = "handbell_push_seconds"
    found = [value(metrics, f"{name}_bucket", **labels, le=str(bound)) for bound in BUCKETS]
    assert found == [2, 2, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4, 4]
    assert value(metrics, f"{name}_bucket", **labels, le="+Inf") == 5
    assert value(metrics, f"{name}_count", **labels) == 5
    assert value(metrics, f"{name}_sum", **labels) == pytest.approx(99.609)
    assert value(metrics, "handbell_pushes_sent_total", **labels) == 5


def test_the_circuit_is_a_gauge() -> None:
    """It is 1 from the stop to the moment sending goes on."""
    stop = CircuitOpened(app=APP, at=0.0, reason="BadTopic", detail="", probe_at=1.0)
    metrics = after([stop])
    assert value(metrics, "handbell_circuit_open", app=APP) == 1
    metrics(CircuitClosed(app=APP, at=0.0))
    assert value(metrics, "handbell_circuit_open", app=APP) == 0
    assert value(metrics, "handbell_circuit_opened_total", app=APP, reason="BadTopic") == 1


def test_an_app_is_stopped_as_long_as_one_of_its_circuits_is_open() -> None:
    """The gauge is one for the app, whichever environment or topic is stopped."""
    metrics = Metrics()
    for environment in ("production", "development"):
        metrics(
            CircuitOpened(
                app=APP, at=0.0, reason="x", detail="", probe_at=1.0, environment=environment
            )
        )
    closings: tuple[tuple[Environment, int], ...] = (("development", 1), ("production", 0))
    for environment, is_open in closings:
        metrics(CircuitClosed(app=APP, at=0.0, environment=environment))
        assert value(metrics, "handbell_circuit_open", app=APP) == is_open


def test_an_outage_is_a_gauge_and_its_probes_are_counted() -> None:
    """It is 1 from the first sign to the first push that is taken."""
    labels = {"app": APP, "service": "apns", "environment": "production"}
    metrics = after(EVERYTHING)
    assert value(metrics, "handbell_service_down", **labels) == 1
    metrics(ServiceUp(app=APP, at=0.0, environment="production"))
    metrics(ProbeSent(app=APP, at=0.0, environment="production", circuit="service", is_passed=True))
    assert value(metrics, "handbell_service_down", **labels) == 0
    assert value(metrics, "handbell_service_outages_total", **labels, reason="other") == 1
    for outcome in ("passed", "failed"):
        probed = {**labels, "circuit": "service", "outcome": outcome}
        assert value(metrics, "handbell_probes_total", **probed) == 1
    assert value(metrics, "handbell_verdicts_lost_total", **labels) == 1


def test_the_engine_is_asked_at_each_rendering() -> None:
    """Gauges show how the engine stands now, and are left out while it cannot say."""
    answers = [STATE]

    def observe() -> EngineState:
        if not answers:
            raise DatabaseLockedError("The database is locked")
        return answers.pop()

    metrics = Metrics(observe)
    shown = {
        sample.name: sample.value
        for family in families(metrics)
        if not family.name.startswith("handbell_revocation_seconds")
        for sample in family.samples
    }
    assert shown == {
        "handbell_queue_depth": 4,
        "handbell_queue_oldest_seconds": 1.5,
        "handbell_queue_held": 5,
        "handbell_dead_letters": 2,
        "handbell_pushes_in_flight": 3,
        "handbell_connections": 2,
    }
    assert value(metrics, "handbell_queue_depth") is None


def test_a_broker_that_is_away_has_no_figures() -> None:
    """That it is away is told; what its stream held is not, nor is anything without a broker."""
    for is_up in (True, False):
        figures = BROKER if is_up else BrokerFigures(is_up=False)
        metrics = Metrics(lambda figures=figures: replace(STATE, broker=figures))  # type: ignore[misc]
        assert value(metrics, "handbell_broker_up") == is_up
        held = value(metrics, "handbell_broker_messages", urgency="bulk", state="held")
        assert held == (7 if is_up else None)
        assert value(metrics, "handbell_broker_unpublished") == (2 if is_up else None)


def test_labels_stay_few() -> None:
    """What a push service makes up is one reason, and too many apps share one label."""
    metrics = after(failed(reason=f"Reason{number}") for number in range(50))
    for number in range(MOST_APPS + 10):
        metrics(NotificationAccepted(app=f"app{number}", at=0.0, notification_id="a", targets=1))
    found = {family.name: family.samples for family in families(metrics)}
    reasons = {sample.labels["reason"] for sample in found["handbell_deliveries_failed"]}
    apps = {sample.labels["app"] for sample in found["handbell_notifications_accepted"]}
    assert reasons == {"other"}
    assert len(apps) == MOST_APPS
    assert value(metrics, "handbell_notifications_accepted_total", app="other") == 11


def test_metrics_share_nothing() -> None:
    """Two of them in one process count apart, and the library's global registry stays empty."""
    first, second = after([failed()]), Metrics()
    assert families(first) != families(second)


def test_every_metric_is_documented() -> None:
    """docs/metrics.md lists each metric with its type, labels and meaning, and no other."""
    metrics = after(EVERYTHING)
    metrics.observe(lambda: replace(STATE, broker=BROKER))
    expected = set()
    for family in families(metrics):
        if family.name.endswith("_created"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(label for label in family.samples[0].labels if label != "le")
        expected.add((name, family.type, labels, family.documentation))
    rows = re.findall(r"^\| `(handbell_\w+)` \| (\w+) \|(.*?)\| (.+) \|$", PAGE, re.MULTILINE)
    listed = {(name, kind, _sorted(labels), about) for name, kind, labels, about in rows}
    assert listed == {
        (name, kind, _sorted(labels), about) for name, kind, labels, about in expected
    }


def _sorted(labels: str) -> str:
    return ", ".join(sorted(label.strip() for label in labels.split(",")))


def test_notifications_of_a_stream_count_each() -> None:
    """One event for many adds as many as it names."""
    metrics = Metrics()
    for number in (1, 1000):
        ids = tuple(f"{one:015x}" for one in range(number))
        metrics(NotificationsAccepted(app=APP, at=0.0, notification_ids=ids, targets=number))
    assert value(metrics, "handbell_notifications_accepted_total", app=APP) == 1001
