"""When a push is retried, and when it is given up: a pure decision, tested as a table.

:func:`~handbell.delivery.policy.decision.decide` decides that a delivery is held;
:func:`next_attempt` decides until when. No clock is read: ``now`` and the random source are passed
in. All instants are in UNIX seconds, all delays in seconds. See
docs/decisions/0007-when-a-push-is-sent-again.md.
"""

from dataclasses import dataclass, replace
from random import Random
from types import MappingProxyType
from typing import Final, Literal

from handbell._back_off import JITTER, BackOff
from handbell._text import count
from handbell.services import apns
from handbell.services.apns.protocol import STORED_AT_MOST_SECONDS
from handbell.services.reactions import Reaction
from handbell.services.service import PushService

from .decision import Decision

MOST_ATTEMPTS: Final = 200
"""The maximum number of attempts of one delivery."""
DEFAULT_LIFETIME_SECONDS: Final = 24 * 3600
"""The retry period of a notification without an expiry."""
LONGEST_LIFETIME_SECONDS: Final = STORED_AT_MOST_SECONDS
"""The longest retry period, however late the notification expires."""
NOW_OR_NEVER_SECONDS: Final = 30
"""The retry period of a notification that expires at once (``expires_at`` 0)."""

SERVICE_DOWN: Final = "ServiceDown"
"""The hold reason of a delivery during an outage of the push service."""

_SERVER_ERROR: Final = 500
_MINUTE: Final = 60
_HOUR: Final = 3600


NOT_REACHED: Final = BackOff(2, 2, 15 * _MINUTE)
"""No answer, and certainly not accepted: no connection, a refused stream, GOAWAY."""
NO_ANSWER: Final = BackOff(5, 3, 15 * _MINUTE)
"""No answer, possibly accepted: the connection broke, or the request timed out."""
NO_REASON: Final = BackOff(5, 3, 15 * _MINUTE)
"""A server error without a reason of the push service: mostly from a proxy, and brief."""
NO_VERDICT: Final = BackOff(5, 3, 15 * _MINUTE)
"""Not accepted, for an unknown reason: the answer was incomplete."""
SERVICE_PROBE: Final = BackOff(1, 2, 30)
"""Seconds until a delivery held by an outage is checked again."""
OUTAGE_SECONDS: Final = 5 * _MINUTE
"""When a delivery held by an outage is checked again at the latest, in seconds."""
MENDED_BY_HAND: Final = BackOff(_MINUTE, 2, 15 * _MINUTE)
"""Held until the configuration is fixed or the twin is started."""

WAYLESS: Final = frozenset({"NoCredential", "TwinNotRunning"})
"""The hold reasons of a delivery without a gateway."""

_UNPROCESSED: Final = frozenset({"RefusedStream", "GoneAway"})
_BY_REASON: Final = MappingProxyType(
    {
        "CircuitOpen": MENDED_BY_HAND,
        "NoCredential": MENDED_BY_HAND,
        "TwinNotRunning": MENDED_BY_HAND,
    }
)


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Send it again at ``at`` (UNIX seconds), under the same apns-id.

    ``needs_collapse_id`` means that the outcome was unknown: from now on each repeat of this
    delivery carries a collapse id, so that the phone shows it once, also when a later answer was
    clear.
    """

    at: float
    reason: str | None = None
    needs_collapse_id: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Give up: the delivery's final state, the last reason, and why it is not retried.

    ``state`` is ``expired`` when the notification's own expiry left no time, ``dead_letter`` when
    our own code failed again and again, else ``failed``. ``detail`` is a clause without a full
    stop.
    """

    state: Literal["failed", "dead_letter", "expired"]
    reason: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class RetryDeadline:
    """When retries end (UNIX seconds), in which state, and why, as a clause without a full stop."""

    at: float
    state: Literal["failed", "expired"]
    detail: str


def retry_deadline(*, created_at: float, expires_at: float | None) -> RetryDeadline:
    """Return the end of a delivery's retry period.

    That is its expiry, but at most :data:`LONGEST_LIFETIME_SECONDS` after ``created_at``;
    :data:`DEFAULT_LIFETIME_SECONDS` after it without an expiry; :data:`NOW_OR_NEVER_SECONDS` after
    it when ``expires_at`` is 0. ``created_at`` is when the delivery could first be sent: a
    notification for a later time lives from that time on.
    """
    if expires_at is None:
        return _lifetime(created_at, DEFAULT_LIFETIME_SECONDS)
    if not expires_at:
        at = created_at + NOW_OR_NEVER_SECONDS
        return RetryDeadline(at, "expired", "it was to arrive at once or not at all")
    if expires_at > created_at + LONGEST_LIFETIME_SECONDS:
        return _lifetime(created_at, LONGEST_LIFETIME_SECONDS)
    return RetryDeadline(expires_at, "expired", "it expires before it could be sent again")


def _lifetime(created_at: float, seconds: int) -> RetryDeadline:
    hours = count(seconds // _HOUR, "hour")
    return RetryDeadline(
        created_at + seconds, "failed", f"no notification is tried for over {hours}"
    )


def next_attempt(
    decision: Decision,
    *,
    attempts: int,
    created_at: float,
    expires_at: float | None,
    now: float,
    rng: Random,
    service: PushService = apns.SERVICE,
) -> RetryAt | GiveUp:
    """Return when a held delivery is sent again by ``service``, or why it is given up.

    ``attempts`` is how many were made, the one just ended included; ``expires_at`` as for
    :func:`retry_deadline`, which counts from ``created_at``: the end of the first attempt, moved on
    by each time that a rule or an open circuit held it since. The delay is ::

        base  = min(longest, first * factor ** (attempts - 1))      the row's, see row_of
        delay = max(base, decision.after or 0) + JITTER * base * rng.random()

    and so in the interval [base, 1.25 * base): 15 to 18.75 minutes after the first
    ``ServiceUnavailable``, 2 to 2.5 seconds when no connection was made. It is never shorter than
    what the service asked for. Jitter never moves an attempt past the ceiling; one that would fall
    past it without jitter is given up at once. So is a delivery after :data:`MOST_ATTEMPTS`, and
    one that may have been accepted and must not be delayed.

    Raises ValueError when the decision is not ``held``.
    """
    if decision.state != "held":
        raise ValueError(f"A delivery that is {decision.state} is not sent again")
    if attempts >= MOST_ATTEMPTS:
        return GiveUp("failed", decision.reason, f"it was tried {attempts} times")
    if decision.is_unknown and expires_at == 0:
        return _only_once(decision)
    base = base_delay(decision, attempts=attempts, service=service)
    earliest = now + max(base, decision.after or 0)
    end = retry_deadline(created_at=created_at, expires_at=expires_at)
    if earliest >= end.at:
        return GiveUp(end.state, decision.reason, end.detail)
    spread = min(JITTER * base, end.at - earliest)
    return RetryAt(earliest + spread * rng.random(), decision.reason, decision.is_unknown)


def while_stopped(
    *, reason: str | None, first_due: float, expires_at: int | None, until: float, now: float
) -> RetryAt | GiveUp:
    """Return until when a delivery waits for an open circuit, or why it is given up.

    It waits until ``until``, but not beyond the :func:`retry_deadline` that counts from
    ``first_due``: when it could first have gone out. Nothing was attempted meanwhile, so the wait
    does not count towards the retry period.
    """
    end = retry_deadline(created_at=first_due, expires_at=expires_at)
    if now >= end.at:
        return GiveUp(end.state, reason, end.detail)
    return RetryAt(min(until, end.at), reason)


def while_refused(
    decision: Decision, *, first_due: float, expires_at: int | None, until: float, now: float
) -> RetryAt | GiveUp:
    """Return until when a delivery waits whose app was refused, or why it is given up.

    The bounds are those of :func:`while_stopped`; a push that may have been accepted and must not
    be delayed is given up.
    """
    if decision.is_unknown and expires_at == 0:
        return _only_once(decision)
    again = while_stopped(
        reason=decision.reason, first_due=first_due, expires_at=expires_at, until=until, now=now
    )
    if isinstance(again, GiveUp):
        return again
    return replace(again, needs_collapse_id=decision.is_unknown)


def _only_once(decision: Decision) -> GiveUp:
    return GiveUp("failed", decision.reason, "it was to be sent only once")


def base_delay(decision: Decision, *, attempts: int, service: PushService = apns.SERVICE) -> float:
    """Return the delay after so many attempts, without jitter and ``Retry-After``."""
    return row_of(decision, service).delay(max(attempts - 1, 0))


def row_of(decision: Decision, service: PushService = apns.SERVICE) -> BackOff:
    """Return the back-off row that applies to a delivery that ``service`` has not accepted yet."""
    reason = decision.reason or ""
    by_reason = _BY_REASON.get(reason) or service.back_off_by_reason.get(reason)
    if decision.is_unknown or by_reason is None:
        return _row_without_name(decision, service)
    return by_reason


def _row_without_name(decision: Decision, service: PushService) -> BackOff:
    if decision.is_unknown:
        return no_sooner(NO_ANSWER, service)
    if decision.is_lost:
        return no_sooner(NO_VERDICT, service)
    is_its_own = decision.reason in service.reasons
    if decision.status is not None and decision.status >= _SERVER_ERROR and not is_its_own:
        return no_sooner(NO_REASON, service)
    if decision.reaction is None or (decision.status is None and not is_its_own):
        is_unprocessed = decision.reason in _UNPROCESSED
        return NOT_REACHED if is_unprocessed else no_sooner(NOT_REACHED, service)
    return service.back_off.get(decision.reaction, service.back_off[Reaction.BACK_OFF])


def no_sooner(row: BackOff, service: PushService) -> BackOff:
    """Return a row of delays that begins no sooner than the push service wants."""
    return row if row.first >= service.least_seconds else row._replace(first=service.least_seconds)


def while_down(
    decision: Decision,
    *,
    attempts: int,
    first_due: float,
    expires_at: int | None,
    now: float,
    rng: Random,
) -> RetryAt | GiveUp:
    """Return until when a delivery waits in a service outage, or why it is given up.

    It resumes at once when the outage ends, else it is checked again after :data:`OUTAGE_SECONDS`
    and up to a quarter more. The bounds are those of :func:`next_attempt`, with the
    :func:`retry_deadline` that counts from ``first_due``.
    """
    if attempts >= MOST_ATTEMPTS:
        return GiveUp("failed", decision.reason, f"it was tried {attempts} times")
    if decision.is_unknown and expires_at == 0:
        return _only_once(decision)
    again = while_stopped(
        reason=SERVICE_DOWN,
        first_due=first_due,
        expires_at=expires_at,
        until=next_outage_check(now, rng),
        now=now,
    )
    if isinstance(again, GiveUp):
        return replace(again, reason=decision.reason)
    return replace(again, needs_collapse_id=decision.is_unknown)


def next_outage_check(now: float, rng: Random) -> float:
    """Return when a delivery held by an outage is checked again at the latest."""
    return now + OUTAGE_SECONDS * (1 + JITTER * rng.random())


def probe_at(row: BackOff, *, probes: int, now: float, rng: Random) -> float:
    """Return when the next probe of an open circuit is due.

    ``probes`` is how many were made since it opened; ``row`` is :data:`MENDED_BY_HAND` (60 to 75
    seconds at first, then twice as long each time, up to 15 to 18.75 minutes) or
    :data:`SERVICE_PROBE` (1 to 1.25 seconds, up to 30 to 37.5).
    """
    return now + row.spread(probes, rng)
