"""Reading what is posted to the page's API; what is wrong is answered in one sentence."""

import json
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request

from handbell._text import nearest

_MAX_BODY_BYTES: Final = 65_536


async def read_object(request: Request, known: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the posted JSON object; an unknown field is refused with the nearest known one."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise HTTPException(413, f"The request is over {_MAX_BODY_BYTES} bytes.")
    try:
        posted = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        posted = None
    if not isinstance(posted, dict):
        raise HTTPException(400, "The request is not a JSON object.")
    for field in posted:
        if known and field not in known:
            meant = nearest(field, known)
            hint = f" Did you mean {meant!r}?" if meant else ""
            raise HTTPException(400, f"There is no field {field!r} here.{hint}")
    return posted


def read_text(posted: dict[str, Any], field: str) -> str | None:
    """Return a text without surrounding blanks, None when it is absent or empty."""
    value = posted.get(field)
    if value is not None and not isinstance(value, str):
        raise HTTPException(400, f"{field!r} has to be a text.")
    return value.strip() or None if value else None


def read_flag(posted: dict[str, Any], field: str, *, default: bool) -> bool:
    """Return a truth value."""
    value = posted.get(field, default)
    if not isinstance(value, bool):
        raise HTTPException(400, f"{field!r} has to be true or false.")
    return value


def read_texts(posted: dict[str, Any], field: str) -> list[str]:
    """Return a list of texts, empty when it is absent."""
    value = posted.get(field, [])
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise HTTPException(400, f"{field!r} has to be a list of texts.")
    return value


def read_whole(posted: dict[str, Any], field: str) -> int:
    """Return a whole number, 0 or more."""
    value = posted.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise HTTPException(400, f"{field!r} has to be a whole number, 0 or more.")
    return value
