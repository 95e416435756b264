"""What is on its way: one ticket for each batch of deliveries that a worker has taken to send.

A ticket is acquired before anything of its batch goes out and is finished when the last of it is
written down, or when the worker lets go of all it has. Whoever wants to know how much an app or a
worker has on its way asks here; nobody else counts.

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

from collections.abc import Collection, Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from handbell.delivery.policy.probe import Probe

from .app_state import AppState
from .load import Load
from .release_log import SessionSnapshot

Members = Iterable[tuple[int, Collection[int]]]
"""Deliveries: for each notification's row the numbers of those of it."""

_NONE: Final[frozenset[int]] = frozenset()


class Ended(NamedTuple):
    """Deliveries of a notification that have ended together."""

    ticket: "Ticket"
    row: int
    numbers: Collection[int]


class Ticket:
    """Deliveries of one app, from the moment that they are taken until they are written down.

    ``snapshot`` is when their sessions were read. ``is_page`` means a page of a broadcast.
    :meth:`InFlight.acquire` makes one.
    """

    __slots__ = (
        "_capped",
        "_ended",
        "_flight",
        "_handed",
        "_probe",
        "_probed",
        "_waiting",
        "app_state",
        "is_page",
        "snapshot",
    )

    def __init__(
        self, flight: "InFlight", app_state: AppState, snapshot: SessionSnapshot, *, is_page: bool
    ) -> None:
        self.app_state = app_state
        self.snapshot = snapshot
        self.is_page = is_page
        self._flight = flight
        self._waiting: dict[int, set[int]] = {}
        self._handed: dict[int, set[int]] = {}
        self._ended = 0
        self._capped: set[tuple[int, int]] = set()
        self._probe: Probe | None = None
        self._probed = (0, 0)

    @property
    def is_out(self) -> bool:
        """Whether any of it has no end yet."""
        return bool(self._waiting or self._handed)

    def is_waiting(self, row: int, number: int) -> bool:
        """Return whether a delivery may not go yet."""
        return number in self._waiting.get(row, _NONE)

    def is_handed(self, row: int, number: int) -> bool:
        """Return whether a delivery is with a gateway, or goes there."""
        return number in self._handed.get(row, _NONE)

    def handed(self, row: int) -> AbstractSet[int]:
        """Return which deliveries of a notification are with a gateway, or go there."""
        return self._handed.get(row, _NONE)

    def is_probe(self, row: int, number: int) -> bool:
        """Return whether a delivery is the one push that was let through an open circuit."""
        return self._probe is not None and self._probed == (row, number)

    def hand(self, row: int, numbers: Collection[int], probe: Probe | None = None) -> None:
        """Note that deliveries of a notification go to a gateway.

        With a ``probe`` it is a single one, which is given back by the ticket from now on.
        """
        moved = _take(self._waiting, row, numbers)
        if probe is not None:
            if not moved:
                probe.release()
                return
            self._probe, self._probed = probe, (row, next(iter(moved)))
        if moved:
            self._handed.setdefault(row, set()).update(moved)
            self._flight.count(self.app_state, waiting=-len(moved), handed=len(moved))

    def let_through(self, row: int, number: int, user_id: int) -> None:
        """Note that a delivery that has not ended counts under its app's cap, for a user."""
        if self.is_waiting(row, number) or self.is_handed(row, number):
            self._capped.add((row, number))
            self.app_state.cap_in_flight.add(row, number, user_id)

    def end(self, row: int, numbers: Collection[int]) -> Collection[int]:
        """Note that what became of deliveries is known; return those that had not ended before."""
        handed = _take(self._handed, row, numbers)
        if len(handed) == len(numbers):
            ended, waiting = numbers, 0
        else:
            rest = _take(self._waiting, row, numbers)
            ended, waiting = handed | rest, len(rest)
        if not ended:
            return _NONE
        self._ended += len(ended)
        self._flight.note_ended(Ended(self, row, ended), waiting)
        if self._probe is not None and not self.is_handed(*self._probed):
            self._give_back_probe()
        if not self.is_out:
            self.snapshot.end()
        return ended

    def leave_waiting(self) -> None:
        """End what waits; its rows stay as they are."""
        for row, numbers in list(self._waiting.items()):
            self.end(row, set(numbers))

    def note_written(self, row: int, numbers: Collection[int]) -> None:
        """Note that deliveries which ended are written down; for :class:`InFlight`."""
        number = min(len(numbers), self._ended)
        self._ended -= number
        self._flight.count(self.app_state, ended=-number)
        if self._capped:
            written = {(row, one) for one in numbers}
            self._leave_cap(self._capped & written)
        if not (self._ended or self.is_out):
            self._flight.forget(self)

    def finish(self) -> None:
        """Let go of all of it: what is not written down by now is somebody else's to send."""
        waiting, handed = _size(self._waiting), _size(self._handed)
        self._flight.count(self.app_state, waiting=-waiting, handed=-handed, ended=-self._ended)
        self._waiting.clear()
        self._handed.clear()
        self._ended = 0
        self._give_back_probe()
        self._leave_cap(set(self._capped))
        self.snapshot.end()
        self._flight.forget(self)

    def _give_back_probe(self) -> None:
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.release()

    def _leave_cap(self, gone: Collection[tuple[int, int]]) -> None:
        for row, number in gone:
            self._capped.discard((row, number))
            self.app_state.cap_in_flight.remove(row, (number,))

    # For :class:`InFlight`

    def take(self, members: Members) -> None:
        """Note the deliveries of the batch; for :class:`InFlight`."""
        for row, numbers in members:
            if numbers:
                self._waiting.setdefault(row, set()).update(numbers)
        self._flight.count(self.app_state, waiting=_size(self._waiting))

    def load(self) -> Load:
        """Return how many of its deliveries are in which state, counted anew."""
        return Load(_size(self._waiting), _size(self._handed), self._ended)

    def faults(self) -> Iterator[str]:
        """Yield what does not hold of it; see the module."""
        for row, numbers in self._waiting.items():
            if numbers & self._handed.get(row, _NONE):
                yield f"deliveries of {row} are waiting and handed at once"
        if not (self.is_out or self._ended):
            yield "a ticket without a delivery is open"
        if self.snapshot.is_held is not self.is_out:
            yield f"its snapshot is held: {self.snapshot.is_held}, it is out: {self.is_out}"
        if self._probe is not None and not self.is_handed(*self._probed):
            yield "a probe is held for what is not handed"
        if not self._capped <= self.app_state.cap_in_flight.keys():
            yield "what it let through a cap does not count there"

    @property
    def capped(self) -> frozenset[tuple[int, int]]:
        """Which of its deliveries count under the app's cap, by notification and number."""
        return frozenset(self._capped)

    @property
    def probe(self) -> Probe | None:
        """The permission that it holds, to probe an open circuit by one of its deliveries."""
        return self._probe


class InFlight:
    """All that one worker has on its way; belongs to one event loop. ``load`` is how much."""

    def __init__(self) -> None:
        self.load = Load()
        self._open: dict[Ticket, None] = {}
        self._ended: list[Ended] = []

    def __len__(self) -> int:
        return len(self._open)

    def acquire(
        self,
        app_state: AppState,
        members: Members,
        snapshot: SessionSnapshot,
        *,
        is_page: bool = False,
    ) -> Ticket:
        """Return a ticket for deliveries that were taken; ``snapshot`` is the ticket's from now on.

        All of them wait at first.
        """
        ticket = Ticket(self, app_state, snapshot, is_page=is_page)
        self._open[ticket] = None
        ticket.take(members)
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
        """Note that what was cut is written down, or never will be."""
        for ticket, row, numbers in ended:
            ticket.note_written(row, numbers)

    def leave_waiting(self) -> None:
        """Let what waits end as its rows are: it is somebody else's by now."""
        for ticket in list(self._open):
            ticket.leave_waiting()

    def finish(self) -> None:
        """Let go of everything: the worker has stopped."""
        for ticket in list(self._open):
            ticket.finish()
        self._ended.clear()

    def count(
        self, app_state: AppState, *, waiting: int = 0, handed: int = 0, ended: int = 0
    ) -> None:
        """Count a change of one ticket, for its app and for all; for tickets alone."""
        for load in (self.load, app_state.load):
            load.waiting += waiting
            load.handed += handed
            load.ended += ended

    def note_ended(self, ended: Ended, waiting: int) -> None:
        """Note what has ended, so many of it before they were handed over; for tickets alone."""
        number = len(ended.numbers)
        self._ended.append(ended)
        self.count(ended.ticket.app_state, waiting=-waiting, handed=waiting - number, ended=number)

    def forget(self, ticket: Ticket) -> None:
        """Know a ticket no more that has no delivery left; for tickets alone."""
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
            found += _faults_of_lane(
                app_state, [one for one in self._open if one.app_state is app_state]
            )
            if is_at_rest:
                found += _faults_of_probes(app_state, {ticket.probe for ticket in self._open})
        if self.load != total:
            found.append(f"all count {self.load}, their tickets {total}")
        return found


def _faults_of_lane(app_state: AppState, tickets: list[Ticket]) -> Iterator[str]:
    capped = {one for ticket in tickets for one in ticket.capped}
    if app_state.cap_in_flight.keys() != capped:
        yield f"{app_state.app.id} has others under its cap than its tickets"


def _faults_of_probes(app_state: AppState, held: set[Probe | None]) -> Iterator[str]:
    # A service's circuit is common to several apps, and any of them may probe it.
    for circuit in (circuit for route in app_state.routes for circuit in route.open):
        if circuit.probe not in held | {None}:
            yield f"{circuit.place} is probed by no ticket"


def _take(held: dict[int, set[int]], row: int, numbers: Collection[int]) -> set[int]:
    """Remove numbers of a notification from where they are held; return those that were there."""
    there = held.get(row)
    if there is None:
        return set()
    taken = there.intersection(numbers)
    there -= taken
    if not there:
        del held[row]
    return taken


def _size(held: dict[int, set[int]]) -> int:
    return sum(map(len, held.values()))


def _add(load: Load, more: Load) -> None:
    load.waiting += more.waiting
    load.handed += more.handed
    load.ended += more.ended
