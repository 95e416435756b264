"""The twin's sides: what its ports are called in faults, the history and phones."""

from types import MappingProxyType
from typing import Final

from handbell.errors import TwinError

APNS_SIDES: Final = ("production", "development")
OAUTH_SIDE: Final = "oauth"
"""Where FCM's access tokens come from."""
SERVICE_OF_SIDE: Final = MappingProxyType(
    {
        "production": "apns",
        "development": "apns",
        "fcm": "fcm",
        OAUTH_SIDE: "fcm",
        "webpush": "webpush",
    }
)
"""The push service of each side."""


def check_side(side: str) -> None:
    """Raise TwinError for what is no side of Apple's."""
    if side not in APNS_SIDES:
        raise TwinError(f"The twin has no side {side!r}", fix=f"Use {' or '.join(APNS_SIDES)}")
