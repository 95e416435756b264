"""Refused requests, in autopush's form."""

import json
from http import HTTPStatus
from typing import Final

from handbell.twin.wire.exchange import TwinResponse

MORE: Final = "https://mozilla-services.github.io/autopush-rs/errors.html"

ERRNO_BY_STATUS: Final = {
    400: 110,
    401: 109,
    403: 109,
    404: 102,
    410: 106,
    413: 104,
    429: 201,
    502: 902,
    503: 201,
}
"""autopush's number of the commonest error of a status; 999 is its unknown one."""


class RefusalError(Exception):
    """A rule's refusal: status, autopush's error number, and a sentence with the reason."""

    def __init__(self, status: int, errno: int, why: str) -> None:
        super().__init__(why)
        self.status, self.errno, self.why = status, errno, why


def refuse(
    status: int, why: str, *, errno: int | None = None, retry_after: int | None = None
) -> TwinResponse:
    """Return the answer to a refused request, with autopush's JSON as its body."""
    headers = [("content-type", "application/json")]
    if retry_after is not None:
        headers.append(("retry-after", str(retry_after)))
    content = {
        "code": status,
        "errno": ERRNO_BY_STATUS.get(status, 999) if errno is None else errno,
        "error": _phrase(status),
        "message": why,
        "more_info": MORE,
    }
    return TwinResponse(status, tuple(headers), json.dumps(content).encode())


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else "Unknown"
