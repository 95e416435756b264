"""What of a request is read thousands of times a second, straight from what the wire brought.

Starlette's own ways to it look through all headers by name, and start a generator for each body.
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
    """Return the headers by their names in lower case; of several, the first."""
    return dict(reversed(scope["headers"]))


def media_type(headers: Mapping[bytes, bytes]) -> str:
    """Return what a Content-Type names, in lower case and without parameters."""
    return headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()


def header(scope: Scope, name: bytes) -> str | None:
    """Return the first header of a name, which is in lower case; None where there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return cast("bytes", value).decode("latin-1")
    return None


async def read_body(receive: Receive) -> bytes:
    """Return the whole body of a request. Raises ClientDisconnect where its client goes first."""
    pieces: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces) if len(pieces) > 1 else pieces[0]
