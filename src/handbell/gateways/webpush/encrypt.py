"""Encrypt a message for one subscription: RFC 8291, in one record of RFC 8188.

Each message has a key pair and a salt of its own, so nothing can be kept from one to the next; what
it costs is almost all in the key agreement.
"""

import os
from hmac import digest
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from handbell.services.webpush.protocol import (
    CONTENT_KEY_INFO,
    DELIMITER,
    KEY_BYTES,
    KEY_INFO,
    NONCE_INFO,
    RECORD_SIZE,
    SALT_BYTES,
)

_CURVE: Final = ec.SECP256R1()
_ECDH: Final = ec.ECDH()
_RECEIVER: Final = ec.EllipticCurvePublicKey.from_encoded_point
_X962: Final = Encoding.X962
_POINT: Final = PublicFormat.UncompressedPoint
_SIZES: Final = RECORD_SIZE.to_bytes(4, "big") + bytes([KEY_BYTES])
_FIRST: Final = b"\x01"  # the counter of HKDF's only block (RFC 5869)
_CONTENT_KEY: Final = CONTENT_KEY_INFO + _FIRST
_NONCE: Final = NONCE_INFO + _FIRST
_KEY_LENGTH: Final = 16
_NONCE_LENGTH: Final = 12
_HASH: Final = "sha256"


def encrypt(plaintext: bytes, public_key: bytes, secret: bytes) -> bytes:
    """Return the body of a message to the receiver with this key (a point) and secret.

    Raises ValueError for a key that is not a point on P-256. ``plaintext`` has at most
    :data:`~handbell.services.webpush.protocol.MAX_PLAINTEXT_BYTES`.
    """
    sender = ec.generate_private_key(_CURVE)
    return encrypt_from(sender, os.urandom(SALT_BYTES), plaintext, public_key, secret)


def encrypt_from(
    sender: ec.EllipticCurvePrivateKey,
    salt: bytes,
    plaintext: bytes,
    public_key: bytes,
    secret: bytes,
) -> bytes:
    """Return the body that :func:`encrypt` makes of a given key pair and salt."""
    shared = sender.exchange(_ECDH, _RECEIVER(_CURVE, public_key))
    sender_key = sender.public_key().public_bytes(_X962, _POINT)
    key_info = KEY_INFO + public_key + sender_key + _FIRST
    input_key = digest(digest(secret, shared, _HASH), key_info, _HASH)
    pseudo_random_key = digest(salt, input_key, _HASH)
    content_key = digest(pseudo_random_key, _CONTENT_KEY, _HASH)[:_KEY_LENGTH]
    nonce = digest(pseudo_random_key, _NONCE, _HASH)[:_NONCE_LENGTH]
    record = AESGCM(content_key).encrypt(nonce, plaintext + DELIMITER, None)
    return b"".join((salt, _SIZES, sender_key, record))
