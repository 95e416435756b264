"""Batches of pushes that were handed to a gateway: of one notification, or of many."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from handbell.delivery.delivery import GatewayName
from handbell.delivery.policy.decision import FirstAnswer
from handbell.registry.session import Environment
from handbell.services.table import SERVICES, service_of

from .composed import Composed
from .in_flight import Item, Ticket
from .routes import Route


class Way(NamedTuple):
    """What pushes of one app have in common that one call of a gateway can send.

    ``topic`` is Apple's, or the origin of the push server that the addresses name. ``key`` is the
    fingerprint of an unregistered app's credential.
    """

    gateway: GatewayName
    environment: Environment
    topic: str
    key: str | None


def ways_of(ticket: Ticket, places: Iterable[int]) -> dict[Way, list[int]]:
    """Return which deliveries of a ticket go which way."""
    ways: dict[Way, list[int]] = {}
    of, items = ticket.composed, ticket.items
    last: Composed | None = None
    gateway = environment = server = ""
    mine: list[int] = []
    for place in places:
        composed, item = of[place], items[place]
        # Most go the way of the one before them.
        if (
            composed is not last
            or item.environment != environment
            or item.gateway != gateway
            or not item.token.startswith(server)
        ):
            last, gateway, environment = composed, item.gateway, item.environment
            way = way_of(composed, item)
            server = "" if service_of(gateway).origin_of is None else f"{way.topic}/"
            mine = ways.setdefault(way, [])
        mine.append(place)
    return ways


def way_of(composed: Composed, item: Item) -> Way:
    """Return the way of one delivery of a notification, which its push service can carry."""
    origin_of = service_of(item.gateway).origin_of
    return Way(
        item.gateway,
        item.environment,
        composed.topic(item.gateway) if origin_of is None else origin_of(item.token),
        None if composed.key is None else composed.key.fingerprint,
    )


class PushBatch:
    """Deliveries of a ticket that were handed to a gateway together, by their ``places`` in it.

    ``is_plain`` says that of a push that is accepted nothing but its place need be noted: no other
    environment was asked about it before. ``sent`` holds the places of those that are not cut yet,
    ``heard_at`` is when the first of them came back, by the loop's clock. ``route`` is the circuits
    on its way, once that is known. ``tried`` holds the answers of another environment that was
    asked before, as ``asked_first``. What is reported once ``is_over`` comes too late.
    """

    __slots__ = (
        "_reported",
        "_watched",
        "asked_first",
        "heard_at",
        "is_over",
        "is_plain",
        "places",
        "route",
        "sent",
        "started",
        "ticket",
        "tried",
        "way",
    )

    route: Route | None

    def __init__(
        self,
        ticket: Ticket,
        way: Way,
        places: Sequence[int],
        started: float,
        *,
        tried: Mapping[int, FirstAnswer] | None = None,
        asked_first: "PushBatch | None" = None,
    ) -> None:
        self.ticket = ticket
        self.way = way
        self.places = places
        self.started = started
        self.tried = tried or {}
        self.asked_first = asked_first
        self.route = None
        self.is_over = False
        self.heard_at = 0.0
        self.is_plain = not self.tried and way.gateway in SERVICES
        self.sent: list[int] = []
        self._reported: set[int] = set()
        self._watched: dict[int, asyncio.Future[None]] = {}

    @property
    def environment(self) -> Environment:
        """The environment that it goes to."""
        return self.way.environment

    @property
    def first(self) -> Composed:
        """The notification of its first push: all have the way in common."""
        return self.ticket.composed[self.places[0]]

    def cut(self) -> list[int]:
        """Return the plain successes since the last cut."""
        sent, self.sent = self.sent, []
        return sent

    def note_end(self, place: int) -> None:
        """Note a report that is not a plain success."""
        self._reported.add(place)
        if (watched := self._watched.pop(place, None)) is not None:
            _set(watched)

    def is_over_for(self, place: int) -> bool:
        """Return whether a report for a push now is late, or a repeat."""
        return self.is_over or place in self._reported or not self.ticket.is_handed(place)

    def out(self, numbers: Iterable[int]) -> list[int]:
        """Return which pushes with these numbers were handed over and not reported yet."""
        items, wanted = self.ticket.items, frozenset(numbers)
        found = [place for place in self.places if items[place].number in wanted]
        return [one for one in found if not self.is_over_for(one) and one not in self.sent]

    def give_up(self) -> list[int]:
        """Return pushes that were handed over and not reported; further reports are ignored."""
        self.is_over, self.is_plain = True, False
        reported, ticket = self._reported.union(self.sent), self.ticket
        return [one for one in self.places if ticket.is_handed(one) and one not in reported]

    def leave_out(self, places: Iterable[int]) -> None:
        """Remove deliveries that do not go to the gateway."""
        gone = frozenset(places)
        self.places = [place for place in self.places if place not in gone]

    def end_of(self, place: int) -> "asyncio.Future[None]":
        """Return a future that is done when a push has been reported."""
        # From now on each end is looked at singly.
        self.is_plain = False
        if place not in self._watched:
            self._watched[place] = asyncio.get_running_loop().create_future()
        # A waiter that is cancelled must not cancel the others.
        return asyncio.shield(self._watched[place])

    def close(self) -> None:
        """Note that the gateway has let go of all of it; what it says from now on is too late."""
        self.is_over, self.is_plain = True, False
        for watched in self._watched.values():
            _set(watched)
        self._watched.clear()


def _set(watched: "asyncio.Future[None]") -> None:
    if not watched.done():
        watched.set_result(None)
