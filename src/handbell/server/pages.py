"""Pagination of lists, instants and URLs."""

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field
from starlette.requests import HTTPConnection

from handbell.errors import CursorError

T = TypeVar("T")

MOST_ROWS: Final = 200
MOST_ID: Final = (1 << 63) - 1
"""The largest number that a row can have."""
_MAX_CURSOR: Final = 512

LimitQuery = Annotated[
    int, Query(ge=1, le=MOST_ROWS, description="How many to return at most", examples=[50])
]
CursorQuery = Annotated[
    str | None,
    Query(
        max_length=_MAX_CURSOR,
        description="Where to go on: the member next of the page before",
    ),
]


Instant = Annotated[
    str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-11-23T22:32:26.042Z"])
]
"""An instant as :func:`instant` writes it."""


class ResultPage(BaseModel, Generic[T]):
    """A page of a list; ``next`` is the cursor of the next page, or null at the end."""

    data: list[T]
    next: str | None = Field(description="The cursor of the next page, null on the last one")


def write_cursor(*position: int | str | None) -> str:
    """Encode a position as a cursor: opaque to callers, and safe in a URL."""
    text = json.dumps(position, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str, *kinds: type) -> tuple[Any, ...]:
    """Decode the position of a cursor, whose parts have the given types.

    Raises CursorError for anything else than a cursor of such a list.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        position = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        position = None
    if (
        not isinstance(position, list)
        or len(position) != len(kinds)
        or any(type(part) is not kind for part, kind in zip(position, kinds, strict=True))
        or any(isinstance(part, int) and abs(part) >= 1 << 63 for part in position)
        # Lone surrogates, which JSON can express and no database can store.
        or any("\ud800" <= letter <= "\udfff" for part in position for letter in str(part))
    ):
        raise CursorError("The cursor is not one of this list", fix="Begin without a cursor")
    return tuple(position)


def page(rows: Sequence[T], limit: int, position: Any) -> dict[str, Any]:
    """Return ``rows`` (one more than ``limit`` if there are more) as a page.

    ``position`` returns the cursor after the last row shown.
    """
    shown = list(rows[:limit])
    return {"data": shown, "next": position(shown[-1]) if len(rows) > limit else None}


def instant(milliseconds: float | None) -> str | None:
    """Format an instant (UNIX milliseconds) as ISO 8601, UTC, with milliseconds and a Z."""
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def address_of(connection: HTTPConnection, path: str) -> str:
    """Return the URL path of a path of ours, including a proxy's prefix."""
    root: str = connection.scope.get("root_path", "")
    return root.rstrip("/") + path
