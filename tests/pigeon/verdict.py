"""Interpret an answer of the loft for its push: pure, by its table only."""

from handbell.gateways.outcomes import Accepted, DeviceGone, Outcome, Refused, RetryLater, Unknown
from handbell.services.reactions import Reaction

from .protocol import FLOWN
from .reasons import REASONS


def judge(answer: str, push_id: str, sent_at: int) -> Outcome:
    """Return what an answer means; ``sent_at`` is when the pigeon was let go, in milliseconds."""
    if answer == FLOWN:
        return Accepted(push_id)
    row = REASONS.get(answer)
    if row is None:
        return Unknown("AnswerUnreadable", "the loft said something else")
    if row.reaction is Reaction.CLOSE_SESSION:
        return DeviceGone(row.name, sent_at, row.status)
    if row.reaction is Reaction.BACK_OFF:
        return RetryLater(row.name, row.reaction, status=row.status)
    return Refused(row.name, row.reaction, row.status)
