"""What of a request is read thousands of times a second, straight from what the wire brought.

Starlette's own ways to it look through all headers by name, and start a generator for each body.
"""

from typing import cast

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope


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
