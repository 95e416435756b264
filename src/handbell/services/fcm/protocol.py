"""What Google publishes about FCM HTTP v1, and nothing else: names, limits and members.

The gateway and the twin share these facts and no logic, so that each catches the other's
misreading. Where Google's pages are silent the value is left out rather than guessed.

Sources, below https://firebase.google.com/docs/ unless a host is named:

- reference/fcm/rest/v1/projects.messages (the message and its members)
- cloud-messaging/send/v1-api (host, path, authorization)
- cloud-messaging/scale-fcm, cloud-messaging/throttling-and-quotas (limits, when to send again)
- https://developers.google.com/identity/protocols/oauth2/service-account (the access token)
"""

import re
from enum import Enum
from types import MappingProxyType
from typing import Final

URL: Final = "https://fcm.googleapis.com"
AUTHORIZATION: Final = "authorization"

# -- the access token ----------------------------------------------------------------------------

TOKEN_URI: Final = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
"""Where an access token is asked for, unless the key file names another ``token_uri``."""
SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
BROAD_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
"""A scope that covers sending as well."""
GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_SECONDS: Final = 3600
"""The longest time between ``iat`` and ``exp`` of the signed request."""
ACCESS_TOKEN_SECONDS: Final = 3600
"""How long an access token usually lives; the answer says it as ``expires_in``."""
PERMISSION: Final = "cloudmessaging.messages.create"
"""The IAM permission that a service account needs."""

# -- limits --------------------------------------------------------------------------------------

MAX_PAYLOAD_BYTES: Final = 4096
"""Keys and values of a message to one device."""
MAX_TOPIC_PAYLOAD_BYTES: Final = 2048
"""Keys and values of a message to a topic."""
MAX_TTL_SECONDS: Final = 28 * 24 * 3600
"""The longest ``ttl``, and how long a message without one is stored."""
MESSAGES_PER_MINUTE: Final = 600_000
"""The usual quota of a project; all requests count but those that are answered 429."""
DEVICE_PER_MINUTE: Final = 240
DEVICE_PER_HOUR: Final = 5_000
STORED_AT_MOST: Final = 100
"""Messages without a collapse key for one offline device; one more, and all are dropped."""
COLLAPSE_KEYS_AT_MOST: Final = 4
"""Collapse keys that are kept for one offline device."""
COLLAPSIBLE_BURST: Final = 20
COLLAPSIBLE_SECONDS: Final = 3 * 60
"""Messages with a collapse key to one device: the burst, then one in so many seconds."""
INACTIVE_DAYS: Final = 270
"""After so many days without contact a device's registration token expires."""

REQUEST_TIMEOUT_SECONDS: Final = 10
"""Wait at least so long for an answer."""
RETRY_SECONDS: Final = 10
"""Never send again sooner, except with a new access token or after a refused stream."""
QUOTA_SECONDS: Final = 60
"""Where a quota is used up and no ``Retry-After`` is given, wait at least so long."""
GIVE_UP_SECONDS: Final = 3600
"""Google's advice: give a message up after about an hour of trouble."""
RAMP_SECONDS: Final = 60
"""Google's advice: take at least so long from nothing to the highest rate."""

# -- the message ---------------------------------------------------------------------------------

RESERVED_DATA_KEYS: Final = frozenset({"from", "gcm", "message_type", "notification"})
"""Keys that ``data`` may not have; nor one that begins with :data:`RESERVED_DATA_PREFIXES`."""
RESERVED_DATA_PREFIXES: Final = ("google", "gcm.")
OVERRIDDEN_DATA_KEY: Final = "collapse_key"
"""A key that ``data`` may have, and whose value FCM replaces by its own."""

ANALYTICS_LABEL: Final = re.compile(r"[a-zA-Z0-9\-_.~%]{1,50}")
COLOR: Final = re.compile(r"#[0-9a-fA-F]{6}")
DURATION: Final = re.compile(r"(\d{1,12})(?:\.\d{1,9})?s")
"""A duration of JSON in protocol buffers: seconds with up to nine decimals, and ``s``."""


class Kind(Enum):
    """The kind of a member's value."""

    TEXT = "a text"
    TEXTS = "a list of texts"
    FLAG = "true or false"
    WHOLE = "a whole number"
    COLOR = "a colour such as `#1e90ff`"
    INSTANT = "a time of RFC 3339, such as `2027-03-01T09:00:00Z`"
    DURATION = "a duration such as `3.5s`"
    DURATIONS = "a list of durations such as `3.5s`"
    PRIORITY = "`normal` or `high`"
    SHOWN_PRIORITY = (
        "one of PRIORITY_MIN, PRIORITY_LOW, PRIORITY_DEFAULT, PRIORITY_HIGH and PRIORITY_MAX"
    )
    VISIBILITY = "one of PRIVATE, PUBLIC and SECRET"
    PROXY = "one of ALLOW, DENY and IF_PRIORITY_LOWERED"
    LABEL = "an analytics label: up to 50 letters, digits and `-_.~%`"
    TEXT_MAPPING = "a mapping of texts to texts"
    NOTIFICATION = "a mapping of members of `android.notification`"
    LIGHT = "a mapping with `color`, `light_on_duration` and `light_off_duration`"
    OPTIONS = "a mapping with `analytics_label`"


ENUMS: Final = MappingProxyType(
    {
        Kind.PRIORITY: ("normal", "high"),
        Kind.SHOWN_PRIORITY: (
            "PRIORITY_MIN",
            "PRIORITY_LOW",
            "PRIORITY_DEFAULT",
            "PRIORITY_HIGH",
            "PRIORITY_MAX",
        ),
        Kind.VISIBILITY: ("PRIVATE", "PUBLIC", "SECRET"),
        Kind.PROXY: ("ALLOW", "DENY", "IF_PRIORITY_LOWERED"),
    }
)
"""The values of each enumeration. FCM reads ``priority`` in capitals as well."""

ANDROID: Final = MappingProxyType(
    {
        "collapse_key": Kind.TEXT,
        "priority": Kind.PRIORITY,
        "ttl": Kind.DURATION,
        "restricted_package_name": Kind.TEXT,
        "data": Kind.TEXT_MAPPING,
        "notification": Kind.NOTIFICATION,
        "fcm_options": Kind.OPTIONS,
        "direct_boot_ok": Kind.FLAG,
        "bandwidth_constrained_ok": Kind.FLAG,
        "restricted_satellite_ok": Kind.FLAG,
    }
)
"""The members of ``message.android``."""

ANDROID_NOTIFICATION: Final = MappingProxyType(
    {
        "title": Kind.TEXT,
        "body": Kind.TEXT,
        "icon": Kind.TEXT,
        "color": Kind.COLOR,
        "sound": Kind.TEXT,
        "tag": Kind.TEXT,
        "click_action": Kind.TEXT,
        "body_loc_key": Kind.TEXT,
        "body_loc_args": Kind.TEXTS,
        "title_loc_key": Kind.TEXT,
        "title_loc_args": Kind.TEXTS,
        "channel_id": Kind.TEXT,
        "image": Kind.TEXT,
        "ticker": Kind.TEXT,
        "sticky": Kind.FLAG,
        "event_time": Kind.INSTANT,
        "local_only": Kind.FLAG,
        "notification_priority": Kind.SHOWN_PRIORITY,
        "vibrate_timings": Kind.DURATIONS,
        "default_vibrate_timings": Kind.FLAG,
        "default_sound": Kind.FLAG,
        "default_light_settings": Kind.FLAG,
        "light_settings": Kind.LIGHT,
        "visibility": Kind.VISIBILITY,
        "notification_count": Kind.WHOLE,
        "proxy": Kind.PROXY,
    }
)
"""The members of ``message.android.notification``."""

NOTIFICATION: Final = MappingProxyType({"title": Kind.TEXT, "body": Kind.TEXT, "image": Kind.TEXT})
"""The members of ``message.notification``."""

TARGETS: Final = ("token", "fid", "topic", "condition")
"""The members of a message that name whom it is for; it has exactly one of them."""

FCM_ERROR: Final = "google.firebase.fcm.v1.FcmError"
"""The end of the ``@type`` of the detail that holds FCM's own ``errorCode``."""
BAD_REQUEST: Final = "google.rpc.BadRequest"
"""The end of the ``@type`` of the detail that lists ``fieldViolations``."""
QUOTA_FAILURE: Final = "google.rpc.QuotaFailure"
"""The end of the ``@type`` of the detail that says which quota is used up."""


def send_path(project_id: str) -> str:
    """Return the path to which a project's messages are posted."""
    return f"/v1/projects/{project_id}/messages:send"
