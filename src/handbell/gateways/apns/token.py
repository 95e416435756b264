"""Provider tokens (JWT), which authenticate a team to Apple.

A token is signed deterministically (ES256 by RFC 6979) and issued on a fixed grid of time, so
every process, every machine and every restart makes the very same token, without coordination.

Source: "Establishing a token-based connection to APNs"
(https://developer.apple.com/documentation/usernotifications/).
"""

import math
from collections.abc import Callable
from typing import Final

from handbell.clocks import seconds_since_boot
from handbell.gateways.jose import es256_token
from handbell.services.apns.credential import AuthKey
from handbell.services.apns.protocol import PROVIDER_TOKEN_MAX_AGE_SECONDS

GRID_SECONDS: Final = 35 * 60
"""The interval of new tokens: over Apple's 20 minutes, and well under its 60."""

_MARGIN_SECONDS: Final = 60  # leaves time for requests on the wire


def provider_token(auth_key: AuthKey, issued_at: int) -> str:
    """Return the provider token (a JWS) of a key for an instant in UNIX seconds.

    The same key and instant give the same text.
    """
    return es256_token(
        auth_key.private_key,
        {"alg": "ES256", "kid": auth_key.key_id},
        {"iss": auth_key.team_id, "iat": issued_at},
    )


class ProviderTokens:
    """The current token of one key, renewed over time.

    :meth:`current` changes every 35 minutes, at multiples of 35 minutes of UNIX time only.
    So, by the clock ``now``, two different tokens are never issued within 20 minutes of each other
    and none is ever older than 35 minutes; a clock that is up to 25 minutes behind Apple's still
    makes tokens that Apple accepts. Around a change, two machines whose clocks differ use
    neighbouring tokens for as long as their clocks differ.

    A token's age is measured by ``seconds``, a monotonic clock: when the wall clock is set, the
    token that Apple knows is used until it is due.
    """

    def __init__(
        self,
        auth_key: AuthKey,
        now: Callable[[], float],
        seconds: Callable[[], float] = seconds_since_boot,
    ) -> None:
        self._lead = 0.0
        self._auth_key = auth_key
        self._now = now
        self._seconds = seconds
        self._made: dict[int, str] = {}
        self._current = ""
        self._since = 0
        self._zero = -math.inf  # when its age was 0, by `seconds`

    def current(self) -> str:
        """Return the token to use now."""
        if self._seconds() - self._zero >= GRID_SECONDS:
            now = self._now() + self._lead
            self._since = int(now // GRID_SECONDS) * GRID_SECONDS
            self._zero = self._seconds() - (now - self._since)
            self._current = self._token(self._since)
        return self._current

    def former(self) -> str | None:
        """Return the token before the current one, or None when Apple would call it expired."""
        self.current()
        age = self._seconds() - self._zero + GRID_SECONDS
        is_valid = age < PROVIDER_TOKEN_MAX_AGE_SECONDS - _MARGIN_SECONDS
        return self._token(self._since - GRID_SECONDS) if is_valid else None

    def follow(self, lead: float) -> None:
        """Issue the next token at once, by a clock that is ``lead`` seconds ahead of ``now``.

        Used when a server calls the current token expired.
        """
        self._lead = lead
        self._zero = -math.inf

    def _token(self, issued_at: int) -> str:
        token = self._made.get(issued_at)
        if token is None:
            # Only two are ever needed; older ones must not accumulate.
            self._made = {
                at: made for at, made in self._made.items() if at > issued_at - 2 * GRID_SECONDS
            }
            token = self._made[issued_at] = provider_token(self._auth_key, issued_at)
        return token
