"""Turn an outcome into a row and an event."""

from functools import partial
from random import Random
from typing import Any, Final

from handbell.delivery.delivery import State
from handbell.delivery.events import DeliveryFailed, DeliveryHeld, Event, PushesSent
from handbell.delivery.policy.failures import (
    INTERNAL_ERROR,
    INTERRUPTED,
    MOST_FAILURES,
    WORKER_LOST,
    after_failure,
    failure_delay,
    in_words,
    told,
)
from handbell.delivery.policy.retry import RetryAt
from handbell.delivery.queue.due import Due
from handbell.delivery.urgency import NORMAL
from handbell.delivery.work.composed import Composed
from handbell.delivery.work.in_flight import Item
from handbell.delivery.work.push_batch import PushBatch
from handbell.errors import HandbellError
from handbell.registry.session import Environment

from .outcome_batch import Ending

_UNREADABLE_SECONDS: Final = 15 * 60.0
_UNREADABLE_TIMES: Final = 24 * 4


def ending_of(
    composed: Composed,
    item: Item,
    state: State,
    environment: Environment,
    now: float,
    *,
    due_at: float | None = None,
    attempts: int | None = None,
    begun_at: int | None = None,
    is_repeat: bool = False,
    **fields: Any,
) -> Ending:
    """Return the row of a delivery's outcome; ``due_at`` and ``now`` are UNIX seconds.

    What may have been sent before stays a repeat, whatever holds it meanwhile.
    """
    at = int(now * 1000)
    return Ending(
        notification_id=composed.row,
        number=item.number,
        gateway=item.gateway,
        environment=environment,
        urgency=composed.urgency,
        state=state,
        attempts=item.attempts if attempts is None else attempts,
        due_at=None if due_at is None else int(due_at * 1000),
        sent_at=at if state == "sent" else None,
        finished_at=None if state == "held" else at,
        begun_at=(begun_at or item.begun_at) if state == "held" else None,
        is_repeat=is_repeat or item.is_repeat,
        **fields,
    )


def failed_ending(
    composed: Composed,
    item: Item,
    error: Exception,
    now: float,
    rng: Random,
    *,
    is_repeat: bool,
) -> Ending:
    """Return the row of a delivery that our own code failed to send."""
    failures = item.failures + 1
    again = after_failure(
        in_words(error),
        failures=failures,
        first_due=composed.composed_at,
        expires_at=composed.expires_at,
        now=now,
        rng=rng,
    )
    ending = partial(
        ending_of,
        composed,
        item,
        environment=item.environment,
        now=now,
        is_repeat=is_repeat,
        failures=failures,
    )
    if isinstance(again, RetryAt):
        return ending("held", reason=again.reason, detail=in_words(error), due_at=again.at)
    return ending(again.state, reason=again.reason, detail=again.detail)


def unreadable_ending(item: Due, now: float, *, error: Exception, rng: Random) -> Ending:
    """Return the row of a delivery whose notification cannot be read.

    It is held for a quarter of an hour, repeatedly for a day: a wrong secret key may be the
    cause, and get fixed. Where our own code failed, it is held as after any failure. What is not
    read by then is a dead letter.
    """
    if isinstance(error, HandbellError):
        failures, wait = 0, _UNREADABLE_SECONDS
        is_over = item.attempts >= _UNREADABLE_TIMES
        reason, detail = "CannotBeRead", error.what
    else:
        failures, detail = item.failures + 1, in_words(error)
        wait = failure_delay(failures, rng)
        is_over = failures >= MOST_FAILURES
        reason = INTERNAL_ERROR if is_over else INTERRUPTED
        detail = told(detail, failures) if is_over else detail
    ending = _dead_letter(item, reason, detail, now)
    ending = ending._replace(attempts=item.attempts + 1, failures=failures)
    if is_over:
        return ending
    until = int((now + wait) * 1000)
    return ending._replace(state="held", due_at=until, finished_at=None, begun_at=item.begun_at)


def lost_ending(item: Due, now: float) -> Ending:
    """Return the row of a delivery that has lost its workers too often to be sent once more."""
    detail = told("the loss of its worker", item.failures)
    return _dead_letter(item, WORKER_LOST, detail, now)._replace(failures=item.failures)


def unwritable_ending(ending: Ending, error: Exception, now: int) -> Ending:
    """Return the row of a delivery whose outcome cannot be written; ``now`` is in milliseconds."""
    return ending._replace(
        state="dead_letter",
        reason=INTERNAL_ERROR,
        # The text of a database's error may repeat what was to be written.
        detail=f"it ended, and its outcome could not be written: {type(error).__name__}",
        due_at=None,
        is_repeat=True,
        finished_at=now,
        status=None,
        unique_id=None,
        sent_at=None,
        begun_at=None,
    )


def _dead_letter(item: Due, reason: str, detail: str, now: float) -> Ending:
    return Ending(
        notification_id=item.notification,
        number=item.number,
        gateway=item.gateway,
        environment=item.environment,
        urgency=NORMAL,
        state="dead_letter",
        attempts=item.attempts,
        reason=reason,
        detail=detail,
        is_repeat=item.is_repeat,
        finished_at=int(now * 1000),
    )


def sent_event(
    push_batch: PushBatch, notification_ids: tuple[str, ...], number: int, now: float
) -> Event:
    """Return the event of a batch's pushes that were accepted together."""
    took = push_batch.heard_at - push_batch.started
    return PushesSent(
        app=push_batch.ticket.app_state.app.id,
        at=now,
        notification_ids=notification_ids,
        environment=push_batch.environment,
        service=push_batch.way.gateway,
        seconds=(took,) * number,
    )


def event_of(composed: Composed, item: Item, ending: Ending, now: float, took: float) -> Event:
    """Return the event for an outcome; ``took`` is in seconds from the hand-over."""
    app, notification_id, number = composed.app_state.app.id, composed.id, item.number
    reason, attempts = ending.reason or "", ending.attempts
    if ending.due_at is not None:
        return DeliveryHeld(
            app=app,
            at=now,
            notification_id=notification_id,
            number=number,
            reason=reason,
            until=ending.due_at / 1000,
            attempts=attempts,
            environment=ending.environment,
            service=ending.gateway,
        )
    if ending.state == "sent":
        return PushesSent(
            app=app,
            at=now,
            notification_ids=(notification_id,),
            environment=ending.environment,
            service=ending.gateway,
            seconds=(took,),
        )
    return failed_event(app, notification_id, item, ending, now)


def failed_event(
    app: str, notification_id: str, item: Item, ending: Ending, now: float
) -> DeliveryFailed:
    """Return the event of a delivery that ended without being accepted."""
    return DeliveryFailed(
        app=app,
        at=now,
        notification_id=notification_id,
        number=item.number,
        mail=item.mail,
        state=ending.state,
        reason=ending.reason or "",
        status=ending.status,
        attempts=ending.attempts,
        environment=ending.environment,
        service=ending.gateway,
    )
