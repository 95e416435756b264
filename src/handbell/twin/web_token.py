"""JSON web tokens: parsing, verification, and what may be shown of one."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

_ES256: Final = ec.ECDSA(hashes.SHA256())
_RAW_SIGNATURE_BYTES: Final = 64


class BadTokenError(ValueError):
    """The token is malformed; the text is a sentence with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebToken:
    """A parsed token; nothing in it is verified yet."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @classmethod
    def read(cls, text: str) -> "WebToken":
        """Parse a token in compact form (RFC 7515, 3.1); raises BadTokenError if it is none."""
        try:
            head, claims, signature = text.split(".")
            return cls(
                header=_json(head),
                claims=_json(claims),
                signed=f"{head}.{claims}".encode("ascii"),
                signature=_base64(signature),
            )
        except ValueError:
            raise BadTokenError("The token is not a JSON web token.") from None

    def is_signed_by(self, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bool:
        """Return whether the signature is the key's: ES256 for a P-256 key, RS256 for an RSA one.

        ES256 may be 64 raw bytes (RFC 7518, 3.4) or DER, as in Apple's own examples.
        """
        try:
            if isinstance(key, rsa.RSAPublicKey):
                key.verify(self.signature, self.signed, padding.PKCS1v15(), hashes.SHA256())
            else:
                key.verify(self._der_signature, self.signed, _ES256)
        except InvalidSignature:
            return False
        return True

    @property
    def _der_signature(self) -> bytes:
        if len(self.signature) != _RAW_SIGNATURE_BYTES:
            return self.signature
        half = _RAW_SIGNATURE_BYTES // 2
        first, second = self.signature[:half], self.signature[half:]
        return encode_dss_signature(int.from_bytes(first), int.from_bytes(second))


def describe_token(text: str) -> str:
    """Return a displayable form of a token: its content, without its signature."""
    parts = text.strip().split(".")
    try:
        shown = ".".join(json.dumps(_json(part)) for part in parts[:2])
    except ValueError:
        return "(not a JSON web token)"
    return f"{shown} (signature hidden)"


def describe_authorization(value: str) -> str:
    """Return a displayable form of the ``authorization`` header, without what would prove it."""
    scheme, blank, token = value.partition(" ")
    if not blank:
        return "(hidden)"
    if scheme.lower() == "vapid":
        parts = (part.strip().partition("=") for part in token.split(","))
        found = {name: text for name, _, text in parts}
        return f"{scheme} t={describe_token(found.get('t', ''))}, k={found.get('k', '')}"
    return f"{scheme} {describe_token(token)}"


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
