"""Request heads: collection, validation and ASGI form."""

from typing import Any, Final, NoReturn
from urllib.parse import unquote

from handbell.errors import HandbellError, RequestError

from . import error_responses
from .bounds import Bounds

_HOST: Final = b"host"
_CODING: Final = b"transfer-encoding"
_EXPECT: Final = b"expect"
_UPGRADE: Final = b"upgrade"
_NOTED: Final = frozenset({_HOST, _CODING, _EXPECT})
_VERSIONS: Final = frozenset({"1.0", "1.1"})


class BadHeadError(Exception):
    """An invalid head; ``why`` is the message to the client."""

    def __init__(self, why: HandbellError) -> None:
        super().__init__(str(why))
        self.why = why


class Head:
    """A head being read. ``expects_leave`` means that its body waits for a 100 Continue."""

    __slots__ = ("_bounds", "_coding", "_hosts", "_size", "expects_leave", "headers", "target")

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._size = self._hosts = 0
        self._coding: bytes | None = None
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.expects_leave = False

    def add_target(self, part: bytes) -> None:
        """Add a part of the target. Raises BadHeadError for a head over its limits."""
        self._count(len(part))
        self.target += part

    def add(self, name: bytes, value: bytes) -> None:
        """Add a header. Raises BadHeadError for a head over its limits."""
        self._count(len(name) + len(value) + 4)
        name = name.lower()
        if name in _NOTED:
            self._note(name, value)
        self.headers.append((name, value))
        if len(self.headers) > self._bounds.headers:
            raise BadHeadError(error_responses.too_large(self._bounds))

    def check(self, version: str) -> None:
        """Raise BadHeadError for an invalid or ambiguous head."""
        # RFC 9112, 3.2; before HTTP/1.1 the host is optional.
        if self._hosts > 1 or (not self._hosts and version == "1.1"):
            _refuse(f"The request has {self._hosts or 'no'} Host headers", "Send exactly one")
        if version not in _VERSIONS:
            _refuse(f"HTTP/{version} is not supported here", "Use HTTP/1.1")
        if self._coding is not None and (
            version != "1.1" or self._coding.strip().lower() != b"chunked"
        ):
            _refuse(
                "The request has an unsupported Transfer-Encoding",
                "Send chunked alone, with HTTP/1.1, or a Content-Length",
            )

    def asked(self) -> dict[str, Any]:
        """Return path, query and headers for the ASGI scope.

        Raises BadHeadError for an invalid target.
        """
        target, headers = self.target, self.headers
        if not target.startswith(b"/"):
            target, headers = self._absolute()
        if b"#" in target:
            _refuse("The request's target has a fragment", "Leave it out")
        raw_path, _, query = target.partition(b"?")
        path = raw_path.decode("ascii")
        return {
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": headers,
        }

    def without_upgrade(self, method: bytes, version: str) -> bytes:
        """Return the head without its Upgrade."""
        lines = [b"%b %b HTTP/%b" % (method, self.target, version.encode("ascii"))]
        lines += [b"%b: %b" % pair for pair in self.headers if pair[0] != _UPGRADE]
        return b"\r\n".join([*lines, b"", b""])

    def _note(self, name: bytes, value: bytes) -> None:
        if name == _HOST:
            self._hosts += 1
        elif name == _CODING:
            self._coding = value if self._coding is None else self._coding + b"," + value
        else:
            self.expects_leave = value.strip().lower() == b"100-continue"

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self._bounds.head_bytes:
            raise BadHeadError(error_responses.too_large(self._bounds))

    def _absolute(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """Return path and headers of an absolute target, whose host wins (RFC 9112)."""
        if self.target == b"*":
            return self.target, self.headers
        scheme, mark, rest = self.target.partition(b"://")
        place = min((rest.find(end) for end in (b"/", b"?", b"#") if end in rest), default=None)
        host = rest if place is None else rest[:place]
        path = b"" if place is None else rest[place:]
        if not mark or scheme.lower() not in (b"http", b"https") or not host or b"@" in host:
            _refuse("The request's target is not a valid address", "Send a path")
        kept = [pair for pair in self.headers if pair[0] != _HOST]
        return path if path.startswith(b"/") else b"/" + path, [*kept, (_HOST, host)]


def _refuse(message: str, fix: str) -> NoReturn:
    raise BadHeadError(RequestError(message, fix=fix))
