"""Collected outcomes of deliveries, until they are written: values only."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from handbell.delivery.delivery import State
from handbell.delivery.events import Event
from handbell.delivery.queue.work_queue import Settled
from handbell.registry.session import Environment


class Ending(NamedTuple):
    """What a delivery's row is to say from now on. Instants are UNIX milliseconds.

    ``gateway``, ``environment`` and ``urgency`` are for a row that does not exist yet. ``failures``
    is how often in a row our own code failed on it.
    """

    notification_id: int
    number: int
    gateway: str
    environment: Environment
    urgency: int
    state: State
    attempts: int
    reason: str | None = None
    detail: str | None = None
    status: int | None = None
    unique_id: str | None = None
    due_at: int | None = None
    is_repeat: bool = False
    sent_at: int | None = None
    finished_at: int | None = None
    begun_at: int | None = None
    failures: int = 0


class RestingShard(NamedTuple):
    """A shard that is given back until ``due_at`` (UNIX milliseconds), after so many failures."""

    due_at: int
    reason: str
    failures: int = 0


SentKey = tuple[int, str, str, int]
"""What pushes that were accepted have in common: notification, gateway, environment, urgency."""


@dataclass(slots=True)
class Batch:
    """The outcomes written in one transaction.

    ``sent`` holds, by notification row, gateway, environment and urgency, the numbers of pushes
    that were accepted and of which nothing else is to be said; they are dated when written.
    Session changes are by session id. ``resting_shards`` are given back until their time.
    ``adopted`` are deliveries, by notification and number, that wait for the end of an outage from
    now on, if they are held. ``webhook_events`` are the events of it that webhooks may be called
    for, ``awaited`` the rows of notifications whose callers may wait in other processes.
    """

    sent: dict[SentKey, list[int]] = field(default_factory=dict)
    endings: list[Ending] = field(default_factory=list)
    adopted: list[tuple[int, int]] = field(default_factory=list)
    accepted_sessions: list[int] = field(default_factory=list)
    moved: dict[int, Environment] = field(default_factory=dict)
    gone: dict[int, tuple[int | None, str]] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    positions: dict[int, int] = field(default_factory=dict)
    resting_shards: dict[int, RestingShard] = field(default_factory=dict)
    finished_shards: list[int] = field(default_factory=list)
    webhook_events: list[Event] = field(default_factory=list)
    awaited: list[int] = field(default_factory=list)

    def rows(self) -> set[int]:
        """Return the rows of the notifications of which deliveries have ended, or wait."""
        ended = {ending.notification_id for ending in self.endings}
        return ended.union(row for row, *_ in self.sent)

    def settled(self) -> Iterator[Settled]:
        """Yield what the queue has to know of it once it is written."""
        for (row, *_), numbers in self.sent.items():
            yield Settled(row, numbers)
        for one in self.endings:
            yield Settled(one.notification_id, (one.number,), one.due_at)

    def parts(self) -> Iterator["Batch"]:
        """Yield batches of one change each, in the order in which they are written."""
        for name in Batch.__dataclass_fields__:
            changes: Any = getattr(self, name)
            is_mapping = isinstance(changes, dict)
            for change in list(changes.items()) if is_mapping else changes:
                part = Batch()
                setattr(part, name, dict([change]) if is_mapping else [change])
                yield part

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in Batch.__dataclass_fields__)


class OutcomeWriter(Protocol):
    """Writes the outcomes of deliveries, wherever they are kept."""

    def record(self, batch: Batch) -> set[int]:
        """Write a batch, all or nothing, and have it survive a crash; blocks.

        To write it again leaves every delivery, session and shard as it is, but for dates;
        attempts, hourly counts and webhook calls may be there twice then. Returns the sessions
        that stay as they are, although an answer would have closed or quarantined them. Raises
        StorageError where nothing could be written, ContradictionError where it never can be.
        """
