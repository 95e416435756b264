"""Shortens device tokens in responses to callers without the scope ``register``."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from handbell._text import short_token
from handbell.server.access import Caller

_DEVICE_PATH: Final = re.compile(r"(?<=/3/device/)[0-9a-f]+")
_FIRST: Final = re.compile(
    r"https://\S+|[A-Za-z0-9_-]{6,64}:APA91[A-Za-z0-9_-]{60,}|(?<![\w:-])[0-9a-f]{16,}",
    re.IGNORECASE,
)
_TOKEN: Final = frozenset({"address", "device_token"})
_TOKENS: Final = frozenset({"addresses", "device_tokens"})
_WRITTEN: Final = frozenset({"notification", "payload", "headers"})
"""What somebody wrote, or what is made of it: no token of a session is in it."""


def told_to(caller: Caller, value: Any, *, named: Collection[str] = ()) -> Any:
    """Return a response with device tokens shortened where the caller may not read them.

    A key with ``send`` alone names people and needs no token: whoever has one could claim the
    device for somebody else. Whole stay those that the caller ``named`` just now, and those that no
    session holds: somebody sent to the bare token.
    """
    if caller.may("register") or caller.may("administer"):
        return value
    return _Shortening(frozenset(named)).of(value)


@dataclass(frozen=True, slots=True)
class _Shortening:
    kept: frozenset[str]

    def of(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            is_bare = value.get("session_id", "") is None
            return {
                name: member if is_bare and name in _TOKEN else self._member(name, member)
                for name, member in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.of(item) for item in value]
        return value

    def _member(self, name: str, value: Any) -> Any:
        if name in _WRITTEN and not (isinstance(value, Mapping) and "recipients" in value):
            return value
        if name in _TOKENS and isinstance(value, list | tuple):
            return [self._short(str(token)) for token in value]
        if not isinstance(value, str):
            return self.of(value)
        if name in _TOKEN:
            return self._short(value)
        if name == "url":
            return _DEVICE_PATH.sub(self._found, value)
        # Whom it is for, in words, which may begin with a token.
        return _FIRST.sub(self._found, value) if name in ("recipient", "recipients") else value

    def _found(self, found: re.Match[str]) -> str:
        return self._short(found[0])

    def _short(self, token: str) -> str:
        return token if token in self.kept else short_token(token)
