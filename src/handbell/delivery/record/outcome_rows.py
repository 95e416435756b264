"""Turn an outcome into a row and an event."""

from typing import Any, Final

from handbell.delivery.delivery import State
from handbell.delivery.events import DeliveryFailed, DeliveryHeld, Event, PushesSent
from handbell.delivery.queue.due import Due
from handbell.delivery.urgency import NORMAL
from handbell.delivery.work.composed import Composed
from handbell.delivery.work.in_flight import Item
from handbell.delivery.work.push_batch import PushBatch
from handbell.errors import HandbellError
from handbell.registry.session import Environment

from .outcome_batch import Ending

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


def unreadable_ending(item: Due, error: Exception, now: float, until: float) -> Ending:
    """Return the row of a delivery whose notification cannot be read.

    It is held until an instant (UNIX seconds), repeatedly for a day: a wrong secret key may be the
    cause, and get fixed.
    """
    is_over = item.attempts >= _UNREADABLE_TIMES
    return Ending(
        notification_id=item.notification,
        number=item.number,
        gateway=item.gateway,
        environment=item.environment,
        urgency=NORMAL,
        state="failed" if is_over else "held",
        attempts=item.attempts + 1,
        reason="CannotBeRead",
        detail=error.what if isinstance(error, HandbellError) else type(error).__name__,
        due_at=None if is_over else int(until * 1000),
        is_repeat=item.is_repeat,
        finished_at=int(now * 1000) if is_over else None,
        begun_at=item.begun_at,
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
    return DeliveryFailed(
        app=app,
        at=now,
        notification_id=notification_id,
        number=number,
        mail=item.mail,
        state=ending.state,
        reason=reason,
        status=ending.status,
        attempts=attempts,
        environment=ending.environment,
        service=ending.gateway,
    )
