"""What the rules are asked about: a request, its connection, what is known; and how they refuse."""

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Protocol

from handbell.gateways.apns.protocol import DEVICE_PATH, PUSH_TYPES

from .certificates import ClientCertificate
from .provider_token import Key

TOKEN_KINDS: Final = MappingProxyType(
    {kind.address_kind: kind.topic_suffix for kind in PUSH_TYPES.values()}
)
"""The kinds of device tokens, with the suffix that their topics put on the bundle id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What is known of a device token; ``gone_at`` (UNIX ms) once its app was uninstalled.

    ``kind`` is the kind of token: the one for ``alert`` takes no ``voip``, and the reverse.
    """

    token: str
    side: str
    team_id: str
    bundle_id: str
    kind: str = "alert"
    gone_at: int | None = None

    @property
    def topic(self) -> str:
        """The one topic that this token is for."""
        return self.bundle_id + TOKEN_KINDS[self.kind]


class World(Protocol):
    """What the rules may ask."""

    def now(self) -> float:
        """Return the time in UNIX seconds."""

    def find_key(self, team_id: str, key_id: str) -> Key | None:
        """Return the key of that team and id."""

    def find_device(self, token: str) -> Device | None:
        """Return the device of that token, in lower case."""

    def owns_topic(self, team_id: str, bundle_id: str) -> bool:
        """Return whether the team may push to the app; True when nobody is known to own it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConnection:
    """What APNs remembers of one connection: who it belongs to, and the provider token in use.

    ``issued_at`` is the token's ``iat``, ``updated_at`` when it last replaced another one.
    """

    side: str
    certificate: ClientCertificate | None = None
    team_id: str | None = None
    key_id: str | None = None
    token: str | None = field(default=None, repr=False)
    issued_at: float = 0.0
    updated_at: float | None = None
    is_expired: bool = False

    @property
    def is_authenticated(self) -> bool:
        """Whether a valid provider token, or a push certificate, was seen on it."""
        return self.token is not None or self.certificate is not None


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came: header names in lower case, ``size`` of the whole body in bytes."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes
    size: int

    def header(self, name: str) -> str | None:
        """Return the value of a header, None when it is absent or empty."""
        return next((value for key, value in self.headers if key == name), None) or None

    @property
    def device_token(self) -> str | None:
        """The token that the path names, in lower case, well-formed or not."""
        if not self.path.startswith(DEVICE_PATH):
            return None
        return self.path.removeprefix(DEVICE_PATH).lower() or None


@dataclass(frozen=True, slots=True)
class Refused:
    """The push is refused: the documented reason, and why in a plain sentence.

    ``timestamp`` (UNIX ms) comes with 410 alone.
    """

    reason: str
    why: str
    timestamp: int | None = None


class RefusalError(Exception):
    """A rule says no; reaches nobody but :func:`~handbell.twin.rules.judge`."""

    def __init__(self, reason: str, why: str, timestamp: int | None = None) -> None:
        super().__init__(reason)
        self.refused = Refused(reason, why, timestamp)


class ExpiredError(RefusalError):
    """The provider token is too old, and its connection takes no other one from now on."""
