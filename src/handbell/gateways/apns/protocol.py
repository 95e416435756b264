"""What Apple publishes about APNs, and nothing else: names, limits and the table of reasons.

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
from enum import Enum
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
    """The device is gone, if it has not registered since Apple's timestamp."""
    RENEW_TOKEN = "renew-token"  # noqa: S105 - a reaction, not a secret
    """Mint a provider token, open a new connection, send again once."""
    RECONNECT = "reconnect"
    """Send again at once on a new connection."""
    SLOW_DOWN_DEVICE = "slow-down-device"
    """Send again later; only this device is concerned."""
    KEEP_FORMER_TOKEN = "keep-former-token"  # noqa: S105 - a reaction, not a secret
    """The provider token was renewed too often; use the former one and wait minutes."""
    BACK_OFF = "back-off"
    """The service is in trouble; send again after fifteen minutes or more."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One row of Apple's table: a reason, its status, its meaning and the reaction."""

    name: str
    status: int
    meaning: str
    reaction: Reaction


_FIX_NOTIFICATION = Reaction.FIX_NOTIFICATION
_FIX_CONFIGURATION = Reaction.FIX_CONFIGURATION

REASONS: Final = MappingProxyType(
    {
        row.name: row
        for row in (
            Reason(
                "BadCollapseId", 400, "the collapse id is longer than 64 bytes", _FIX_NOTIFICATION
            ),
            Reason(
                "BadDeviceToken",
                400,
                "the token is malformed or lives in the other environment",
                Reaction.TRY_OTHER_ENVIRONMENT,
            ),
            Reason("BadExpirationDate", 400, "apns-expiration is not valid", _FIX_NOTIFICATION),
            Reason("BadMessageId", 400, "apns-id is not a canonical UUID", _FIX_NOTIFICATION),
            Reason("BadPriority", 400, "apns-priority is not valid", _FIX_NOTIFICATION),
            Reason("BadTopic", 400, "apns-topic is not valid", _FIX_CONFIGURATION),
            Reason(
                "DeviceTokenNotForTopic",
                400,
                "the token belongs to another app",
                Reaction.WRONG_APP,
            ),
            Reason("DuplicateHeaders", 400, "a header was sent twice", _FIX_NOTIFICATION),
            Reason("IdleTimeout", 400, "the connection was idle for too long", Reaction.RECONNECT),
            Reason("InvalidPushType", 400, "apns-push-type is not valid", _FIX_NOTIFICATION),
            Reason("MissingDeviceToken", 400, "the path names no device token", _FIX_NOTIFICATION),
            Reason("MissingTopic", 400, "apns-topic is missing", _FIX_CONFIGURATION),
            Reason("PayloadEmpty", 400, "the request has no body", _FIX_NOTIFICATION),
            Reason(
                "TopicDisallowed",
                400,
                "this key or certificate may not push to the topic",
                _FIX_CONFIGURATION,
            ),
            Reason(
                "BadCertificate", 403, "the client certificate is not valid", _FIX_CONFIGURATION
            ),
            Reason(
                "BadCertificateEnvironment",
                403,
                "the client certificate is for the other environment",
                _FIX_CONFIGURATION,
            ),
            Reason(
                "ExpiredProviderToken",
                403,
                "the provider token is older than an hour",
                Reaction.RENEW_TOKEN,
            ),
            Reason("Forbidden", 403, "the action is not allowed", _FIX_CONFIGURATION),
            Reason(
                "InvalidProviderToken",
                403,
                "Apple does not accept the signature: key, key id or team id is wrong",
                _FIX_CONFIGURATION,
            ),
            Reason(
                "MissingProviderToken",
                403,
                "neither a provider token nor a certificate was presented",
                _FIX_CONFIGURATION,
            ),
            Reason(
                "UnrelatedKeyIdInToken",
                403,
                "the connection was opened with an unrelated key",
                Reaction.RECONNECT,
            ),
            Reason(
                "BadEnvironmentKeyIdInToken",
                403,
                "the key is limited to the other environment",
                Reaction.TRY_OTHER_ENVIRONMENT,
            ),
            Reason(
                # Not in Apple's table, but observed from the production host.
                "BadEnvironmentKeyInToken",
                403,
                "the key is limited to the other environment",
                Reaction.TRY_OTHER_ENVIRONMENT,
            ),
            Reason("BadPath", 404, "the path is not valid", _FIX_NOTIFICATION),
            Reason("MethodNotAllowed", 405, "the method is not POST", _FIX_NOTIFICATION),
            Reason("ExpiredToken", 410, "the device token has expired", Reaction.CLOSE_SESSION),
            Reason(
                "Unregistered",
                410,
                "the app is no longer on the device, or the device withdrew the token",
                Reaction.CLOSE_SESSION,
            ),
            Reason("PayloadTooLarge", 413, "the payload is too large", _FIX_NOTIFICATION),
            Reason(
                "TooManyProviderTokenUpdates",
                429,
                "the provider token was renewed more than once in 20 minutes",
                Reaction.KEEP_FORMER_TOKEN,
            ),
            Reason(
                "TooManyRequests",
                429,
                "too many requests in a row for one device token",
                Reaction.SLOW_DOWN_DEVICE,
            ),
            Reason("InternalServerError", 500, "Apple's server failed", Reaction.BACK_OFF),
            Reason(
                "ServiceUnavailable", 503, "Apple's service is not available", Reaction.BACK_OFF
            ),
            Reason("Shutdown", 503, "this server of Apple's is shutting down", Reaction.RECONNECT),
        )
    }
)
"""Every reason a device push can be refused with, by name."""
