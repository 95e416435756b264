"""Faults on demand: which request is struck, how often, and what cannot be asked for."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.errors import TwinError
from handbell.services.apns.reasons import REASONS
from handbell.twin.faults import KINDS, Fault, FaultPlan

ONE, OTHER = "ab" * 32, "cd" * 32
SIDE = "production"


def kinds_struck(
    plan: FaultPlan, times: int, token: str = ONE, side: str = SIDE
) -> list[str | None]:
    """Return the kinds of fault that strike the next requests."""
    taken = [plan.take(side, token) for _ in range(times)]
    return [fault.kind if fault else None for fault in taken]


def test_a_fault_strikes_the_next_requests_and_is_used_up() -> None:
    """``count`` requests are struck, then all is well again."""
    plan = FaultPlan()
    plan.add("cut", count=2)
    assert kinds_struck(plan, 3) == ["cut", "cut", None]
    assert len(plan) == 0


def test_a_fault_waits_for_the_requests_before_it() -> None:
    """With ``after``, so many matching requests pass first."""
    plan = FaultPlan()
    plan.add("goaway", after=2)
    assert kinds_struck(plan, 4) == [None, None, "goaway", None]


def test_a_fault_strikes_its_token_and_side_alone() -> None:
    """``token`` (whatever its case) and ``side`` narrow it down."""
    plan = FaultPlan()
    plan.add("cut", token=ONE.upper())
    plan.add("reset", side="development")
    assert kinds_struck(plan, 1, token=OTHER) == [None]
    assert kinds_struck(plan, 1) == ["cut"]
    assert kinds_struck(plan, 1, token=OTHER, side="development") == ["reset"]


def test_the_oldest_fault_strikes_first() -> None:
    """Faults queue up behind each other."""
    plan = FaultPlan()
    for kind in ("cut", "reset", "silence"):
        plan.add(kind)
    assert kinds_struck(plan, 4) == ["cut", "reset", "silence", None]


def test_changes_are_told() -> None:
    """Whoever listens hears of each fault added, used, used up and removed."""
    told: list[tuple[str, int]] = []
    plan = FaultPlan(lambda event, fault: told.append((event, fault.left)))
    plan.add("cut", count=2)
    kinds_struck(plan, 2)
    kept = plan.add("cut")
    assert plan.remove(kept.id)
    assert not plan.remove(kept.id)
    plan.add("cut")
    plan.clear()
    assert told == [
        ("fault", 2),
        ("fault", 1),
        ("fault-removed", 0),
        ("fault", 1),
        ("fault-removed", 1),
        ("fault", 1),
        ("fault-removed", 1),
    ]


@pytest.mark.parametrize("reason", REASONS.values(), ids=lambda reason: reason.name)
def test_every_reason_comes_with_its_status(reason: Any) -> None:
    """A reason of Apple's table brings its own status."""
    assert FaultPlan().add("answer", reason=reason.name).status == reason.status


def test_a_fault_is_told_as_it_was_asked_for() -> None:
    """Its JSON has what was asked, the id, what is left, and nothing empty."""
    fault = FaultPlan().add("answer", status=429, reason="TooManyRequests", retry_after=7, count=3)
    assert fault.to_dict() == {
        "id": "fault-1",
        "kind": "answer",
        "count": 3,
        "left": 3,
        "status": 429,
        "reason": "TooManyRequests",
        "after": 0,
        "retry_after": 7,
        "graceful": True,
        "delivers": False,
    }


@pytest.mark.parametrize(
    ("posted", "word"),
    [
        ({}, "None"),
        ({"kind": "boom"}, "boom"),
        ({"kind": "answer"}, "needs a status"),
        ({"kind": "answer", "reason": "Unheard"}, "needs a status"),
        ({"kind": "answer", "status": 99}, "200 to 599"),
        ({"kind": "slow"}, "seconds"),
        ({"kind": "slow", "seconds": "1"}, "seconds"),
        ({"kind": "stream-limit"}, "limit"),
        ({"kind": "cut", "count": 0}, "count"),
        ({"kind": "cut", "count": True}, "count"),
        ({"kind": "cut", "side": "sandbox"}, "sandbox"),
        ({"kind": "cut", "token": 5}, "token"),
        ({"kind": "cut", "graceful": "no"}, "graceful"),
        ({"kind": "answer", "status": 200, "delivers": True}, "delivers"),
        ({"kind": "refuse-stream", "delivers": True}, "delivers"),
        ({"kind": "cut", "secs": 5}, "secs"),
        ({"kind": "cut", "afer": 5}, "after"),
    ],
)
def test_what_cannot_be_planned_is_named(posted: dict[str, Any], word: str) -> None:
    """An unusable fault is refused with the field at fault."""
    with pytest.raises(TwinError, match=word):
        FaultPlan().ask(posted)


@given(
    st.dictionaries(
        st.sampled_from([*Fault.__dataclass_fields__, "x"]),
        st.none() | st.integers() | st.floats() | st.text() | st.sampled_from([*KINDS]),
    )
)
def test_any_posted_fault_is_planned_or_refused(posted: dict[str, Any]) -> None:
    """No posted JSON object makes the plan fail in another way."""
    with contextlib.suppress(TwinError):
        assert Fault.read(posted, name="x").left >= 1


def test_a_reason_of_one_service_strikes_that_service() -> None:
    """FCM's code leaves Apple's sides alone, unless a side or a token names them."""
    plan = FaultPlan()
    plan.add("answer", reason="QUOTA_EXCEEDED")
    assert kinds_struck(plan, 1) == [None]
    assert kinds_struck(plan, 1, side="webpush") == [None]
    assert kinds_struck(plan, 1, side="fcm") == ["answer"]
    plan.add("answer", reason="QUOTA_EXCEEDED", token=ONE)
    assert kinds_struck(plan, 1) == ["answer"]


def test_the_token_endpoint_is_struck_by_name_alone() -> None:
    """Its own errors strike it and no push; another fault strikes it where it is named."""
    plan = FaultPlan()
    plan.add("cut")
    plan.add("answer", reason="invalid_grant")
    assert [plan.take("oauth", None), plan.take("oauth", None)] != [None, None]
    assert plan.take("oauth", None) is None
    assert kinds_struck(plan, 1, side="fcm") == ["cut"]
    plan.add("slow", seconds=1, side="oauth")
    assert plan.take("fcm", None) is None
    assert plan.take("oauth", None) is not None
