"""A ticket counts each delivery once in each state, whatever is said of it."""

from collections.abc import Callable
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
SOME = st.sets(st.integers(0, 9))
ROW = 7


class Circuit:
    """Counts the permissions that came back."""

    def __init__(self) -> None:
        self.back = 0

    def take_back(self, probe: Probe) -> None:
        """Count one."""
        self.back += bool(probe)


def _ticket(numbers: set[int]) -> tuple[InFlight, AppState, ReleaseLog, Ticket]:
    flight, app_state, release_log = InFlight(), AppState(APP), ReleaseLog()
    return (
        flight,
        app_state,
        release_log,
        flight.acquire(app_state, [(ROW, numbers)], release_log.begin()),
    )


@given(SOME, st.lists(st.tuples(st.sampled_from(["hand", "end", "write", "cap"]), SOME)))
def test_whatever_is_said_of_deliveries_the_counts_add_up(
    numbers: set[int], said: list[tuple[str, set[int]]]
) -> None:
    """Handed, ended and written count once, in this order, and only for what was taken."""
    flight, app_state, _, ticket = _ticket(numbers)
    left = set(numbers)
    for what, which in said:
        if what == "hand":
            ticket.hand(ROW, which)
        elif what == "end":
            ended = set(ticket.end(ROW, which))
            assert ended == left & which
            left -= which
        elif what == "cap":
            for one in which:
                ticket.let_through(ROW, one, user_id=one)
        else:
            flight.note_written(flight.cut())
        assert flight.faults([app_state]) == []
        assert flight.load.out == len(left)
    ticket.end(ROW, numbers)
    flight.note_written(flight.cut())
    assert (len(flight), flight.load.all, len(app_state.cap_in_flight)) == (0, 0, 0)


@given(SOME, SOME, SOME)
def test_a_ticket_that_is_finished_leaves_nothing_behind(
    numbers: set[int], handed: set[int], ended: set[int]
) -> None:
    """Counts, reading, cap and probe are given back in whatever state it is, once."""
    flight, app_state, release_log, ticket = _ticket(numbers)
    for one in numbers:
        ticket.let_through(ROW, one, user_id=1)
    ticket.hand(ROW, handed)
    ticket.end(ROW, ended)
    cut = flight.cut()
    flight.finish()
    ticket.finish()
    flight.note_written(cut)
    assert ticket.end(ROW, numbers) == frozenset()
    assert flight.faults([app_state], is_at_rest=True) == []
    assert (len(flight), app_state.load.all, len(app_state.cap_in_flight)) == (0, 0, 0)
    release_log.add([1])
    assert len(release_log) == 0


@pytest.mark.parametrize(
    "end",
    [
        lambda ticket: ticket.end(ROW, [3]),
        lambda ticket: ticket.finish(),
        lambda ticket: (ticket.end(ROW, [3]), ticket.finish()),
    ],
    ids=["ended", "finished", "both"],
)
def test_a_probe_comes_back_once(end: Callable[[Ticket], object]) -> None:
    """It is held as long as its push is handed, and not longer; others' ends do not matter."""
    _, _, _, ticket = _ticket({1, 3})
    circuit = Circuit()
    ticket.hand(ROW, [3], Probe(circuit))
    assert ticket.is_probe(ROW, 3)
    ticket.end(ROW, [1])
    assert circuit.back == 0
    end(ticket)
    assert circuit.back == 1


def test_a_probe_for_what_is_not_there_comes_back_at_once() -> None:
    """A push that has ended before it was handed over probes nothing."""
    _, _, _, ticket = _ticket({1})
    circuit = Circuit()
    ticket.hand(ROW, [2], Probe(circuit))
    ticket.end(ROW, [1])
    assert circuit.back == 1


@pytest.mark.parametrize("spoil", ["waiting", "handed", "ended"])
def test_a_count_that_is_wrong_is_found(spoil: str) -> None:
    """The check counts anew: it fails where somebody else changes a count."""
    flight, app_state, _, _ = _ticket({1, 2})
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
