"""Web Push: browsers, and any app that receives by UnifiedPush."""

from typing import Final

from handbell.services.address import origin_of
from handbell.services.service import PushService

from .address import read_address
from .protocol import MAX_PLAINTEXT_BYTES
from .reasons import BACK_OFF, FIXES, REASONS, TOKEN_REASONS

SERVICE: Final = PushService(
    name="webpush",
    title="Web Push",
    vendor="the browser's vendor",
    platforms=("web",),
    environments=("production", "twin"),
    reasons=REASONS,
    token_reasons=TOKEN_REASONS,
    fixes=FIXES,
    back_off=BACK_OFF,
    accepted_status=201,
    max_payload_bytes=MAX_PLAINTEXT_BYTES,
    push_types=frozenset({"alert"}),
    read_address=read_address,
    device="browser",
    unseen="does it run, may the site notify (its site settings), may the browser (the system's "
    "settings), and is no Focus or Do Not Disturb on?",
    origin_of=origin_of,
)
