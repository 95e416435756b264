"""What is published about Web Push, and nothing else: names, limits and layouts.

The gateway and the twin share this module and no logic, so that each catches the other's
misreading.

Sources:

- RFC 8030, Generic Event Delivery Using HTTP Push (requests, TTL, Urgency, Topic)
- RFC 8188, Encrypted Content-Encoding for HTTP, and RFC 8291, Message Encryption for Web Push
- RFC 8292, Voluntary Application Server Identification (VAPID)
- Declarative Web Push (https://www.w3.org/TR/push-api/#declarative-push-message)
- https://mozilla-services.github.io/autopush-rs/errors.html and .../http.html
- https://developer.apple.com/documentation/usernotifications/sending-web-push-notifications-in-web-apps-and-browsers
"""

import re
from typing import Final

AUTHORIZATION: Final = "authorization"
CONTENT_ENCODING: Final = "content-encoding"
CONTENT_TYPE: Final = "content-type"
LOCATION: Final = "location"
TOPIC: Final = "topic"
TTL: Final = "ttl"
URGENCY: Final = "urgency"
APNS_ID: Final = "apns-id"
"""Answered by Apple alone."""

AES128GCM: Final = "aes128gcm"
"""The content encoding of a message (RFC 8188); the older ``aesgcm`` is obsolete."""
OCTET_STREAM: Final = "application/octet-stream"

URGENCIES: Final = ("very-low", "low", "normal", "high")
DEFAULT_URGENCY: Final = "normal"
"""What a push service assumes where the header is missing."""
MAX_TOPIC_CHARACTERS: Final = 32
TOPIC_PATTERN: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
MAX_TTL_SECONDS: Final = 30 * 24 * 3600
"""The longest time for which push services keep a message; a longer one is shortened."""

MAX_BODY_BYTES: Final = 4096
"""No push service answers 413 to a body of this size or less (RFC 8030, 7.2)."""
SALT_BYTES: Final = 16
KEY_BYTES: Final = 65
"""A point on P-256, uncompressed: the byte 04, and both coordinates."""
AUTH_SECRET_BYTES: Final = 16
RECORD_SIZE: Final = 4096
"""The record size that a message declares; it has exactly one record, of any length below."""
HEADER_BYTES: Final = SALT_BYTES + 4 + 1 + KEY_BYTES
"""Salt, record size, length of the key id, and the sender's public key as key id."""
DELIMITER: Final = b"\x02"
"""Ends the plaintext of the last record."""
TAG_BYTES: Final = 16
MAX_PLAINTEXT_BYTES: Final = MAX_BODY_BYTES - HEADER_BYTES - len(DELIMITER) - TAG_BYTES

KEY_INFO: Final = b"WebPush: info\0"
"""Followed by the receiver's public key and the sender's."""
CONTENT_KEY_INFO: Final = b"Content-Encoding: aes128gcm\0"
NONCE_INFO: Final = b"Content-Encoding: nonce\0"

VAPID_SCHEME: Final = "vapid"
MAX_VAPID_SECONDS: Final = 24 * 3600
"""The longest life of a VAPID token, from the request on (RFC 8292, 2)."""
VAPID_MIN_REFRESH_SECONDS: Final = 3600
"""Apple asks for no new token more often than this."""

DECLARATIVE_MARK: Final = 8030
"""The value of ``web_push``, which marks a declarative message."""

APPLE_HOSTS: Final = "*.push.apple.com"
PUSH_HOSTS: Final = (
    "updates.push.services.mozilla.com",
    "*.push.services.mozilla.com",
    "fcm.googleapis.com",
    "jmt17.google.com",
    APPLE_HOSTS,
    "*.notify.windows.com",
)
"""The hosts of the browsers' own push services; ``*.`` is any name below.

``jmt17.google.com`` is documented nowhere: builds of Chromium without Google's brand subscribe
there (seen with Debian's Chromium 156).
"""
