"""VAPID tokens, which tell a push service who sends (RFC 8292).

A token is for one origin. It is signed deterministically and expires on a fixed grid of time, so
every process, every machine and every restart makes the very same one, without coordination.
"""

import math
from collections.abc import Callable
from typing import Final

from handbell.clocks import seconds_since_boot
from handbell.gateways.jose import Members, es256_token
from handbell.services.webpush.credential import VapidKey
from handbell.services.webpush.protocol import VAPID_SCHEME

GRID_SECONDS: Final = 6 * 3600
"""The interval of new tokens: over Apple's hour."""

LONGEST_SECONDS: Final = 2 * GRID_SECONDS
"""The life of a token at most; half of it at least is left when it is sent."""

_MOST_ORIGINS: Final = 1000


def vapid_token(key: VapidKey, *, origin: str, subject: str, expires_at: int) -> str:
    """Return the token (a JWS) for a push service's origin; ``expires_at`` is in UNIX seconds.

    The same arguments give the same text.
    """
    claims: Members = {"aud": origin, "exp": expires_at, "sub": subject}
    return es256_token(key.private_key, {"typ": "JWT", "alg": "ES256"}, claims)


class VapidTokens:
    """The current tokens of one key, by origin, renewed over time.

    They change every six hours, at multiples of six hours of UNIX time only, and then have twelve
    hours to live: so, by the clock ``now``, an origin never sees more than one new token within six
    hours, and a clock that is wrong by six hours still makes valid ones. A token's age is measured
    by ``seconds``, a monotonic clock: when the wall clock is set, tokens are used until they are
    due.
    """

    def __init__(
        self,
        key: VapidKey,
        subject: str,
        now: Callable[[], float],
        seconds: Callable[[], float] = seconds_since_boot,
    ) -> None:
        self._key = key
        self._subject = subject
        self._now = now
        self._seconds = seconds
        self._due = -math.inf  # by `seconds`
        self._expires_at = 0
        self._made: dict[str, str] = {}

    def authorization(self, origin: str) -> str:
        """Return the header ``authorization`` to use now; the same text until the next is due."""
        if self._seconds() >= self._due:
            self._turn()
        made = self._made.get(origin)
        if made is None:
            if len(self._made) >= _MOST_ORIGINS:
                # Strangers name origins; what is made anew is the same text.
                self._made.clear()
            token = vapid_token(
                self._key, origin=origin, subject=self._subject, expires_at=self._expires_at
            )
            made = self._made[origin] = f"{VAPID_SCHEME} t={token}, k={self._key.public_key}"
        return made

    def _turn(self) -> None:
        now = self._now()
        since = int(now // GRID_SECONDS) * GRID_SECONDS
        self._due = self._seconds() + GRID_SECONDS - (now - since)
        self._expires_at = since + LONGEST_SECONDS
        self._made.clear()
