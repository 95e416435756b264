"""Fast access to a request's headers and body from the ASGI scope.

Starlette's own accessors scan all headers by name and start a generator per body.
"""

from collections.abc import Mapping
from typing import Final, cast

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

STREAM_TYPE: Final = "application/x-ndjson"
"""The media type of a body that is read line by line."""
STREAM_TYPES: Final = frozenset({STREAM_TYPE, "application/ndjson", "application/jsonl"})
"""How callers name a stream of lines."""
BYTES_TYPE: Final = "application/octet-stream"
"""What a generated client that knows no lines calls them, where nothing but lines is taken."""


def headers_by_name(scope: Scope) -> Mapping[bytes, bytes]:
    """Return the headers by lower-case name; of repeated ones, the first."""
    return dict(reversed(scope["headers"]))


def media_type(headers: Mapping[bytes, bytes]) -> str:
    """Return the media type of a Content-Type, in lower case and without parameters."""
    return headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()


def header(scope: Scope, name: bytes) -> str | None:
    """Return the first header with a lower-case name; None if absent."""
    for key, value in scope["headers"]:
        if key == name:
            return cast("bytes", value).decode("latin-1")
    return None


async def read_body(receive: Receive) -> bytes:
    """Return the whole body. Raises ClientDisconnect when the client leaves first."""
    pieces: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces) if len(pieces) > 1 else pieces[0]
