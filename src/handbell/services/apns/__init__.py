"""Apple Push Notification service."""

from typing import Final

from handbell.services.service import PushService

from .address import read_address
from .protocol import MAX_PAYLOAD_BYTES, PUSH_TYPES
from .reasons import BACK_OFF, BACK_OFF_BY_REASON, FIXES, REASONS, TOKEN_REASONS

SERVICE: Final = PushService(
    name="apns",
    title="APNs",
    vendor="Apple",
    platforms=("ios", "ipados", "macos", "tvos", "visionos", "watchos"),
    environments=("production", "development", "twin"),
    reasons=REASONS,
    token_reasons=TOKEN_REASONS,
    fixes=FIXES,
    back_off=BACK_OFF,
    back_off_by_reason=BACK_OFF_BY_REASON,
    max_payload_bytes=MAX_PAYLOAD_BYTES,
    push_types=frozenset(PUSH_TYPES),
    read_address=read_address,
    unseen="is it on and online, may the app notify (Settings, Notifications), and is no Focus on?",
)
