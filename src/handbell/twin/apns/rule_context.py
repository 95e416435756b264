"""The input of the rules: a request, its connection and the known state; and their refusals."""

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Protocol

from handbell.services.apns.protocol import DEVICE_PATH, PUSH_TYPES
from handbell.twin.certificates import ClientCertificate
from handbell.twin.wire.exchange import Request

from .provider_token import Key

TOKEN_KINDS: Final = MappingProxyType(
    {kind.address_kind: kind.topic_suffix for kind in PUSH_TYPES.values()}
)
"""The kinds of device tokens, with the suffix that each adds to the bundle id as topic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device token's state; ``gone_at`` (UNIX ms) is set once its app was uninstalled.

    ``kind`` is the kind of token: one for ``alert`` accepts no ``voip``, and vice versa.
    """

    token: str
    side: str
    team_id: str
    bundle_id: str
    kind: str = "alert"
    gone_at: int | None = None

    @property
    def topic(self) -> str:
        """Return the only topic of this token."""
        return self.bundle_id + TOKEN_KINDS[self.kind]


class RuleState(Protocol):
    """The state that rules may query."""

    def now(self) -> float:
        """Return the time in UNIX seconds."""

    def find_key(self, team_id: str, key_id: str) -> Key | None:
        """Return the key of that team and id."""

    def find_device(self, token: str) -> Device | None:
        """Return the device of that token, in lower case."""

    def owns_topic(self, team_id: str, bundle_id: str) -> bool:
        """Return whether the team may push to the app; True for an app without a known owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConnection:
    """APNs' state of a connection: its owner, and the provider token in use.

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
        """Return whether a valid provider token, or a push certificate, was seen on it."""
        return self.token is not None or self.certificate is not None


def device_token(request: Request) -> str | None:
    """Return the token in the path, in lower case, well-formed or not."""
    if not request.path.startswith(DEVICE_PATH):
        return None
    return request.path.removeprefix(DEVICE_PATH).lower() or None


@dataclass(frozen=True, slots=True)
class RuleRefusal:
    """A refused push: the documented reason, and an explanation.

    ``timestamp`` (UNIX ms) is for 410 only.
    """

    reason: str
    why: str
    timestamp: int | None = None


class RefusalError(Exception):
    """A rule's refusal; caught by :func:`~handbell.twin.apns.rules.judge` only."""

    def __init__(self, reason: str, why: str, timestamp: int | None = None) -> None:
        super().__init__(reason)
        self.refused = RuleRefusal(reason, why, timestamp)


class ExpiredError(RefusalError):
    """The provider token is too old, and its connection accepts no other one."""
