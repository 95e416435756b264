"""Work in flight: one ticket for each batch of deliveries that a worker has leased to send.

A ticket is acquired before anything of its batch goes out and is finished when the last of it is
recorded, or when the worker drops all its work. All counts of work in flight, per app and per
worker, derive from tickets.

**Invariant.** Each delivery of an open ticket is in exactly one of three states, and goes through
them in this order, passing one over at most:

========  =========================================================================
waiting   it is the worker's and may not go yet: for its rules, the rate, an answer
handed    it is with a gateway, or goes there, or nobody can judge its answer yet
ended     what became of it is known, and is not in the database yet
========  =========================================================================

After that the ticket knows it no more. What follows from these states, at any instant:

- an app's :class:`Load`, and that of all, are the sums over the open tickets;
- a ticket is open exactly as long as it has a delivery;
- its snapshot of the release log is held exactly as long as one is waiting or handed;
- the permission to probe an open circuit is held exactly as long as its delivery is handed;
- whoever counts under an app's cap and is not written down belongs to an open ticket.

A delivery cannot end twice, be handed over twice or be written twice: the second time it is not in
the state that it would leave, and nothing changes. :meth:`InFlight.faults` checks all of it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from handbell.delivery.policy.probe import Probe
from handbell.delivery.queue.due import Due
from handbell.delivery.queue.session_pages import Listener

from .app_state import AppState
from .composed import Composed
from .load import Load
from .release_log import SessionSnapshot

Item = Due | Listener
"""A delivery that is to be sent: a row that is due, or a session of a broadcast's page."""

_WAITING: Final = 0
_HANDED: Final = 1
_ENDED: Final = 2


class Ticket:
    """Deliveries of one app, from the moment that they are taken until they are written down.

    They are held in columns: the delivery at a place is ``items[place]``, of the notification
    ``composed[place]``; everything else names deliveries by their places. ``snapshot`` is when
    their sessions were read. ``is_page`` means a page of a broadcast.
    :meth:`InFlight.acquire` makes one.
    """

    __slots__ = (
        "_capped",
        "_flight",
        "_load",
        "_probe",
        "_probed",
        "_states",
        "app_state",
        "composed",
        "is_page",
        "items",
        "snapshot",
    )

    def __init__(
        self,
        flight: "InFlight",
        app_state: AppState,
        composed: Sequence[Composed],
        items: Sequence[Item],
        snapshot: SessionSnapshot,
        *,
        is_page: bool,
    ) -> None:
        self.app_state = app_state
        self.composed = composed
        self.items = items
        self.snapshot = snapshot
        self.is_page = is_page
        self._flight = flight
        self._states = bytearray(len(items))
        self._load = Load()
        self._capped: set[int] = set()
        self._probe: Probe | None = None
        self._probed = -1

    @property
    def is_out(self) -> bool:
        """Whether any of it has no end yet."""
        return self._load.out > 0

    @property
    def places(self) -> range:
        """The places of all its deliveries."""
        return range(len(self._states))

    def by_notification(self, places: Sequence[int]) -> list[tuple[Composed, Sequence[int]]]:
        """Return deliveries, at least one, grouped by adjacent ones of a notification."""
        of = self.composed
        if self.is_page:
            return [(of[0], places)]
        found: list[tuple[Composed, Sequence[int]]] = []
        last: Composed | None = None
        for place in places:
            composed = of[place]
            if composed is not last:
                last, mine = composed, list[int]()
                found.append((composed, mine))
            mine.append(place)
        return found

    def is_waiting(self, place: int) -> bool:
        """Return whether a delivery may not go yet."""
        return self._states[place] == _WAITING

    def is_handed(self, place: int) -> bool:
        """Return whether a delivery is with a gateway, or goes there."""
        return self._states[place] == _HANDED

    def is_probe(self, place: int) -> bool:
        """Return whether a delivery is the one push that was let through an open circuit."""
        return self._probe is not None and self._probed == place

    def hand(self, places: Iterable[int], probe: Probe | None = None) -> None:
        """Note that deliveries go to a gateway.

        With a ``probe`` it is a single one, which is given back by the ticket from now on.
        """
        states, moved = self._states, 0
        for place in places:
            if states[place] == _WAITING:
                states[place] = _HANDED
                moved += 1
                if probe is not None:
                    self._probe, self._probed = probe, place
        if moved:
            self._count(waiting=-moved, handed=moved)
        elif probe is not None:
            probe.release()

    def let_through(self, place: int, user_id: int) -> None:
        """Note that a delivery that has not ended counts under its app's cap, for a user."""
        if self._states[place] != _ENDED:
            self._capped.add(place)
            self.app_state.cap_in_flight.add(*self.key_of(place), user_id)

    def end(self, places: Iterable[int]) -> list[int]:
        """Note that what became of deliveries is known; return those that had not ended before."""
        states, waited = self._states, 0
        ended: list[int] = []
        for place in places:
            state = states[place]
            if state != _ENDED:
                states[place] = _ENDED
                waited += state == _WAITING
                ended.append(place)
        if not ended:
            return ended
        number = len(ended)
        self._count(waiting=-waited, handed=waited - number, ended=number)
        self._flight.note_ended(self, ended)
        if self._probe is not None and not self.is_handed(self._probed):
            self._give_back_probe()
        if not self.is_out:
            self.snapshot.end()
        return ended

    def leave_waiting(self) -> None:
        """End what waits; its rows stay as they are."""
        self.end([place for place in self.places if self.is_waiting(place)])

    def note_written(self, places: Sequence[int]) -> None:
        """Note that ended deliveries are recorded; for :class:`InFlight`."""
        self._count(ended=-min(len(places), self._load.ended))
        if self._capped:
            self._leave_cap(self._capped.intersection(places))
        if not self._load.all:
            self._flight.forget(self)

    def finish(self) -> None:
        """Drop all of it: what is unrecorded now is left to others."""
        load = self._load
        self._count(waiting=-load.waiting, handed=-load.handed, ended=-load.ended)
        self._states = bytearray([_ENDED]) * len(self._states)
        self._give_back_probe()
        self._leave_cap(self._capped)
        self.snapshot.end()
        self._flight.forget(self)

    def key_of(self, place: int) -> tuple[int, int]:
        """Return the key of a delivery's row: its notification's row, and its number."""
        return self.composed[place].row, self.items[place].number

    def _count(self, *, waiting: int = 0, handed: int = 0, ended: int = 0) -> None:
        """Count a change for itself, for its app and for all."""
        for load in (self._load, self.app_state.load, self._flight.load):
            load.waiting += waiting
            load.handed += handed
            load.ended += ended

    def _give_back_probe(self) -> None:
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.release()

    def _leave_cap(self, gone: Iterable[int]) -> None:
        for place in tuple(gone):
            self._capped.discard(place)
            row, number = self.key_of(place)
            self.app_state.cap_in_flight.remove(row, (number,))

    # For :class:`InFlight`

    def open(self) -> None:
        """Count its deliveries, which all wait; for :class:`InFlight`."""
        self._count(waiting=len(self._states))

    def load(self) -> Load:
        """Return how many of its deliveries are in which state, counted anew."""
        states = self._states
        return Load(states.count(_WAITING), states.count(_HANDED), self._load.ended)

    def faults(self) -> Iterator[str]:
        """Yield what does not hold of it; see the module."""
        if self.load() != self._load:
            yield f"a ticket counts {self._load}, its deliveries {self.load()}"
        if not self._load.all:
            yield "a ticket without a delivery is open"
        if self.snapshot.is_held is not self.is_out:
            yield f"its snapshot is held: {self.snapshot.is_held}, it is out: {self.is_out}"
        if self._probe is not None and not self.is_handed(self._probed):
            yield "a probe is held for what is not handed"
        if not self.capped <= self.app_state.cap_in_flight.keys():
            yield "what it let through a cap does not count there"

    @property
    def capped(self) -> frozenset[tuple[int, int]]:
        """Which of its deliveries count under the app's cap, by notification and number."""
        return frozenset(map(self.key_of, self._capped))

    @property
    def probe(self) -> Probe | None:
        """The permission that it holds, to probe an open circuit by one of its deliveries."""
        return self._probe


Ended = tuple[Ticket, Sequence[int]]
"""Deliveries that have ended together: their ticket, and their places."""


class InFlight:
    """All work in flight of one worker; belongs to one event loop. ``load`` counts it."""

    def __init__(self) -> None:
        self.load = Load()
        self._open: dict[Ticket, None] = {}
        self._ended: list[Ended] = []

    def __len__(self) -> int:
        return len(self._open)

    def acquire(
        self,
        app_state: AppState,
        composed: Sequence[Composed],
        items: Sequence[Item],
        snapshot: SessionSnapshot,
        *,
        is_page: bool = False,
    ) -> Ticket:
        """Return a ticket for deliveries that were taken; ``snapshot`` is the ticket's from now on.

        All of them wait at first.
        """
        ticket = Ticket(self, app_state, composed, items, snapshot, is_page=is_page)
        self._open[ticket] = None
        ticket.open()
        if not ticket.is_out:
            ticket.finish()
        return ticket

    def holds(self, probe: Probe) -> bool:
        """Return whether a ticket has a permission to probe, and gives it back."""
        return any(ticket.probe is probe for ticket in self._open)

    def cut(self) -> list[Ended]:
        """Return what has ended since the last cut; it is about to be written."""
        ended, self._ended = self._ended, []
        return ended

    def note_written(self, ended: Iterable[Ended]) -> None:
        """Note that cut deliveries are recorded, or never will be."""
        for ticket, places in ended:
            ticket.note_written(places)

    def leave_waiting(self) -> None:
        """End what waits with its rows unchanged: others have it by now."""
        for ticket in list(self._open):
            ticket.leave_waiting()

    def finish(self) -> None:
        """Drop everything: the worker has stopped."""
        for ticket in list(self._open):
            ticket.finish()
        self._ended.clear()

    def note_ended(self, ticket: Ticket, places: Sequence[int]) -> None:
        """Note what has ended; for tickets alone."""
        self._ended.append((ticket, places))

    def forget(self, ticket: Ticket) -> None:
        """Forget a ticket without deliveries; for tickets alone."""
        self._open.pop(ticket, None)

    def faults(self, app_states: Iterable[AppState], *, is_at_rest: bool = False) -> list[str]:
        """Return where the invariant does not hold, counting all of it anew; empty if it does.

        ``app_states`` are all of the worker's. ``is_at_rest`` says that nothing is being read for
        which somebody could have the permission to probe, and no ticket yet.
        """
        found = [fault for ticket in self._open for fault in ticket.faults()]
        totals = {app_state.app.id: Load() for app_state in app_states}
        for ticket in self._open:
            _add(totals[ticket.app_state.app.id], ticket.load())
        total = Load()
        for app_state in app_states:
            mine = totals[app_state.app.id]
            _add(total, mine)
            if app_state.load != mine:
                found.append(f"{app_state.app.id} counts {app_state.load}, its tickets {mine}")
            found += _faults_of_app(
                app_state, [one for one in self._open if one.app_state is app_state]
            )
            if is_at_rest:
                found += _faults_of_probes(app_state, {ticket.probe for ticket in self._open})
        if self.load != total:
            found.append(f"all count {self.load}, their tickets {total}")
        return found


def _faults_of_app(app_state: AppState, tickets: list[Ticket]) -> Iterator[str]:
    capped = {one for ticket in tickets for one in ticket.capped}
    if app_state.cap_in_flight.keys() != capped:
        yield f"{app_state.app.id} has others under its cap than its tickets"


def _faults_of_probes(app_state: AppState, held: set[Probe | None]) -> Iterator[str]:
    # A service's circuit is common to several apps, and any of them may probe it.
    for circuit in (circuit for route in app_state.routes for circuit in route.open):
        if circuit.probe not in held | {None}:
            yield f"{circuit.place} is probed by no ticket"


def _add(load: Load, more: Load) -> None:
    load.waiting += more.waiting
    load.handed += more.handed
    load.ended += more.ended
