"""What the answers of APNs and FCM have in common: JSON, the class of a status, a lost verdict."""

import json
from collections.abc import Mapping
from typing import Any, Final

from handbell._retry_after import retry_after
from handbell.services.reactions import Reaction, Reason

from .outcomes import LostVerdict, Outcome, RetryLater, Unknown

OK: Final = 200
REDIRECTION: Final = 300
CLIENT_ERROR: Final = 400
TOO_MANY: Final = 429
SERVER_ERROR: Final = 500

_CONFIGURATION_STATUSES: Final = frozenset({401, 403, 404, 407})
_MAX_NAME_LENGTH: Final = 80


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that is a body; an empty one where it is something else."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def read_name(value: object) -> str | None:
    """Return the name of a reason, None for what is none: it may come from anybody."""
    if isinstance(value, str) and value.isprintable() and 0 < len(value) <= _MAX_NAME_LENGTH:
        return value
    return None


def reaction_to(status: int, row: Reason | None, *, too_many: Reaction) -> Reaction:
    """Return how to react to a reason: by its row, for one without a row by the status.

    A 5xx is the service's trouble whatever it says, unless its row is of a 5xx as well. A 429 of
    no row is ``too_many``.
    """
    if status >= SERVER_ERROR:
        return row.reaction if row and row.status >= SERVER_ERROR else Reaction.BACK_OFF
    if row is not None:
        return row.reaction
    if status == TOO_MANY:
        return too_many
    if status < CLIENT_ERROR or status in _CONFIGURATION_STATUSES:
        return Reaction.FIX_CONFIGURATION
    return Reaction.FIX_NOTIFICATION


def without_reason(
    status: int, headers: Mapping[str, str], *, whose: str, is_whole: bool
) -> Outcome:
    """Return the outcome of an answer without a reason of the service's: no verdict is known.

    ``whose`` it should have been: "Apple's".
    """
    foreign = f"the answer {status} is not one of {whose}; a proxy may have given it"
    if status < REDIRECTION:
        return Unknown("AnswerUnreadable", foreign)
    after = retry_after(headers)
    if status >= SERVER_ERROR:
        detail = foreign if is_whole else f"the answer {status} broke off"
        return RetryLater(f"HTTP {status}", Reaction.BACK_OFF, after, status, detail)
    if is_whole:
        return LostVerdict(status, "AnswerUnreadable", foreign, after)
    detail = f"the answer {status} broke off before its reason had come"
    return LostVerdict(status, "AnswerCut", detail, after)
