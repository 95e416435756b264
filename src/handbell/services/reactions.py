"""What a push service's refusal calls for: the same few reactions for every service.

Each service has a table of its reasons with the reaction to each. Gateway and worker depend on the
reactions only.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Reaction(Enum):
    """How a sender reacts to a reason. Gateway and worker depend on this only."""

    FIX_NOTIFICATION = "fix-notification"
    """The request was invalid and must not be retried unchanged. The token is kept."""
    FIX_CONFIGURATION = "fix-configuration"
    """Key, topic or certificate is wrong for the whole app: its sending stops, tokens are kept."""
    TRY_OTHER_ENVIRONMENT = "try-other-environment"
    """The token or the key may belong to the other environment; try that once."""
    WRONG_APP = "wrong-app"
    """The token belongs to another app; a fault of the configuration if it happens to most."""
    CLOSE_SESSION = "close-session"
    """The device is gone, if it has not registered since."""
    RENEW_TOKEN = "renew-token"  # noqa: S105 - a reaction, not a secret
    """Renew the token that proves who sends, open a new connection, send again once."""
    RECONNECT = "reconnect"
    """Send again at once on a new connection."""
    SLOW_DOWN_DEVICE = "slow-down-device"
    """Send again later; only this device is concerned."""
    KEEP_FORMER_TOKEN = "keep-former-token"  # noqa: S105 - a reaction, not a secret
    """The provider token was renewed too often; use the former one and wait minutes."""
    BACK_OFF = "back-off"
    """The service is in trouble; send again later, by the service's own rows of delays."""


SENT_AGAIN: Final = frozenset(
    {
        Reaction.RENEW_TOKEN,
        Reaction.RECONNECT,
        Reaction.SLOW_DOWN_DEVICE,
        Reaction.KEEP_FORMER_TOKEN,
        Reaction.BACK_OFF,
    }
)
"""The reactions to a push that was not accepted and may be sent again."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One row of a service's table: a reason, its status, its meaning and the reaction.

    ``fix`` is what to do about it, where that differs from what the reaction calls for.
    """

    name: str
    status: int
    meaning: str
    reaction: Reaction
    fix: str = ""
