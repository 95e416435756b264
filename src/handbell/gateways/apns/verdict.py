"""Interpret an answer of APNs for its push: pure, by Apple's table only.

A verdict needs the complete answer; see docs/decisions/0021-how-the-gateway-judges-a-peer.md.
Source: "Handling notification responses from APNs"
(https://developer.apple.com/documentation/usernotifications/).
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from handbell._retry_after import retry_after
from handbell.gateways.outcomes import (
    Accepted,
    DeviceGone,
    LostVerdict,
    Outcome,
    Refused,
    RetryLater,
    Unknown,
)
from handbell.services.apns.protocol import APNS_ID, APNS_UNIQUE_ID
from handbell.services.apns.reasons import REASONS
from handbell.services.reactions import SENT_AGAIN, Reaction

_OK: Final = 200
_REDIRECTION: Final = 300
_CLIENT_ERROR: Final = 400
_GONE: Final = 410
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500
_CONFIGURATION_STATUSES: Final = frozenset({401, 403, 404, 407})
_MAX_REASON_LENGTH: Final = 80
_LATEST_STAMP: Final = 2**53  # milliseconds; databases store no larger number


def judge(
    status: int, body: bytes, headers: Mapping[str, str], *, is_whole: bool = True
) -> Outcome:
    """Return what an answer of APNs means for the push. Never raises, whatever the answer.

    ``headers`` have lower-case names; ``is_whole`` is False for an incomplete answer. A 200 is
    certain from its head. Everything else needs Apple's reason, in JSON, from a complete answer:
    without it 5xx is the service's trouble, and 3xx and 4xx are a lost verdict. A reason that
    Apple's table does not know is judged by the class of its status: 429 and 5xx may be sent
    again, everything else is refused.
    """
    if status == _OK:
        return Accepted(headers.get(APNS_ID, ""), headers.get(APNS_UNIQUE_ID))
    answer = _read(body) if is_whole else {}
    reason = _reason(answer)
    if reason is None:
        return _without_reason(status, headers, is_whole=is_whole)
    if status == _GONE:
        return DeviceGone(reason, _timestamp(answer), status)
    row = REASONS.get(reason)
    if status >= _SERVER_ERROR:
        reaction = row.reaction if row and row.status >= _SERVER_ERROR else Reaction.BACK_OFF
    elif row is not None:
        reaction = row.reaction
    else:
        reaction = _reaction_to(status)
    if reaction in SENT_AGAIN:
        return RetryLater(reason, reaction, retry_after(headers), status, _detail(reason))
    if reaction is Reaction.CLOSE_SESSION:
        return DeviceGone(reason, _timestamp(answer), status)
    return Refused(reason, reaction, status, _detail(reason))


def _without_reason(status: int, headers: Mapping[str, str], *, is_whole: bool) -> Outcome:
    """Return the outcome of an answer without a reason: no verdict is known."""
    foreign = f"the answer {status} is not one of Apple's; a proxy may have given it"
    if status < _REDIRECTION:
        return Unknown("AnswerUnreadable", foreign)
    after = retry_after(headers)
    if status >= _SERVER_ERROR:
        detail = foreign if is_whole else f"the answer {status} broke off"
        return RetryLater(f"HTTP {status}", Reaction.BACK_OFF, after, status, detail)
    if is_whole:
        return LostVerdict(status, "AnswerUnreadable", foreign, after)
    detail = f"the answer {status} broke off before its reason had come"
    return LostVerdict(status, "AnswerCut", detail, after)


def _read(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _reason(answer: Mapping[str, Any]) -> str | None:
    reason = answer.get("reason")
    if isinstance(reason, str) and reason.isprintable() and 0 < len(reason) <= _MAX_REASON_LENGTH:
        return reason
    return None


def _timestamp(answer: Mapping[str, Any]) -> int | None:
    stamp = answer.get("timestamp")
    return stamp if type(stamp) is int and 0 <= stamp <= _LATEST_STAMP else None


def _reaction_to(status: int) -> Reaction:
    if status == _TOO_MANY:
        return Reaction.BACK_OFF
    if status < _CLIENT_ERROR or status in _CONFIGURATION_STATUSES:
        return Reaction.FIX_CONFIGURATION
    return Reaction.FIX_NOTIFICATION


def _detail(reason: str) -> str:
    row = REASONS.get(reason)
    return row.meaning if row else "an answer that Apple does not document"
