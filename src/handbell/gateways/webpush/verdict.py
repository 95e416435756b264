"""Interpret an answer of a push service for its message: pure, by status (RFC 8030, RFC 8292).

A status is a verdict by itself, as the standards want it; what Mozilla and Apple say beside it only
makes it more exact. A verdict needs its complete answer; see
docs/decisions/0021-how-the-gateway-judges-a-peer.md.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from handbell._retry_after import retry_after
from handbell.gateways.outcomes import DeviceGone, LostVerdict, Outcome, Refused, RetryLater
from handbell.services.reactions import SENT_AGAIN, Reaction, Reason
from handbell.services.webpush.reasons import BY_ERRNO, BY_STATUS, BY_WORD, REDIRECTED

_CLIENT_ERROR: Final = 400
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500
_CLASS: Final = 100
_MOST_WORDS: Final = 200


def judge(
    status: int,
    body: bytes,
    headers: Mapping[str, str],
    *,
    is_whole: bool,
    sent_at: float,
    now: float,
) -> Outcome:
    """Return what an answer that is not of the class 2xx means. Never raises, whatever it is.

    ``headers`` have lower-case names; ``is_whole`` is False for an incomplete answer. ``sent_at``
    (UNIX seconds) is when the message went out: a subscription that has ended is closed unless it
    was registered since. ``now`` is for a ``Retry-After`` that is a date.
    """
    after = retry_after(headers, now=now)
    if not is_whole:
        if status >= _SERVER_ERROR:
            detail = f"the answer {status} broke off"
            return RetryLater(f"HTTP {status}", Reaction.BACK_OFF, after, status, detail)
        detail = f"the answer {status} broke off before its reason had come"
        return LostVerdict(status, "AnswerCut", detail, after)
    answer = _read(body)
    row = _row(status, answer)
    detail = _detail(row, answer)
    if row.reaction is Reaction.CLOSE_SESSION:
        return DeviceGone(row.name, round(sent_at * 1000), status)
    if row.reaction in SENT_AGAIN:
        return RetryLater(row.name, row.reaction, after, status, detail)
    return Refused(row.name, row.reaction, status, detail)


def _row(status: int, answer: Mapping[str, Any]) -> Reason:
    if status < _CLIENT_ERROR:
        return REDIRECTED
    if status != _TOO_MANY:
        word, number = answer.get("reason"), answer.get("errno")
        said = BY_WORD.get(word) if isinstance(word, str) else None
        if said is None and type(number) is int:
            said = BY_ERRNO.get(number)
        if said is not None and said.status // _CLASS == status // _CLASS:
            return said
    known = BY_STATUS.get(status)
    if known is not None:
        return known
    later = status >= _SERVER_ERROR
    reaction = Reaction.BACK_OFF if later else Reaction.FIX_NOTIFICATION
    return Reason(f"HTTP {status}", status, "an answer that no standard names", reaction)


def _read(body: bytes) -> Mapping[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        # Google answers in plain text, others in HTML.
        text = body.decode(errors="replace").strip()
        return {} if text.startswith("<") else {"message": text}
    return answer if isinstance(answer, dict) else {}


def _detail(row: Reason, answer: Mapping[str, Any]) -> str:
    """Return what the answer means, with its own words where they are few and legible."""
    words = answer.get("message")
    if not isinstance(words, str) or not words.isprintable() or not 0 < len(words) <= _MOST_WORDS:
        return row.meaning
    return f"{row.meaning} ({words.rstrip('.')})"
