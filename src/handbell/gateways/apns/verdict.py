"""Interpret an answer of APNs for its push: pure, by Apple's table only.

A verdict needs the complete answer; see docs/decisions/0021-how-the-gateway-judges-a-peer.md.
Source: "Handling notification responses from APNs"
(https://developer.apple.com/documentation/usernotifications/).
"""

from collections.abc import Mapping
from typing import Any, Final

from handbell._retry_after import retry_after
from handbell.gateways.answers import OK, reaction_to, read_name, read_object, without_reason
from handbell.gateways.outcomes import Accepted, DeviceGone, Outcome, Refused, RetryLater
from handbell.services.apns.protocol import APNS_ID, APNS_UNIQUE_ID
from handbell.services.apns.reasons import REASONS
from handbell.services.reactions import SENT_AGAIN, Reaction

_GONE: Final = 410
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
    if status == OK:
        return Accepted(headers.get(APNS_ID, ""), headers.get(APNS_UNIQUE_ID))
    answer = read_object(body) if is_whole else {}
    reason = read_name(answer.get("reason"))
    if reason is None:
        return without_reason(status, headers, whose="Apple's", is_whole=is_whole)
    if status == _GONE:
        return DeviceGone(reason, _timestamp(answer), status)
    reaction = reaction_to(status, REASONS.get(reason), too_many=Reaction.BACK_OFF)
    if reaction in SENT_AGAIN:
        return RetryLater(reason, reaction, retry_after(headers), status, _detail(reason))
    if reaction is Reaction.CLOSE_SESSION:
        return DeviceGone(reason, _timestamp(answer), status)
    return Refused(reason, reaction, status, _detail(reason))


def _timestamp(answer: Mapping[str, Any]) -> int | None:
    stamp = answer.get("timestamp")
    return stamp if type(stamp) is int and 0 <= stamp <= _LATEST_STAMP else None


def _detail(reason: str) -> str:
    row = REASONS.get(reason)
    return row.meaning if row else "an answer that Apple does not document"
