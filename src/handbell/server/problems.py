"""Errors as problem details (RFC 9457), each with a stable code."""

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route

from handbell import errors
from handbell._text import json_fault, parse_fault
from handbell.errors import HandbellError, RateLimitedError
from handbell.server.fix_calls import as_call

MEDIA_TYPE: Final = "application/problem+json"
TYPE_BASE: Final = "https://github.com/handbell/handbell/blob/main/docs/errors.md#"
MOST_ERRORS: Final = 20
"""How many faults of one request are listed."""

_log = logging.getLogger(__name__)


class FieldProblem(BaseModel):
    """An invalid member or parameter."""

    model_config = ConfigDict(title="FieldProblem")

    where: str = Field(description="Where it is: body.notification.title", examples=["body.mail"])
    detail: str = Field(description="What is wrong with it")


class Problem(BaseModel):
    """An error, as in RFC 9457."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(description="Where the code is explained")
    title: str = Field(description="The status in words", examples=["Forbidden"])
    status: int = Field(description="The HTTP status", examples=[403])
    detail: str = Field(description="What is wrong, in a sentence")
    code: str = Field(description="A name that never changes its meaning", examples=["forbidden"])
    fix: str = Field(description="What to do next; may be empty")
    errors: list[FieldProblem] | None = Field(
        default=None, description="What is wrong in the request, member by member"
    )


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    fix: str = "",
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> JSONResponse:
    """Return a problem response; ``more`` are further members."""
    return JSONResponse(
        _members(status, code, detail, fix, more),
        status_code=status,
        headers=dict(headers or {}),
        media_type=MEDIA_TYPE,
    )


def members_of(error: HandbellError) -> dict[str, Any]:
    """Return an error as the members of a problem, for one result among many."""
    return _members(error.status, error.code, error.what, error.fix, _more(error))


def _members(
    status: int, code: str, detail: str, fix: str, more: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "type": TYPE_BASE + code,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "fix": as_call(fix),
        **more,
    }


def _more(error: HandbellError) -> dict[str, Any]:
    if isinstance(error, errors.PayloadTooLargeError):
        return {"size": error.size, "limit": error.limit}
    if isinstance(error, errors.AmbiguousAppError):
        return {"candidates": list(error.candidates)}
    return {}


def problem_of(error: HandbellError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return an error as a response."""
    all_headers = dict(headers or {})
    if isinstance(error, RateLimitedError):
        all_headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    elif isinstance(error, errors.UnauthorizedError):
        all_headers["WWW-Authenticate"] = 'Bearer realm="handbell"'
    elif isinstance(error, errors.StorageError):
        all_headers["Retry-After"] = "1"
    return problem(
        error.status, error.code, error.what, fix=error.fix, headers=all_headers, **_more(error)
    )


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of error responses, for ``responses=`` of an operation."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def add_handlers(application: FastAPI) -> None:
    """Register handlers that turn every error into a problem."""
    application.add_exception_handler(HandbellError, _handbell)
    application.add_exception_handler(RequestValidationError, _validation)
    application.add_exception_handler(HTTPException, _http)


async def answer_to(request: Request, error: Exception) -> Response:
    """Return an error's problem response; raise the error if it is not one of ours."""
    if isinstance(error, HandbellError):
        return await _handbell(request, error)
    if isinstance(error, HTTPException):
        return await _http(request, error)
    raise error


async def _handbell(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HandbellError)  # noqa: S101 - it is registered for this class
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.error("%s: %s", error.code, error)
    return problem_of(error)


async def _validation(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    faults = error.errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        return _not_json(json_fault(error.body, ValueError(faults[0]["ctx"]["error"])))
    kind = errors.InvalidRequestError
    listed = [_fault(fault) for fault in faults[:MOST_ERRORS]]
    first = listed[0]
    return problem(
        kind.status,
        kind.code,
        f"{first['where']}: {first['detail']}.",
        fix="Correct what errors lists; /docs shows what each operation takes.",
        errors=listed,
    )


def _not_json(why: str) -> Response:
    return problem_of(
        errors.RequestError(f"The body is not JSON: {why}", fix="Send valid JSON in UTF-8")
    )


def _fault(fault: Mapping[str, Any]) -> dict[str, str]:
    where: Sequence[Any] = fault["loc"]
    return {
        "where": ".".join(str(part) for part in where)[:200],
        "detail": str(fault["msg"]).removeprefix("Value error, ").rstrip("."),
    }


_OF_STATUS: Final[Mapping[int, tuple[type[HandbellError], str]]] = {
    kind.status: (kind, fix)
    for kind, fix in (
        (errors.RequestError, "Look at /docs."),
        (errors.NotFoundError, "Look at /docs for the addresses that there are."),
        (errors.MethodNotAllowedError, "Use a method that the header Allow names."),
        (errors.BodyTooLargeError, "Send less at once, or a stream of lines."),
        (errors.MediaTypeError, "Name the body's media type in Content-Type."),
    )
}


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    headers = error.headers
    if isinstance(error.__cause__, RecursionError | ValueError):
        # FastAPI has no words for what Python's reader of JSON does not even begin.
        return _not_json(parse_fault(error.__cause__))
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"Allow": ", ".join(_methods_of(request))}
    kind, fix = _OF_STATUS.get(error.status_code, (errors.RequestError, ""))
    first_line = (kind.__doc__ or "").splitlines()[0]
    return problem(error.status_code, kind.code, first_line, fix=fix, headers=headers)


def _methods_of(request: Request) -> list[str]:
    """Return the methods of a path; each route knows its own only."""
    return sorted(
        {
            method
            for route in request.app.routes
            if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
            for method in route.methods or ()
        }
    )
