"""A push service made up for a test, from the same files that a real one has."""

from typing import Final

from handbell.services.service import PushService

from .address import read_address
from .protocol import LONGEST_MESSAGE
from .reasons import BACK_OFF, FIXES, REASONS

SERVICE: Final = PushService(
    name="pigeon",
    title="Pigeon post",
    vendor="The loft",
    platforms=("pigeon",),
    environments=("production", "twin"),
    reasons=REASONS,
    token_reasons=frozenset({"ForeignRing"}),
    fixes=FIXES,
    back_off=BACK_OFF,
    max_payload_bytes=LONGEST_MESSAGE,
    push_types=frozenset({"alert"}),
    read_address=read_address,
    client="tests.pigeon",
)
