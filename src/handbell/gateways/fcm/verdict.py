"""Interpret an answer of FCM for its push, and of Google's for an access token: pure, by the table.

A verdict needs the complete answer; see docs/decisions/0021-how-the-gateway-judges-a-peer.md.
Sources: https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode ,
https://cloud.google.com/apis/design/errors (the form of an error), RFC 6749, 5 (access tokens).
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from handbell._retry_after import retry_after
from handbell._text import one_line
from handbell.gateways.answers import (
    CLIENT_ERROR,
    OK,
    SERVER_ERROR,
    TOO_MANY,
    reaction_to,
    read_name,
    read_object,
    without_reason,
)
from handbell.gateways.outcomes import (
    Accepted,
    DeviceGone,
    LostVerdict,
    Outcome,
    Refused,
    RetryLater,
)
from handbell.services.fcm.protocol import BAD_REQUEST, FCM_ERROR
from handbell.services.fcm.reasons import INVALID_ARGUMENT, INVALID_TOKEN, NOT_FOUND, REASONS
from handbell.services.reactions import SENT_AGAIN, Reaction

_NOT_FOUND: Final = 404
_MAX_DETAIL_LENGTH: Final = 300
_TARGET_FIELDS: Final = frozenset({"message.token", "message.fid", "token", "fid"})
_ABOUT_TOKEN: Final = "registration token"  # noqa: S105 - words of an answer
_LEAST_TOKEN_SECONDS: Final = 60
_DEFAULT_TOKEN_SECONDS: Final = 3600
_MOST_TOKEN_SECONDS: Final = 24 * 3600


def judge(
    status: int, body: bytes, headers: Mapping[str, str], *, is_whole: bool = True
) -> Outcome:
    """Return what an answer of FCM means for the push. Never raises, whatever the answer.

    ``headers`` have lower-case names; ``is_whole`` is False for an incomplete answer. A 200 is
    certain from its head. Everything else needs Google's error, in JSON, from a complete answer:
    without it 5xx is the service's trouble, 404 means that the address or the project is wrong,
    and every other 3xx and 4xx is a lost verdict. FCM's own code counts, where there is none the
    error's ``status``; a code that the table does not know is judged by the class of the HTTP
    status. No token is gone but by ``UNREGISTERED`` in FCM's own words.
    """
    if status == OK:
        return Accepted("")
    error = _error(body) if is_whole else None
    if error is None:
        return _without_error(status, headers, is_whole=is_whole)
    reason = error.reason
    detail = _detail(reason, error)
    reaction = reaction_to(status, REASONS.get(reason), too_many=Reaction.SLOW_DOWN_DEVICE)
    if reaction in SENT_AGAIN:
        return RetryLater(reason, reaction, retry_after(headers), status, detail)
    if reaction is Reaction.CLOSE_SESSION:
        return DeviceGone(reason, None, status)
    return Refused(reason, reaction, status, detail)


class AccessToken(NamedTuple):
    """An access token, and for how many seconds it is valid from the request on."""

    text: str
    seconds: float

    def __repr__(self) -> str:
        return f"AccessToken(seconds={self.seconds})"


def judge_token(
    status: int, body: bytes, headers: Mapping[str, str], *, is_whole: bool = True
) -> AccessToken | Refused | RetryLater | LostVerdict:
    """Return the access token of an answer, or the outcome of the pushes that wait for one.

    None of them was sent: an error of OAuth is the configuration's, all else may be tried again.
    """
    answer = read_object(body) if is_whole else {}
    if status == OK:
        token = _access_token(answer)
        if token is not None:
            return token
        detail = "no access token: the answer of the token endpoint cannot be read"
        return RetryLater("AnswerUnreadable", Reaction.RENEW_TOKEN, None, 0, detail)
    after = retry_after(headers)
    name, said = _oauth_error(answer)
    if status >= SERVER_ERROR or status == TOO_MANY:
        detail = f"no access token: the token endpoint answered {status}"
        return RetryLater(f"HTTP {status}", Reaction.BACK_OFF, after, status, detail)
    if name is None or status < CLIENT_ERROR:
        reason = "AnswerUnreadable" if is_whole else "AnswerCut"
        detail = f"no access token: the answer {status} of the token endpoint is not Google's"
        return LostVerdict(status, reason, detail, after)
    row = REASONS.get(name)
    meaning = row.meaning if row else "Google gives no access token"
    return Refused(name, Reaction.FIX_CONFIGURATION, status, _with(meaning, said))


class _Error(NamedTuple):
    """An error of Google's: its reason by our table, and what it says of it."""

    reason: str
    message: str


def _error(body: bytes) -> _Error | None:
    """Return the error that an answer tells, or None where it is not one of Google's."""
    error = read_object(body).get("error")
    if not isinstance(error, dict):
        return None
    details = [each for each in _list(error.get("details")) if isinstance(each, dict)]
    violations = list(_violations(details))
    message = _words(error.get("message"))
    own = next((each.get("errorCode") for each in _of_type(details, FCM_ERROR)), None)
    reason = read_name(own) or read_name(error.get("status"))
    if reason is None:
        return None
    if reason == "UNREGISTERED" and read_name(own) is None:
        return None
    if reason == INVALID_ARGUMENT and read_name(own) and _is_about_token(violations, message):
        reason = INVALID_TOKEN
    said = "; ".join(f"{where}: {words}" for where, words in violations) or message
    return _Error(reason, said)


def _is_about_token(violations: list[tuple[str, str]], message: str) -> bool:
    """Return whether FCM finds fault with the registration token, and with nothing else.

    It uses one code for every fault of a request. A field that it names decides; where it names
    none, its sentence.
    """
    if violations:
        return all(where in _TARGET_FIELDS for where, _ in violations)
    return _ABOUT_TOKEN in message.lower()


def _violations(details: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for detail in _of_type(details, BAD_REQUEST):
        for violation in _list(detail.get("fieldViolations")):
            if isinstance(violation, dict):
                yield _words(violation.get("field")), _words(violation.get("description"))


def _of_type(details: list[dict[str, Any]], name: str) -> Iterator[dict[str, Any]]:
    return (each for each in details if str(each.get("@type", "")).endswith(name))


def _without_error(status: int, headers: Mapping[str, str], *, is_whole: bool) -> Outcome:
    """Return the outcome of an answer without an error of Google's."""
    if is_whole and status == _NOT_FOUND:
        # Google answers an address that it does not know with a page, and says nothing of a token.
        row = REASONS[NOT_FOUND]
        return Refused(row.name, row.reaction, status, row.meaning)
    return without_reason(status, headers, whose="FCM's", is_whole=is_whole)


def _access_token(answer: Mapping[str, Any]) -> AccessToken | None:
    text = answer.get("access_token")
    if not (isinstance(text, str) and text.isascii() and text.isprintable() and text.strip()):
        return None
    seconds = answer.get("expires_in", _DEFAULT_TOKEN_SECONDS)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        return None
    return AccessToken(text.strip(), min(max(seconds, _LEAST_TOKEN_SECONDS), _MOST_TOKEN_SECONDS))


def _oauth_error(answer: Mapping[str, Any]) -> tuple[str | None, str]:
    error = answer.get("error")
    if isinstance(error, dict):
        return read_name(error.get("status")), _words(error.get("message"))
    return read_name(error), _words(answer.get("error_description"))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _words(value: object) -> str:
    return one_line(value[:_MAX_DETAIL_LENGTH]) if isinstance(value, str) else ""


def _detail(reason: str, error: _Error) -> str:
    row = REASONS.get(reason)
    return _with(row.meaning if row else "an answer that Google does not document", error.message)


def _with(meaning: str, words: str) -> str:
    """Add what the service says itself to what its reason means."""
    text = f"{meaning} ({words.rstrip('.')})" if words else meaning
    return text if len(text) <= _MAX_DETAIL_LENGTH else text[: _MAX_DETAIL_LENGTH - 1] + "…"
