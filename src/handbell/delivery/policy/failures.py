"""What follows when our own code fails: a pure decision, tested as a table.

A failure counts where our code raised, or where a worker was lost with the work in its hands. An
answer of a push service is none, nor is a service, a network, a database or a broker that is away.
See docs/decisions/0038-dead-letters.md.
"""

from pathlib import PurePath
from random import Random
from traceback import walk_tb
from typing import Final

from handbell._back_off import BackOff
from handbell._text import count
from handbell.errors import HandbellError

from .retry import GiveUp, RetryAt, retry_deadline

MOST_FAILURES: Final = 5
"""The number of failures in a row after which a delivery becomes a dead letter."""
MOST_SHARD_FAILURES: Final = 3
"""The number of failures in a row after which a shard is broken up into single deliveries."""
AFTER_FAILURE: Final = BackOff(5, 6, 15 * 60)
"""The delay after a failure: 5 s, 30 s, 3 min and 15 min, and up to as much again by chance."""

INTERRUPTED: Final = "Interrupted"
"""The hold reason after a failure."""
INTERNAL_ERROR: Final = "InternalError"
"""The reason of a dead letter on which our code has failed."""
WORKER_LOST: Final = "WorkerLost"
"""The reason of a dead letter that has lost its workers."""

_PACKAGE: Final = PurePath(__file__).parents[2]


def after_failure(
    detail: str,
    *,
    failures: int,
    first_due: float,
    expires_at: float | None,
    now: float,
    rng: Random,
) -> RetryAt | GiveUp:
    """Return when a delivery is tried again after so many failures in a row, or its end.

    ``detail`` says in words what failed last. What would expire meanwhile expires now, by the
    :func:`~handbell.delivery.policy.retry.retry_deadline` that counts from ``first_due``. All
    instants are in UNIX seconds.
    """
    if failures >= MOST_FAILURES:
        return GiveUp("dead_letter", INTERNAL_ERROR, told(detail, failures))
    at = now + failure_delay(failures, rng)
    end = retry_deadline(created_at=first_due, expires_at=expires_at)
    if end.state == "expired" and at >= end.at:
        return GiveUp("expired", INTERRUPTED, end.detail)
    return RetryAt(at, INTERRUPTED)


def failure_delay(failures: int, rng: Random) -> float:
    """Return the seconds until what has failed so often in a row is tried again.

    What failed together comes back apart, so that one bad delivery takes no others with it.
    """
    return AFTER_FAILURE.delay(failures - 1) * (1 + rng.random())


def loss_delay(losses: int, rng: Random) -> float:
    """Return the seconds until the work of a lost worker goes on: none after its first loss.

    A worker is lost for other reasons than its work far more often.
    """
    if losses <= 1 or losses >= MOST_FAILURES:
        return 0.0
    return failure_delay(losses - 1, rng)


def told(detail: str, failures: int) -> str:
    """Return how often something failed, and how the last time, as a clause."""
    return f"it failed {count(failures, 'time')}, at last with {detail}"


def in_words(error: BaseException) -> str:
    """Return an error as a clause that repeats nothing of what was being sent.

    Errors of Handbell's speak for themselves; of another one the type and the place are told, since
    its text may hold a token or a key.
    """
    if isinstance(error, HandbellError):
        return error.what.rstrip(".")
    frames = list(walk_tb(error.__traceback__))
    ours = [one for one in frames if PurePath(one[0].f_code.co_filename).is_relative_to(_PACKAGE)]
    if not ours:
        return type(error).__name__
    frame, line = ours[-1]
    place = PurePath(frame.f_code.co_filename).relative_to(_PACKAGE).as_posix()
    return f"{type(error).__name__} in handbell/{place}, line {line}"
