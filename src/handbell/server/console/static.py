"""The console's static files, in memory and versioned by content hash."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final, Self

from starlette.requests import Request
from starlette.responses import Response

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    type: str
    version: str


class Statics:
    """The files of the folder ``static``. Nothing outside it can be requested."""

    def __init__(self, found: Mapping[str, _File]) -> None:
        self._files = dict(found)

    @classmethod
    def load(cls) -> Self:
        """Read the folder."""
        found = {}
        for file in files("handbell.server.console").joinpath("static").iterdir():
            suffix = file.name[file.name.rfind(".") :]
            if suffix in _TYPES:
                content = file.read_bytes()
                version = hashlib.sha256(content).hexdigest()[:_DIGITS]
                found[file.name] = _File(content, _TYPES[suffix], version)
        return cls(found)

    def version(self, name: str) -> str:
        """Return a file's version. Raises KeyError for an unknown file."""
        return self._files[name].version

    def answer(self, request: Request, name: str) -> Response:
        """Return a file, 304 or 404.

        A versioned URL is immutable; modules imported by others are revalidated each time.
        """
        file = self._files.get(name)
        if file is None:
            return Response("There is no such file.\n", 404, media_type="text/plain")
        tag = f'"{file.version}"'
        is_exact = request.query_params.get("v") == file.version
        headers = {
            "etag": tag,
            "cache-control": "public, max-age=31536000, immutable" if is_exact else "no-cache",
        }
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=file.type, headers=headers)
