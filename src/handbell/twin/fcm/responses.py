"""Google's answers over HTTP: a message's name, an access token, and errors in their forms."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Final

from handbell.services.fcm.protocol import BAD_REQUEST, FCM_ERROR, QUOTA_FAILURE
from handbell.twin.faults import Fault
from handbell.twin.wire.exchange import TwinResponse

from .codes import CODES, OAUTH_ERRORS

_OK: Final = 200
_UNAUTHENTICATED: Final = 401
_SERVER_ERROR: Final = 500
_TYPES: Final = "type.googleapis.com/"
_JSON: Final = "application/json; charset=UTF-8"
_NOT_FOUND_PAGE: Final = (
    "<!DOCTYPE html>\n<html lang=en>\n<title>Error 404 (Not Found)!!1</title>\n"
    "<p><b>404.</b> <ins>That's an error.</ins>\n"
    "<p>The requested URL was not found on this server. <ins>That's all we know.</ins>\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FcmRefusal:
    """A refused message: the code, an explanation for people, and what the answer says.

    ``message`` is the answer's text if it is not the code's own; ``violations`` are the fields at
    fault with a description each; ``quota`` says which quota is used up. ``details`` are further
    ones, and ``is_front`` means that the layer in front of FCM answers, which names no code.
    """

    code: str
    why: str
    message: str | None = None
    violations: tuple[tuple[str, str], ...] = ()
    quota: str | None = None
    details: tuple[dict[str, Any], ...] = ()
    is_front: bool = False
    retry_after: int | None = None


def refusal_answer(refused: FcmRefusal, now: float) -> TwinResponse:
    """Return the answer to a refused message, in the form of Google's APIs."""
    code = CODES[refused.code]
    details: list[dict[str, Any]] = list(refused.details)
    if code.is_fcm and not refused.is_front:
        details.append({"@type": _TYPES + FCM_ERROR, "errorCode": code.name})
    if refused.violations:
        violations = [
            {"field": field, "description": said} if field else {"description": said}
            for field, said in refused.violations
        ]
        details.append({"@type": _TYPES + BAD_REQUEST, "fieldViolations": violations})
    if refused.quota:
        violation = {"subject": refused.quota, "description": code.message}
        details.append({"@type": _TYPES + QUOTA_FAILURE, "violations": [violation]})
    return error_answer(
        code.status,
        code.rpc_status,
        refused.message or code.message,
        details,
        now,
        retry_after=refused.retry_after,
    )


def error_answer(
    status: int,
    rpc_status: str,
    message: str,
    details: Sequence[dict[str, Any]],
    now: float,
    *,
    retry_after: int | None = None,
) -> TwinResponse:
    """Return an error as ``google.rpc.Status`` in JSON."""
    error: dict[str, Any] = {"code": status, "message": message, "status": rpc_status}
    if details:
        error["details"] = list(details)
    more = [("retry-after", str(retry_after))] if retry_after is not None else []
    if status == _UNAUTHENTICATED:
        more.append(("www-authenticate", 'Bearer realm="https://accounts.google.com/"'))
    return json_answer(status, {"error": error}, now, more)


def json_answer(
    status: int, content: dict[str, Any], now: float, more: Sequence[tuple[str, str]] = ()
) -> TwinResponse:
    """Return an answer with JSON as Google writes it, indented by two."""
    headers = [("date", formatdate(now, usegmt=True)), ("content-type", _JSON), *more]
    return TwinResponse(status, tuple(headers), (json.dumps(content, indent=2) + "\n").encode())


def not_found_page(now: float) -> TwinResponse:
    """Return the page of HTML that a path of no API gets."""
    headers = [("date", formatdate(now, usegmt=True)), ("content-type", "text/html; charset=UTF-8")]
    return TwinResponse(404, tuple(headers), _NOT_FOUND_PAGE.encode())


def oauth_error(
    error: str, description: str, now: float, *, status: int | None = None
) -> TwinResponse:
    """Return an error of the token endpoint (RFC 6749, 5.2)."""
    return json_answer(
        status or OAUTH_ERRORS.get(error, 400),
        {"error": error, "error_description": description},
        now,
        [("cache-control", "no-store")],
    )


def fault_answer(fault: Fault, side: str, now: float) -> TwinResponse:
    """Return the answer that a fault requests, in the form of FCM or of the token endpoint."""
    status = fault.status or _OK
    reason = fault.reason or ""
    more = [] if fault.retry_after is None else [("retry-after", str(fault.retry_after))]
    if status == _OK:
        return json_answer(status, {}, now, more)
    if side == "oauth":
        answer = oauth_error(reason or "internal_failure", "As was asked for.", now, status=status)
        return TwinResponse(status, (*answer.headers, *more), answer.body)
    code = CODES.get(reason)
    if code is None:
        # A proxy of Google's in front: a status without a body that names a reason.
        headers = [("date", formatdate(now, usegmt=True)), ("content-type", "text/html"), *more]
        return TwinResponse(status, tuple(headers), reason.encode())
    details = [{"@type": _TYPES + FCM_ERROR, "errorCode": code.name}] if code.is_fcm else []
    return error_answer(
        status, code.rpc_status, code.message, details, now, retry_after=fault.retry_after
    )
