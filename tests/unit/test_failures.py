"""When what failed in our own code is tried again, as a table; and what is told of a failure."""

from random import Random

import pytest

from handbell.delivery.policy.failures import (
    INTERNAL_ERROR,
    INTERRUPTED,
    MOST_FAILURES,
    after_failure,
    in_words,
    loss_delay,
)
from handbell.delivery.policy.retry import GiveUp, RetryAt
from handbell.errors import StorageError

NOW = 1_800_000_000.0


class Least(Random):
    """No chance at all."""

    def random(self) -> float:
        """Return the smallest number."""
        return 0.0


@pytest.mark.parametrize(
    ("failures", "expires_in", "expected"),
    [
        (1, None, RetryAt(NOW + 5, INTERRUPTED)),
        (2, None, RetryAt(NOW + 30, INTERRUPTED)),
        (3, None, RetryAt(NOW + 180, INTERRUPTED)),
        (4, None, RetryAt(NOW + 900, INTERRUPTED)),
        (4, 901, RetryAt(NOW + 900, INTERRUPTED)),
        (4, 900, GiveUp("expired", INTERRUPTED, "it expires before it could be sent again")),
        (5, None, GiveUp("dead_letter", INTERNAL_ERROR, "it failed 5 times, at last with a bang")),
        (5, 900, GiveUp("dead_letter", INTERNAL_ERROR, "it failed 5 times, at last with a bang")),
    ],
)
def test_a_delivery_is_tried_a_few_times_and_never_forgotten(
    failures: int, expires_in: int | None, expected: RetryAt | GiveUp
) -> None:
    """The delays grow; what expires meanwhile expires, anything else is a dead letter."""
    found = after_failure(
        "a bang",
        failures=failures,
        first_due=NOW - 60,
        expires_at=None if expires_in is None else NOW + expires_in,
        now=NOW,
        rng=Least(),
    )
    assert found == expected


def test_the_first_loss_of_a_worker_delays_nothing() -> None:
    """Nor does the last one, after which nothing is sent."""
    delays = [loss_delay(losses, Least()) for losses in range(1, MOST_FAILURES + 1)]
    assert delays == [0, 5, 30, 180, 0]


def test_a_foreign_error_is_told_by_its_type_and_our_line() -> None:
    """Its text may be a secret; an error of ours is told by its words."""
    with pytest.raises(TypeError) as caught:
        loss_delay("a secret", Least())  # type: ignore[arg-type]
    told = in_words(caught.value)
    assert told.startswith("TypeError in handbell/delivery/policy/failures.py, line ")
    assert "secret" not in told
    assert in_words(ValueError("a secret")) == "ValueError"
    assert in_words(StorageError("The disk is full", fix="Make room")) == "The disk is full"
