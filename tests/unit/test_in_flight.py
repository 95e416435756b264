"""A ticket counts each delivery once in each state, whatever is said of it."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell._thread_pool import ThreadPool
from handbell.apps.app import App
from handbell.delivery.policy.probe import Probe
from handbell.delivery.work.app_state import AppState
from handbell.delivery.work.app_states import AppStates
from handbell.delivery.work.in_flight import InFlight, Ticket
from handbell.delivery.work.release_log import ReleaseLog
from handbell.delivery.work.routes import Routes
from handbell.storage.storage_retry import StorageRetry

APP = App(team_id="TEAM123456", bundle_id="com.sample.myapp")
MOST = 10
SOME = st.sets(st.integers(0, MOST - 1))


class Circuit:
    """Counts the permissions that came back."""

    def __init__(self) -> None:
        self.back = 0

    def take_back(self, probe: Probe) -> None:
        """Count one."""
        self.back += bool(probe)


def _ticket(count: int = MOST) -> tuple[InFlight, AppState, ReleaseLog, Ticket]:
    flight, app_state, release_log = InFlight(), AppState(APP), ReleaseLog()
    composed: Any = [SimpleNamespace(row=place // 3) for place in range(count)]
    items: Any = [SimpleNamespace(number=place % 3) for place in range(count)]
    ticket = flight.acquire(app_state, composed, items, release_log.begin())
    return flight, app_state, release_log, ticket


@given(
    st.integers(0, MOST),
    st.lists(st.tuples(st.sampled_from(["hand", "end", "write", "cap"]), SOME)),
)
def test_whatever_is_said_of_deliveries_the_counts_add_up(
    count: int, said: list[tuple[str, set[int]]]
) -> None:
    """Handed, ended and written count once, in this order, of however many notifications."""
    flight, app_state, _, ticket = _ticket(count)
    left = set(range(count))
    for what, places in said:
        which = {one for one in places if one < count}
        if what == "hand":
            ticket.hand(which)
        elif what == "end":
            # A push that is reported twice ends once.
            assert set(ticket.end([*which, *which])) == left & which
            left -= which
        elif what == "cap":
            for one in which:
                ticket.let_through(one, user_id=one)
        else:
            flight.note_written(flight.cut())
        assert flight.faults([app_state]) == []
        assert flight.load.out == len(left)
    ticket.end(range(count))
    flight.note_written(flight.cut())
    assert (len(flight), flight.load.all, len(app_state.cap_in_flight)) == (0, 0, 0)


@given(SOME, SOME)
def test_a_ticket_that_is_finished_leaves_nothing_behind(handed: set[int], ended: set[int]) -> None:
    """Counts, snapshot, cap and probe are given back in whatever state it is, once."""
    flight, app_state, release_log, ticket = _ticket()
    for one in ticket.places:
        ticket.let_through(one, user_id=1)
    ticket.hand(handed)
    ticket.end(ended)
    cut = flight.cut()
    flight.finish()
    ticket.finish()
    flight.note_written(cut)
    assert ticket.end(ticket.places) == []
    assert flight.faults([app_state], is_at_rest=True) == []
    assert (len(flight), app_state.load.all, len(app_state.cap_in_flight)) == (0, 0, 0)
    release_log.add([1])
    assert len(release_log) == 0


@pytest.mark.parametrize(
    "end",
    [
        lambda ticket: ticket.end([3]),
        lambda ticket: ticket.finish(),
        lambda ticket: (ticket.end([3]), ticket.finish()),
    ],
    ids=["ended", "finished", "both"],
)
def test_a_probe_comes_back_once(end: Callable[[Ticket], object]) -> None:
    """It is held as long as its push is handed, and not longer; others' ends do not matter."""
    _, _, _, ticket = _ticket()
    circuit = Circuit()
    ticket.hand([3], Probe(circuit))
    assert ticket.is_probe(3)
    ticket.end([1])
    assert circuit.back == 0
    end(ticket)
    assert circuit.back == 1


def test_a_probe_for_what_has_ended_comes_back_at_once() -> None:
    """A push that has ended before it was handed over probes nothing."""
    _, _, _, ticket = _ticket()
    circuit = Circuit()
    ticket.end([2])
    ticket.hand([2], Probe(circuit))
    assert circuit.back == 1


@pytest.mark.parametrize("spoil", ["waiting", "handed", "ended"])
def test_a_count_that_is_wrong_is_found(spoil: str) -> None:
    """The check counts anew: it fails where somebody else changes a count."""
    flight, app_state, _, _ = _ticket()
    setattr(app_state.load, spoil, getattr(app_state.load, spoil) + 1)
    assert flight.faults([app_state])


def test_what_makes_lanes_in_another_thread_disturbs_nobody() -> None:
    """Campaigns are loaded in threads, which ask for their apps' lanes: the list is a copy."""
    app_states = AppStates(
        cast("Any", None),
        InFlight(),
        Routes(float),
        rates=cast("Any", None),
        storage_retry=StorageRetry(ThreadPool(1, "test")),
        on_closed=lambda _: None,
        clock=float,
    )
    for _ in range(3):
        for number in range(3):
            app_states.of(App(team_id="TEAM123456", bundle_id=f"com.sample.app{number}"))
        for _app_state in app_states.all():
            app_states.of(
                App(team_id="TEAM123456", bundle_id=f"com.sample.other{len(app_states.all())}")
            )
