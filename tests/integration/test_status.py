"""The status of an installation: who runs, what waits, how fast it goes, what is stopped."""

import time
from typing import Any

import pytest
from sqlalchemy import insert, update
from tests.conftest import Stage
from tests.serving import Server

from handbell._version import __version__
from handbell.creation.notification import Notification
from handbell.creation.recipients import EVERYBODY, Recipients
from handbell.delivery.engine import Options
from handbell.delivery.events import DeliveryFailed, NotificationsAccepted, PushesSent
from handbell.delivery.ledger.status import Status
from handbell.delivery.observe.recent import WINDOW_SECONDS, Recent
from handbell.delivery.policy.circuit import CircuitScope, CircuitStop, StoredCircuit
from handbell.delivery.queue.nodes import KEEP_SECONDS, Presence
from handbell.delivery.queue.workers import LEASE_SECONDS
from handbell.storage.migrations import HEAD
from handbell.storage.tables import nodes, webhook_calls
from handbell.system import System

pytestmark = pytest.mark.databases

MAIL = "user1@example.com"


def _age(system: System, seconds: float) -> None:
    """Let every node have been seen so long ago."""
    with system.database.write() as connection:
        earlier = nodes.c.seen_at - int(seconds * 1000)
        connection.execute(update(nodes).values(seen_at=earlier))


def _accept(server: Server, stage: Stage, to: object, how: dict[str, Any]) -> None:
    content = Notification.read({"title": "Hello"})
    named = EVERYBODY if to is None else Recipients.read(to)
    server.run(stage.system.engine.accept(stage.app, content, named, Options.read(**how)))


def _by_urgency(status: Status) -> dict[str, tuple[int, int, int, int]]:
    return {
        depth.urgency: (depth.due, depth.later, depth.shards_due, depth.shards_later)
        for depth in status.queue
    }


@pytest.mark.parametrize("has_worker", [True, False])
def test_a_server_is_a_node_as_long_as_it_runs(
    stage: Stage,
    has_worker: bool,  # noqa: FBT001 - of a table
) -> None:
    """It is there with its version and schema, whether it sends or not, and gone after its stop."""
    with Server(stage.system, with_worker=has_worker):
        deadline = time.monotonic() + 10
        while not (status := stage.system.status.read()).nodes and time.monotonic() < deadline:
            time.sleep(0.02)
        (node,) = status.nodes
        assert (node.kind, node.version, node.revision) == ("server", __version__, HEAD)
        assert (node.is_sending, node.is_gone) == (has_worker, False)
        assert status.workers == has_worker
        assert abs(node.seen_at / 1000 - time.time()) < 60
    assert stage.system.status.read().nodes == ()


def test_a_node_that_is_not_seen_is_shown_as_gone_and_then_forgotten(stage: Stage) -> None:
    """After a worker's lease it counts no more, after a day another one's beat removes it."""
    dead = Presence(stage.system.database, kind="worker", figures=lambda: {"seconds": 1.0})
    living = Presence(stage.system.database, kind="worker", figures=dict)
    dead.beat(5)
    assert stage.system.status.read().workers == 1
    _age(stage.system, LEASE_SECONDS + 1)
    living.beat(6)
    status = stage.system.status.read()
    assert [node.is_gone for node in status.nodes] == [True, False]
    assert status.workers == 1
    _age(stage.system, KEEP_SECONDS)
    living.beat(6)
    assert [node.is_gone for node in stage.system.status.read().nodes] == [False]
    # It was only slow: its next beat brings it back.
    dead.beat(5)
    assert len(stage.system.status.read().nodes) == 2


def test_the_queue_is_counted_by_urgency(stage: Stage) -> None:
    """Due and later, deliveries and parts of broadcasts, and since when the oldest is due."""
    stage.add_phone(MAIL)
    began = time.time()
    with Server(stage.system, with_worker=False) as server:
        stage.system.app_control.switch(stage.app, is_enabled=False)
        for urgency in ("urgent", "bulk"):
            _accept(server, stage, MAIL, {"urgency": urgency, "send_at": "2099-01-01T10:00Z"})
        _accept(server, stage, None, {"send_at": "2099-01-01T09:00Z"})
        status = stage.system.status.read()
        assert _by_urgency(status) == {
            "urgent": (0, 1, 0, 0),
            "normal": (0, 0, 0, 0),
            "bulk": (0, 1, 0, 1),
        }
        assert (status.due, status.later, status.oldest_due_at) == (0, 2, None)
        assert status.next_at == status.queue[2].next_at
        stage.system.now = lambda: began + 200 * 365 * 86_400
        late = stage.system.status.__class__(stage.system.database, now=stage.system.now).read()
    assert _by_urgency(late)["urgent"] == (1, 0, 0, 0)
    assert _by_urgency(late)["bulk"] == (1, 0, 1, 0)
    assert late.oldest_due_at == status.next_at


def test_what_is_stopped_and_what_waits_for_a_back_end_is_said(stage: Stage) -> None:
    """Open circuits with reason and next probe, and calls of webhooks that are due."""
    system = stage.system
    now = int(time.time() * 1000)
    stop = CircuitStop(reason="InvalidProviderToken", detail="", since=5.0, probe_at=7.0, probes=2)
    scope = CircuitScope(stage.app.id, "production", "f" * 64, stage.app.apple.bundle_id)
    system.rules_store.note(StoredCircuit(scope, None, stop))
    hook, _ = system.webhooks.add(
        stage.app, "https://hooks.example.com/handbell", events=["delivery.failed"]
    )
    with system.database.write() as connection:
        for place, due_at in enumerate((now - 60_000, now + 60_000_000)):
            connection.execute(
                insert(webhook_calls).values(
                    webhook_id=hook.id,
                    message_id=f"m{place}",
                    body="{}",
                    state="queued",
                    due_at=due_at,
                    created_at=1,
                )
            )
    status = system.status.read()
    (circuit,) = status.circuits
    assert (circuit.app, circuit.reason, circuit.probes) == (stage.app.id, stop.reason, 2)
    assert (circuit.stopped_at, circuit.probe_at) == (5000, 7000)
    assert (status.webhooks.waiting, status.webhooks.due) == (2, 1)
    assert status.webhooks.oldest_due_at == now - 60_000


def test_rates_are_of_the_last_minutes_and_of_all_living_nodes() -> None:
    """What is older is forgotten; cancelled is not failed; a node that is gone does nothing."""
    at = 1000.0
    recent = Recent(lambda: at)
    recent(NotificationsAccepted(app="a", at=1, notification_ids=("1", "2"), targets=2))
    recent(
        PushesSent(app="a", at=1, notification_ids=("1",), environment="twin", seconds=(0.1,) * 3)
    )
    failed: dict[str, Any] = {"app": "a", "at": 1, "notification_id": "1", "number": 1}
    failed |= {"mail": None, "reason": "x", "status": None, "attempts": 1}
    recent(DeliveryFailed(state="failed", **failed))
    recent(DeliveryFailed(state="cancelled", **failed))
    at += 60
    assert recent.figures() == {"seconds": 60.0, "accepted": 2, "sent": 3, "failed": 1}
    at += WINDOW_SECONDS
    assert recent.figures() == {"seconds": WINDOW_SECONDS, "accepted": 0, "sent": 0, "failed": 0}


def test_what_a_server_sends_is_in_the_rates_and_in_the_answer_of_the_api(stage: Stage) -> None:
    """`/v1/status` is for keys that administer every app, and says what the library says."""
    stage.add_phone(MAIL)
    with Server(stage.system) as server:
        content, to = Notification.read({"title": "Hello"}), Recipients.read(MAIL)
        server.run(stage.system.engine.send(stage.app, content, to))
        stage.system.presence.beat(stage.system.engine.worker.id)
        with server.client(server.key()) as client:
            answer = client.get("/v1/status")
        assert answer.status_code == 200, answer.text
        said = answer.json()
        assert (said["rates"]["accepted"], said["rates"]["sent"]) == (1, 1)
        assert said["rates"]["sent_per_second"] > 0
        assert said["database_kind"] in ("sqlite", "postgresql")
        assert [node["kind"] for node in said["nodes"]] == ["server"]
        assert [depth["urgency"] for depth in said["queue"]] == ["urgent", "normal", "bulk"]
        for key in (server.key("send"), server.key("administer", app=stage.app)):
            with server.client(key) as client:
                assert client.get("/v1/status").status_code == 403
