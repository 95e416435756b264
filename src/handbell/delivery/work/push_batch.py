"""What a worker has in hand: pages of broadcasts, and batches of pushes handed to a gateway."""

import asyncio
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from handbell.delivery.policy.decision import FirstAnswer
from handbell.delivery.queue.due import Due
from handbell.delivery.queue.session_pages import Listener, Shard
from handbell.registry.session import Environment

from .app_state import AppState
from .composed import Composed
from .in_flight import Ticket
from .routes import Route

Item = Due | Listener
"""A delivery that is to be sent: a row that is due, or a session of a broadcast's page."""


class Portion(NamedTuple):
    """Deliveries of one notification that go out together."""

    composed: Composed
    items: Sequence[Item]


@dataclass(slots=True)
class Page:
    """A part of a shard that was handed out: where it ends, and its ticket, if anybody is in it."""

    end: int
    ticket: Ticket | None

    @property
    def has_ended(self) -> bool:
        """Whether all of it has an end, which is written before or together with the page's."""
        return self.ticket is None or not self.ticket.is_out


@dataclass(slots=True)
class Broadcast:
    """A shard in hand: its pages that are out, oldest first; it rests until ``ready_at``.

    ``route`` is the way that most of its last page went.
    """

    shard: Shard
    pages: deque[Page] = field(default_factory=deque)
    is_read: bool = False
    ready_at: float = 0.0
    app_state: AppState | None = None
    route: Route | None = None

    def is_of(self, app_ids: Collection[str]) -> bool:
        """Whether it is known to be of one of these apps."""
        return self.app_state is not None and self.app_state.app.id in app_ids

    def is_ready(self, now: float) -> bool:
        """Whether its next page may be handed out; the first answers are waited for."""
        is_waiting = self.app_state is not None and self.app_state.awaits_proof
        return self.ready_at <= now and not is_waiting


class PushBatch:
    """Pushes of one notification to one environment, handed to a gateway together.

    ``is_plain`` says that of a push that is accepted nothing but its number need be noted: no
    other environment was asked about it before. ``sent`` holds the numbers of those that are not
    cut yet, ``heard_at`` is when the first of them came back, by the loop's clock. ``ticket`` is
    that of its batch, ``route`` the way it goes, once that is known. ``asked_first`` are the pushes
    whose tokens another environment refused before. What is reported once ``is_over`` comes too
    late.
    """

    __slots__ = (
        "_ended",
        "_watched",
        "asked_first",
        "composed",
        "environment",
        "heard_at",
        "is_over",
        "is_plain",
        "items",
        "route",
        "sent",
        "started",
        "ticket",
        "tried",
    )

    def __init__(
        self,
        ticket: Ticket,
        composed: Composed,
        environment: Environment,
        items: dict[int, Item],
        started: float,
        *,
        tried: Mapping[int, FirstAnswer] | None = None,
        asked_first: "PushBatch | None" = None,
    ) -> None:
        self.route: Route | None = None
        self.asked_first = asked_first
        self.ticket = ticket
        self.composed = composed
        self.environment = environment
        self.items = items
        self.started = started
        self.tried = tried or {}
        self.is_over = False
        self.heard_at = 0.0
        self.is_plain = not self.tried and (ticket.is_page or all(map(_is_of_apns, items.values())))
        self.sent: list[int] = []
        self._ended: set[int] = set()
        self._watched: dict[int, asyncio.Future[None]] = {}

    def cut(self) -> list[int]:
        """Return the plain successes since the last cut."""
        sent, self.sent = self.sent, []
        return sent

    def note_end(self, number: int) -> None:
        """Note that a push was reported which is not a plain success."""
        self._ended.add(number)
        if (watched := self._watched.pop(number, None)) is not None:
            _set(watched)

    def is_over_for(self, number: int) -> bool:
        """Return whether what is reported of a push now comes too late, or a second time."""
        is_handed = self.ticket.is_handed(self.composed.row, number)
        return self.is_over or number in self._ended or not is_handed

    def is_out(self, number: int) -> bool:
        """Return whether a push of the batch was handed over and not reported yet."""
        return number in self.items and not self.is_over_for(number) and number not in self.sent

    def give_up(self) -> list[Item]:
        """Return what was handed over and is not reported yet; nothing more is taken of it."""
        self.is_over, self.is_plain = True, False
        reported = self._ended.union(self.sent)
        out = self.ticket.handed(self.composed.row)
        return [self.items[one] for one in out if one in self.items and one not in reported]

    def end_of(self, number: int) -> "asyncio.Future[None]":
        """Return what is done when a push that is out has been reported."""
        # From now on each end is looked at singly.
        self.is_plain = False
        if number not in self._watched:
            self._watched[number] = asyncio.get_running_loop().create_future()
        # Whoever gives up waiting for it must not end the wait of others.
        return asyncio.shield(self._watched[number])

    def close(self) -> None:
        """Note that the gateway has let go of all of it; what it says from now on is too late."""
        self.is_over, self.is_plain = True, False
        for watched in self._watched.values():
            _set(watched)
        self._watched.clear()


def _is_of_apns(item: Item) -> bool:
    return item.gateway == "apns"


def _set(watched: "asyncio.Future[None]") -> None:
    if not watched.done():
        watched.set_result(None)
