"""What a browser does with keys: making them, and decrypting a message (RFC 8291, RFC 8188)."""

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from handbell.services.webpush.protocol import (
    AUTH_SECRET_BYTES,
    CONTENT_KEY_INFO,
    DELIMITER,
    HEADER_BYTES,
    KEY_BYTES,
    KEY_INFO,
    NONCE_INFO,
    SALT_BYTES,
    TAG_BYTES,
)

_CURVE: Final = ec.SECP256R1()
_POINT_END: Final = HEADER_BYTES - KEY_BYTES
_SCALAR_BYTES: Final = 32
_LEAST_RECORD: Final = TAG_BYTES + len(DELIMITER)


class DecryptionError(ValueError):
    """A message that the browser cannot decrypt; the text is a sentence with the reason."""


@dataclass(frozen=True, slots=True)
class BrowserKeys:
    """The keys of one subscription, as a browser makes them and never gives away."""

    private: ec.EllipticCurvePrivateKey = field(repr=False)
    auth: bytes = field(repr=False)

    @classmethod
    def make(cls) -> Self:
        """Return new keys."""
        return cls(ec.generate_private_key(_CURVE), secrets.token_bytes(AUTH_SECRET_BYTES))

    @property
    def public(self) -> bytes:
        """Return the public key, an uncompressed point of 65 bytes."""
        key = self.private.public_key()
        return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def to_dict(self) -> dict[str, str]:
        """Return what the page's ``PushSubscription.toJSON()`` has as ``keys``."""
        return {"auth": encode(self.auth), "p256dh": encode(self.public)}

    def pack(self) -> dict[str, str]:
        """Return the keys whole, for this browser's own store."""
        scalar = self.private.private_numbers().private_value.to_bytes(_SCALAR_BYTES)
        return {"auth": encode(self.auth), "private": encode(scalar)}

    @classmethod
    def unpack(cls, packed: Mapping[str, str]) -> Self:
        """Return the keys of :meth:`pack`; raises ValueError or KeyError for anything else."""
        scalar = int.from_bytes(decode(packed["private"]))
        return cls(ec.derive_private_key(scalar, _CURVE), decode(packed["auth"]))

    def decrypt(self, body: bytes) -> bytes:
        """Return the plaintext of an ``aes128gcm`` body; raises DecryptionError."""
        if len(body) < HEADER_BYTES + _LEAST_RECORD:
            raise DecryptionError("The body is too short for a header and a record.")
        salt, size = body[:SALT_BYTES], body[SALT_BYTES : _POINT_END - 1]
        if body[_POINT_END - 1] != KEY_BYTES:
            raise DecryptionError("The key id is not a public key of 65 bytes.")
        sender, record = body[_POINT_END:HEADER_BYTES], body[HEADER_BYTES:]
        if len(record) > int.from_bytes(size):
            raise DecryptionError("There is more than one record.")
        content_key, nonce = self._derive(sender, salt)
        try:
            padded = AESGCM(content_key).decrypt(nonce, record, None)
        except InvalidTag:
            raise DecryptionError("The body was encrypted for other keys, or changed.") from None
        plain = padded.rstrip(b"\0")
        if not plain.endswith(DELIMITER):
            raise DecryptionError("The record is not marked as the last one.")
        return plain.removesuffix(DELIMITER)

    def _derive(self, sender: bytes, salt: bytes) -> tuple[bytes, bytes]:
        """Return content key and nonce (RFC 8291, 3.4)."""
        try:
            point = ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, sender)
        except ValueError:
            raise DecryptionError("The sender's key is not a point on P-256.") from None
        shared = self.private.exchange(ec.ECDH(), point)
        secret = _hkdf(self.auth, shared, KEY_INFO + self.public + sender, 32)
        key = _hkdf(salt, secret, CONTENT_KEY_INFO, 16)
        return key, _hkdf(salt, secret, NONCE_INFO, 12)


def _hkdf(salt: bytes, secret: bytes, info: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)


def encode(value: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """Return what base64url stands for, padded or not; raises ValueError."""
    bare = text.rstrip("=")
    return base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)
