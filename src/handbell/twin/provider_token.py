"""Provider tokens (JWT): parsing, and verification with a team's key.

Source: establishing-a-token-based-connection-to-apns.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from handbell.errors import CredentialError

_DIGITS: Final = re.compile(r"[0-9]{1,12}")
_ES256: Final = ec.ECDSA(hashes.SHA256())
_RAW_SIGNATURE_BYTES: Final = 64
_LAST_INSTANT: Final = 1e12


class BadTokenError(ValueError):
    """The token is malformed; the text is a sentence with the reason."""


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
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @classmethod
    def read(cls, token: str) -> "Claims":
        """Parse a token; raises BadTokenError when it is not an ES256 provider token."""
        try:
            head, claims, signature = token.split(".")
            header, body = _json(head), _json(claims)
            signed, seal = f"{head}.{claims}".encode("ascii"), _base64(signature)
        except ValueError:
            raise BadTokenError("The provider token is not a JSON web token.") from None
        team_id, key_id = body.get("iss"), header.get("kid")
        if header.get("alg") != "ES256":
            raise BadTokenError("The provider token is not signed by ES256.")
        if not (isinstance(team_id, str) and isinstance(key_id, str)):
            raise BadTokenError("The provider token lacks 'kid' or 'iss'.")
        issued_at = _instant(body.get("iat"))
        return cls(
            team_id=team_id, key_id=key_id, issued_at=issued_at, signed=signed, signature=seal
        )

    def is_signed_by(self, key: Key) -> bool:
        """Return whether the signature is the key's: 64 raw bytes (RFC 7518, 3.4), or DER.

        Apple's own examples use a DER signature, so both are accepted.
        """
        der = self.signature
        if len(der) == _RAW_SIGNATURE_BYTES:
            half = _RAW_SIGNATURE_BYTES // 2
            der = encode_dss_signature(int.from_bytes(der[:half]), int.from_bytes(der[half:]))
        try:
            key.public_key.verify(der, self.signed, _ES256)
        except InvalidSignature:
            return False
        return True


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


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError from error


def _json(text: str) -> Mapping[str, Any]:
    try:
        decoded = json.loads(_base64(text))
    except RecursionError as error:
        raise ValueError from error
    if not isinstance(decoded, dict):
        raise ValueError  # noqa: TRY004  the caller maps whatever cannot be read
    return decoded


def describe_authorization(value: str) -> str:
    """Return a displayable form of the header: the token's content, without its signature."""
    scheme, blank, token = value.partition(" ")
    if not blank:
        return "(hidden)"
    parts = token.strip().split(".")
    try:
        shown = ".".join(json.dumps(_json(part)) for part in parts[:2])
    except ValueError:
        return f"{scheme} (not a JSON web token)"
    return f"{scheme} {shown} (signature hidden)"


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
