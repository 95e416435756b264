"""What Apple publishes about APNs, and nothing else: names, limits and push types.

The gateway and the twin share this table and no logic, so that each catches the other's
misreading. Where Apple's pages are silent the value is left out rather than guessed.

Sources, all below https://developer.apple.com/documentation/usernotifications/ :

- sending-notification-requests-to-apns (hosts, headers, push types)
- handling-notification-responses-from-apns (status, reasons, what may be sent again)
- establishing-a-token-based-connection-to-apns (provider tokens)
- generating-a-remote-notification (the ``aps`` dictionary, sizes)
"""

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

PRODUCTION_URL: Final = "https://api.push.apple.com"
DEVELOPMENT_URL: Final = "https://api.sandbox.push.apple.com"
DEVICE_PATH: Final = "/3/device/"

AUTHORIZATION: Final = "authorization"
APNS_TOPIC: Final = "apns-topic"
APNS_PUSH_TYPE: Final = "apns-push-type"
APNS_ID: Final = "apns-id"
APNS_EXPIRATION: Final = "apns-expiration"
APNS_PRIORITY: Final = "apns-priority"
APNS_COLLAPSE_ID: Final = "apns-collapse-id"
APNS_UNIQUE_ID: Final = "apns-unique-id"
"""Answered by the development hosts only."""

MAX_PAYLOAD_BYTES: Final = 4096
MAX_VOIP_PAYLOAD_BYTES: Final = 5120
MAX_COLLAPSE_ID_BYTES: Final = 64
PRIORITIES: Final = (10, 5, 1)
DEFAULT_PRIORITY: Final = 10
"""The default of APNs for a missing ``apns-priority``."""

INTERRUPTION_LEVELS: Final = ("passive", "active", "time-sensitive", "critical")

PROVIDER_TOKEN_MIN_REFRESH_SECONDS: Final = 20 * 60
PROVIDER_TOKEN_MAX_AGE_SECONDS: Final = 60 * 60
KEY_ID_LENGTH: Final = 10
TEAM_ID_LENGTH: Final = 10
TEAM_ID: Final = re.compile(r"[A-Z0-9]{10}")
STORED_AT_MOST_SECONDS: Final = 30 * 24 * 3600
"""How long APNs stores a notification without an expiration for an offline device."""

RETRY_SERVER_ERROR_SECONDS: Final = 15 * 60
"""The minimum delay before a retry after a 5xx answer, with back-off."""

APNS_ID_PATTERN: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Canonical lower-case form, 8-4-4-4-12."""


@dataclass(frozen=True, slots=True)
class PushType:
    """One value of ``apns-push-type``, its constraints on other headers, and its purpose.

    ``address_kind`` is the kind of device token for it: ``alert`` is the one that an app gets by
    registering for remote notifications; PushKit, ActivityKit, WidgetKit, location pushes and
    device management each give out tokens of their own.
    """

    name: str
    topic_suffix: str = ""
    priorities: tuple[int, ...] = PRIORITIES
    default_priority: int = 10
    max_payload_bytes: int = MAX_PAYLOAD_BYTES
    token_authentication_only: bool = False
    address_kind: str = "alert"


PUSH_TYPES: Final = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            PushType("alert"),
            PushType("background", priorities=(5,), default_priority=5),
            PushType(
                "location",
                ".location-query",
                priorities=(10, 5),
                token_authentication_only=True,
                address_kind="location",
            ),
            PushType(
                "voip", ".voip", max_payload_bytes=MAX_VOIP_PAYLOAD_BYTES, address_kind="voip"
            ),
            PushType("complication", ".complication", address_kind="complication"),
            PushType("fileprovider", ".pushkit.fileprovider", address_kind="fileprovider"),
            PushType("mdm", address_kind="mdm"),
            PushType(
                "liveactivity",
                ".push-type.liveactivity",
                priorities=(10, 5),
                token_authentication_only=True,
                address_kind="liveactivity",
            ),
            PushType("pushtotalk", ".voip-ptt", address_kind="pushtotalk"),
            PushType("controls", ".push-type.controls", address_kind="controls"),
            PushType("widgets", ".push-type.widgets", address_kind="widgets"),
        )
    }
)
"""Every push type Apple lists, by name, with the suffix it adds to the bundle id as topic."""
