"""Outcomes that need a row are written many at a time, and stand there as if one by one."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select
from tests.scripted import EVERYBODY, Play, open_play

from handbell.creation.notification import Notification
from handbell.delivery.accept.store import Order
from handbell.delivery.record.outcome_batch import Batch, Ending
from handbell.storage.tables import deliveries

TEXT = st.one_of(st.none(), st.text(st.characters(exclude_characters="\0", codec="utf-8")))
INSTANT = st.one_of(st.none(), st.integers(0, 2**53))
ENDING = st.fixed_dictionaries(
    {
        "number": st.integers(1, 2**52 + 9),
        "gateway": st.sampled_from(["apns", "simulator"]),
        "environment": st.sampled_from(["production", "development"]),
        "urgency": st.sampled_from([1, 5, 9]),
        "state": st.sampled_from(["held", "failed", "sent"]),
        "attempts": st.integers(0, 200),
        "reason": TEXT,
        "detail": TEXT,
        "status": st.one_of(st.none(), st.integers(200, 599)),
        "unique_id": TEXT,
        "due_at": INSTANT,
        "is_repeat": st.booleans(),
        "sent_at": INSTANT,
        "finished_at": INSTANT,
        "begun_at": INSTANT,
    }
)
KEPT = {"gateway", "urgency"}
"""What a row that is there keeps of itself."""


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Play]:
    """Give a play with one stored notification."""
    with open_play(tmp_path_factory.mktemp("bulk"), people=0) as play:
        yield play


@pytest.fixture(scope="module")
def row(play: Play) -> int:
    """Give the row of a notification."""
    order = Order(app=play.app, content=Notification(title="Hello"), recipients=EVERYBODY)
    return play.system.sends.accept(order, None).row


def _read(play: Play, row: int) -> dict[int, dict[str, Any]]:
    statement = select(deliveries).where(deliveries.c.notification_id == row)
    with play.system.database.read() as connection:
        return {one["number"]: dict(one) for one in connection.execute(statement).mappings()}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rounds=st.lists(st.lists(ENDING, min_size=1, max_size=6), min_size=1, max_size=3))
def test_each_row_says_what_its_outcome_did(
    play: Play, row: int, rounds: list[list[dict[str, Any]]]
) -> None:
    """Whatever its columns hold and have in common, the first time and again."""
    expected: dict[int, dict[str, Any]] = {}
    for given_endings in rounds:
        endings = [Ending(notification_id=row, **one) for one in given_endings]
        play.system.recorder.record(Batch(endings=endings))
        for one in given_endings:
            former = expected.get(one["number"], one)
            kept = {name: former[name] for name in KEPT}
            # What may have been sent once stays a repeat.
            kept["is_repeat"] = former["is_repeat"] or one["is_repeat"]
            expected[one["number"]] = {**one, **kept}
    found = _read(play, row)
    with play.system.database.write() as connection:
        connection.execute(delete(deliveries).where(deliveries.c.notification_id == row))
    assert {
        number: {name: one[name] for name in expected[number]} for number, one in found.items()
    } == expected
    assert {one["worker_id"] for one in found.values()} == {None}


def test_a_push_that_is_accepted_after_retries_counts_them(play: Play, row: int) -> None:
    """It is written with those of first attempts, and keeps what it was tried before."""
    held = Ending(
        notification_id=row,
        number=7,
        gateway="apns",
        environment="production",
        urgency=5,
        state="held",
        attempts=3,
        reason="TooManyRequests",
        due_at=1,
        begun_at=1,
        is_repeat=True,
    )
    play.system.recorder.record(Batch(endings=[held]))
    play.system.recorder.record(Batch(sent={(row, "apns", "development", 5): [7, 8]}))
    found = _read(play, row)
    assert (found[7]["attempts"], found[8]["attempts"]) == (4, 1)
    assert found[7]["environment"] == "development"
    assert all(found[7][name] is None for name in ("reason", "due_at", "begun_at"))
    assert found[7]["is_repeat"]
