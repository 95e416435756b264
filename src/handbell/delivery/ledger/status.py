"""The status of an installation: nodes, queue, rates, open circuits, webhook backlog."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from time import time
from typing import Final

from sqlalchemy import Connection, func, select

from handbell.delivery.queue.broker_state import BrokerBoard, BrokerState
from handbell.delivery.queue.depth import Depth, count_dead_letters, read_depths
from handbell.delivery.queue.nodes import Node, read_nodes
from handbell.storage.database import Database
from handbell.storage.migrations import HEAD
from handbell.storage.tables import circuits, webhook_calls

_SHORTEST_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The activity of all living nodes in the last five minutes: counts, and per second."""

    accepted: int = 0
    sent: int = 0
    failed: int = 0
    accepted_per_second: float = 0.0
    sent_per_second: float = 0.0
    failed_per_second: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCircuit:
    """An open circuit: of an app, or of a push service if ``app`` is empty.

    ``stopped_at`` and ``probe_at`` (when the next probe is due) are UNIX milliseconds.
    """

    app: str
    environment: str
    topic: str
    reason: str
    detail: str
    stopped_at: int
    probe_at: int
    probes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookBacklog:
    """Waiting webhook calls, and how many of them are due."""

    waiting: int
    due: int
    oldest_due_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The state of an installation at ``read_at`` (UNIX milliseconds), in one snapshot.

    ``database`` is its name without a password, ``database_kind`` is ``sqlite`` or ``postgresql``.
    ``queue`` has each urgency, the most urgent first. ``broker`` is None where the rows alone hand
    out the work. ``dead_letters`` counts those of all apps.
    """

    read_at: int
    database: str
    database_kind: str
    revision: str
    nodes: tuple[Node, ...]
    queue: tuple[Depth, ...]
    rates: Rates
    circuits: tuple[OpenCircuit, ...]
    webhooks: WebhookBacklog
    dead_letters: int
    broker: BrokerState | None = None

    @property
    def workers(self) -> int:
        """Return how many nodes take work from the queue now."""
        return sum(
            node.is_sending and not node.is_gone and node.broker_away_since is None
            for node in self.nodes
        )

    @property
    def due(self) -> int:
        """Return how many deliveries of all urgencies are due."""
        return sum(depth.due for depth in self.queue)

    @property
    def later(self) -> int:
        """Return how many deliveries of all urgencies wait for later."""
        return sum(depth.later for depth in self.queue)

    @property
    def shards_due(self) -> int:
        """Return how many parts of broadcasts are due."""
        return sum(depth.shards_due for depth in self.queue)

    @property
    def oldest_due_at(self) -> int | None:
        """Return when the oldest due work fell due."""
        return min(
            (depth.oldest_due_at for depth in self.queue if depth.oldest_due_at), default=None
        )

    @property
    def next_at(self) -> int | None:
        """Return when the next work falls due."""
        return min((depth.next_at for depth in self.queue if depth.next_at), default=None)


class StatusBoard:
    """Reads the status of one installation; ``now`` gives UNIX seconds, as for its nodes.

    ``broker`` looks at its broker, where it has one.
    """

    def __init__(
        self,
        database: Database,
        broker: BrokerBoard | None = None,
        *,
        now: Callable[[], float] = time,
    ) -> None:
        self._database = database
        self._broker = broker
        self._now = now

    def read(self) -> Status:
        """Return the status; with a broker, outside of event loops only."""
        broker = None if self._broker is None else self._broker.read()
        now = int(self._now() * 1000)
        with self._database.read() as connection:
            found = read_nodes(connection, now)
            return Status(
                read_at=now,
                database=self._database.name,
                database_kind="postgresql" if self._database.path is None else "sqlite",
                revision=HEAD,
                nodes=tuple(found),
                queue=tuple(read_depths(connection, now)),
                rates=rates_of(found),
                circuits=tuple(_open_circuits(connection)),
                webhooks=_webhook_backlog(connection, now),
                dead_letters=count_dead_letters(connection),
                broker=broker and _with_absence(broker, found),
            )


def rates_of(found: Iterable[Node]) -> Rates:
    """Return the rates of the living ones among these nodes."""
    living = [node.figures for node in found if not node.is_gone and node.figures]

    def total(name: str) -> int:
        return int(sum(figures.get(name, 0) for figures in living))

    def per_second(name: str) -> float:
        each = (one.get(name, 0) / max(_SHORTEST_SECONDS, one.get("seconds", 0)) for one in living)
        return round(sum(each), 2)

    return Rates(
        accepted=total("accepted"),
        sent=total("sent"),
        failed=total("failed"),
        accepted_per_second=per_second("accepted"),
        sent_per_second=per_second("sent"),
        failed_per_second=per_second("failed"),
    )


def _with_absence(broker: BrokerState, found: Iterable[Node]) -> BrokerState:
    """Add since when living nodes miss a broker that is not reachable from here either."""
    if broker.is_reachable:
        return broker
    missed = [node.broker_away_since for node in found if not node.is_gone]
    return replace(broker, away_since=min(filter(None, missed), default=None))


def _open_circuits(connection: Connection) -> Iterable[OpenCircuit]:
    statement = select(circuits).where(circuits.c.reason.is_not(None))
    order = (circuits.c.app, circuits.c.environment, circuits.c.stopped_at)
    for row in connection.execute(statement.order_by(*order)):
        yield OpenCircuit(
            app=row.app,
            environment=row.environment,
            topic=row.topic,
            reason=row.reason,
            detail=row.detail or "",
            stopped_at=row.stopped_at,
            probe_at=row.probe_at,
            probes=row.probes,
        )


def _webhook_backlog(connection: Connection, now: int) -> WebhookBacklog:
    at = webhook_calls.c.due_at
    # A call in progress is due when the lease of its caller ends.
    is_due = (at <= now) & (webhook_calls.c.state == "queued")
    counted = select(func.count(), func.count().filter(is_due), func.min(at).filter(is_due)).where(
        at.is_not(None)
    )
    waiting, due, oldest = connection.execute(counted).one()
    return WebhookBacklog(waiting=waiting, due=due, oldest_due_at=oldest)
