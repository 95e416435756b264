"""Firebase Cloud Messaging (HTTP v1): Android devices, and whatever else Firebase reaches."""

from typing import Final

from handbell.services.service import PushService

from .address import read_address
from .protocol import MAX_PAYLOAD_BYTES, MESSAGES_PER_MINUTE, RAMP_SECONDS, RETRY_SECONDS
from .reasons import BACK_OFF, FIXES, REASONS, TOKEN_REASONS

SERVICE: Final = PushService(
    name="fcm",
    title="FCM",
    vendor="Google",
    platforms=("android",),
    environments=("production", "twin"),
    reasons=REASONS,
    token_reasons=TOKEN_REASONS,
    fixes=FIXES,
    back_off=BACK_OFF,
    max_payload_bytes=MAX_PAYLOAD_BYTES,
    push_types=frozenset({"alert", "background"}),
    read_address=read_address,
    unseen="is it on and online, may the app notify (Settings, Apps, Notifications), is the "
    "channel on, and was the app not stopped by force?",
    ramp_seconds=RAMP_SECONDS,
    peak_per_second=MESSAGES_PER_MINUTE // 60,
    least_seconds=RETRY_SECONDS,
)
