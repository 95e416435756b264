"""``handbell status``: nodes, queue, rates, open circuits and webhooks."""

from contextlib import closing
from typing import TYPE_CHECKING, Final

from rich.text import Text

from handbell._text import count, rough_span

from .context import system
from .output import Json, console, say, write_json, write_table

if TYPE_CHECKING:
    from handbell.delivery.ledger.status import OpenCircuit, Status
    from handbell.delivery.queue.broker_state import BrokerState
    from handbell.delivery.queue.depth import Depth
    from handbell.delivery.queue.nodes import Node

_MINUTE: Final = 60_000
_NODES: Final = ("", "node", "", "version", "since", "seen", "does")
_QUEUE: Final = ("", "urgency", "due", "oldest", "later", "next", "broadcasts")
_MESSAGES: Final = ("", "urgency", "messages waiting", "with workers", "redelivered")
_RATES: Final = ("", "last 5 minutes", "number", "per second")
_CIRCUITS: Final = ("", "app or service", "environment", "reason", "since", "next try")


def status(*, as_json: Json = False) -> None:
    """Show the state of the installation: nodes, queue, rates, what is stopped, webhooks.

    Reads the database, and looks at the broker where HANDBELL_ENGINE names one. In a pipe each line
    begins with its subject: node, queue, broker, messages, rate, circuit, webhooks or
    dead-letters.
    """
    parts = system()
    with closing(parts.database):
        found = parts.status.read()
    if as_json:
        write_json(found)
        return
    if console.is_terminal:
        say(f"{found.database}, schema {found.revision}")
    else:
        write_table(
            (), [("database", found.database, found.database_kind, found.revision)], empty=""
        )
    _section(
        "Nodes", _NODES, [_node(node, found) for node in found.nodes], "No server or worker runs."
    )
    _section("Queue", _QUEUE, [_depth(depth, found) for depth in found.queue], "")
    if found.broker is not None:
        _broker(found.broker, found)
    _section("Rates", _RATES, _rates(found), "")
    _section(
        "Stopped",
        _CIRCUITS,
        [_circuit(one, found) for one in found.circuits],
        "Nothing is stopped.",
    )
    _webhooks(found)
    _dead_letters(found.dead_letters)


def _section(
    title: str, columns: tuple[str, ...], rows: "list[tuple[object, ...]]", empty: str
) -> None:
    """Write a table under its title; in a pipe the first cell is the line's subject."""
    if console.is_terminal:
        console.print(Text(f"\n{title}", style="bold"))
        columns, rows = columns[1:], [row[1:] for row in rows]
    write_table(columns, rows, empty=empty)


def _node(node: "Node", status: "Status") -> tuple[object, ...]:
    if node.is_gone or node.broker_away_since is None:
        does = "gone" if node.is_gone else "sends" if node.is_sending else "does not send"
    else:
        does = f"lost the broker {_ago(node.broker_away_since, status)}"
    since, seen = _ago(node.started_at, status), _ago(node.seen_at, status)
    return "node", node.name, node.kind, node.version, since, seen, does


def _depth(depth: "Depth", status: "Status") -> tuple[object, ...]:
    parts = f"{depth.shards_due:,} due, {depth.shards_later:,} later"
    return (
        "queue",
        depth.urgency,
        f"{depth.due:,}",
        _ago(depth.oldest_due_at, status),
        f"{depth.later:,}",
        _ago(depth.next_at, status),
        parts if depth.shards_due or depth.shards_later else "",
    )


def _broker(broker: "BrokerState", status: "Status") -> None:
    """Write what a broker holds; where it is away, why and since when."""
    title = f"Broker {broker.address}, stream {broker.stream}"
    if not console.is_terminal:
        write_table((), [_broker_line(broker, status)], empty="")
    counts: list[tuple[object, ...]] = [
        ("messages", one.urgency, f"{one.waiting:,}", f"{one.held:,}", f"{one.redelivered:,}")
        for one in broker.by_urgency
    ]
    _section(title, _MESSAGES, counts, _without_messages(broker, status))
    if console.is_terminal and broker.by_urgency:
        say(f"{count(broker.messages, 'message')}, {count(broker.bytes, 'byte')}.")
        if broker.unpublished:
            lost = count(broker.unpublished, "delivery or shard", "deliveries and shards")
            oldest = _ago(broker.oldest_unpublished_at, status)
            say(f"{lost} without a message, the oldest {oldest}: a worker publishes them anew.")


def _broker_line(broker: "BrokerState", status: "Status") -> tuple[object, ...]:
    if not broker.is_reachable:
        away = _ago(broker.away_since, status)
        return "broker", broker.address, broker.stream, "away", away, broker.problem
    oldest = _ago(broker.oldest_unpublished_at, status)
    figures = broker.messages, broker.bytes, broker.unpublished, oldest
    return "broker", broker.address, broker.stream, "reachable", *figures


def _without_messages(broker: "BrokerState", status: "Status") -> str:
    if broker.is_reachable:
        return "It is reachable, and has no stream yet: the first server or worker makes it."
    lost = _ago(broker.away_since, status)
    away = f" Servers and workers lost it {lost}." if lost else ""
    return f"{broker.problem}.{away} What was accepted goes out when it is back."


def _rates(status: "Status") -> list[tuple[object, ...]]:
    rates = status.rates
    return [
        ("rate", "accepted", f"{rates.accepted:,}", f"{rates.accepted_per_second:,.1f}"),
        ("rate", "sent", f"{rates.sent:,}", f"{rates.sent_per_second:,.1f}"),
        ("rate", "failed", f"{rates.failed:,}", f"{rates.failed_per_second:,.1f}"),
    ]


def _circuit(circuit: "OpenCircuit", status: "Status") -> tuple[object, ...]:
    name = circuit.app or "the push service"
    since = _ago(circuit.stopped_at, status)
    is_soon = 0 <= circuit.probe_at - status.read_at < _MINUTE
    probe = "within a minute" if is_soon else _ago(circuit.probe_at, status)
    return "circuit", name, circuit.environment, circuit.reason, since, probe


def _webhooks(status: "Status") -> None:
    calls = status.webhooks
    if not console.is_terminal:
        row = ("webhooks", calls.waiting, calls.due, _ago(calls.oldest_due_at, status))
        write_table((), [row], empty="")
    elif calls.waiting:
        oldest = f", the oldest {_ago(calls.oldest_due_at, status)}" if calls.oldest_due_at else ""
        say("", f"Webhooks: {count(calls.waiting, 'call')} waiting, {calls.due:,} due{oldest}.")


def _dead_letters(number: int) -> None:
    if not console.is_terminal:
        write_table((), [("dead-letters", number)], empty="")
    elif number:
        say("", f"{count(number, 'dead letter')}: send again with handbell notification resend.")


def _ago(milliseconds: int | None, status: "Status") -> str:
    if milliseconds is None:
        return ""
    return rough_span((status.read_at - milliseconds) / 1000)
