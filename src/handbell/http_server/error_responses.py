"""Error responses of the server itself, for requests that never reach the application."""

import json
import math
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from handbell.errors import (
    HandbellError,
    HeadersTooLargeError,
    RateLimitedError,
    RequestError,
    RequestTimeoutError,
)

from .bounds import Bounds

STATUS_LINES: Final = {
    int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n".encode("ascii")
    for status in HTTPStatus
}

Body = Callable[[HandbellError], tuple[str, bytes]]
"""Formats an error; returns the media type and the body."""


def plain_body(error: HandbellError) -> tuple[str, bytes]:
    """Return an error as a JSON object with its message."""
    return "application/json", json.dumps({"error": str(error)}).encode("ascii")


def refusal(error: HandbellError, body_of: Body) -> bytes:
    """Return a complete error response that ends the connection."""
    kind, body = body_of(error)
    lines = [
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "Cache-Control: no-store",
    ]
    if isinstance(error, RateLimitedError):
        lines.append(f"Retry-After: {max(1, math.ceil(error.retry_after))}")
    head = "".join(f"{line}\r\n" for line in lines)
    return STATUS_LINES[error.status] + head.encode("ascii") + b"\r\n" + body


def too_large(bounds: Bounds) -> HandbellError:
    """Return the error for a head over its limits."""
    return HeadersTooLargeError(
        f"The head of the request has more than {bounds.head_bytes} bytes or "
        f"{bounds.headers} headers",
        fix="Send less in the address and the headers",
    )


def too_many(bounds: Bounds) -> HandbellError:
    """Return the error for a network with too many connections."""
    return RateLimitedError(
        "There are too many connections from this address",
        fix="Use the ones that are open",
        retry_after=bounds.head_seconds,
    )


def too_many_waiting(bounds: Bounds) -> HandbellError:
    """Return the error for a client that pipelines too many requests."""
    return RateLimitedError(
        f"More than {bounds.pipelined} requests wait on one connection",
        fix="Send fewer before reading their answers",
        retry_after=1,
    )


def not_http(why: str) -> HandbellError:
    """Return the error for bytes that are not HTTP."""
    return RequestError("The request is not valid HTTP", fix=f"Reason: {why}")


def late(missing: str) -> HandbellError:
    """Return the error for a timeout; ``missing`` names what did not arrive."""
    return RequestTimeoutError(f"{missing} did not arrive in time", fix="Send it again")
