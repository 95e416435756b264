"""Provider tokens (JWT): parsing, and verification with a team's key.

Source: establishing-a-token-based-connection-to-apns.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from handbell.errors import CredentialError
from handbell.twin.web_token import BadTokenError, WebToken

_DIGITS: Final = re.compile(r"[0-9]{1,12}")
_LAST_INSTANT: Final = 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A known key: its public half, and its limits (None: no limit)."""

    team_id: str
    key_id: str
    public_key: ec.EllipticCurvePublicKey
    environment: str | None = None
    topics: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """A parsed provider token; nothing in it is verified yet."""

    team_id: str
    key_id: str
    issued_at: float
    token: WebToken = field(repr=False)

    @classmethod
    def read(cls, text: str) -> "Claims":
        """Parse a token; raises BadTokenError when it is not an ES256 provider token."""
        try:
            token = WebToken.read(text)
        except BadTokenError:
            raise BadTokenError("The provider token is not a JSON web token.") from None
        team_id, key_id = token.claims.get("iss"), token.header.get("kid")
        if token.header.get("alg") != "ES256":
            raise BadTokenError("The provider token is not signed by ES256.")
        if not (isinstance(team_id, str) and isinstance(key_id, str)):
            raise BadTokenError("The provider token lacks 'kid' or 'iss'.")
        issued_at = _instant(token.claims.get("iat"))
        return cls(team_id=team_id, key_id=key_id, issued_at=issued_at, token=token)

    def is_signed_by(self, key: Key) -> bool:
        """Return whether the signature is the key's."""
        return self.token.is_signed_by(key.public_key)


def _instant(value: Any) -> float:
    """Return ``iat``; APNs accepts it as text too, as APNSwift sends it."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return float(value)
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value < _LAST_INSTANT
    ):
        return float(value)
    raise BadTokenError("The provider token has no 'iat' in UNIX seconds.")


def read_public_key(pem: str | bytes, key_id: str) -> ec.EllipticCurvePublicKey:
    """Return the public half of a key in PEM, public or ``.p8``; CredentialError if not P-256."""
    text = pem.encode() if isinstance(pem, str) else pem
    key: object
    try:
        if b"PRIVATE KEY" in text:
            key = serialization.load_pem_private_key(text, None)
        else:
            key = serialization.load_pem_public_key(text)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if isinstance(key, ec.EllipticCurvePrivateKey):
        key = key.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise CredentialError(
        f"The key {key_id} is not a P-256 key in PEM", fix="Give the .p8 as Apple issued it"
    )
