"""Signed tokens (JWS, RFC 7515): with ES256 for APNs and Web Push, with RS256 for Google.

Signing is deterministic (for ES256 by RFC 6979): every process, every machine and every restart
makes the very same token of the same claims, without coordination.
"""

import json
from collections.abc import Mapping
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from handbell._base64url import base64url

_SCALAR_BYTES: Final = 32
_ES256: Final = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)

Members = Mapping[str, str | int]


def es256_token(private_key: ec.EllipticCurvePrivateKey, header: Members, claims: Members) -> str:
    """Return a token, signed with ES256; ``header`` says ``alg`` itself, where it belongs.

    The same key, header and claims give the same text. The signature is JOSE's: r and s, 32 bytes
    each.
    """
    signed = f"{encoded(header)}.{encoded(claims)}"
    r, s = decode_dss_signature(private_key.sign(signed.encode("ascii"), _ES256))
    signature = r.to_bytes(_SCALAR_BYTES, "big") + s.to_bytes(_SCALAR_BYTES, "big")
    return f"{signed}.{base64url(signature)}"


def rs256_token(private_key: rsa.RSAPrivateKey, header: Members, claims: Members) -> str:
    """Return a token, signed with RS256; ``header`` says ``alg`` itself, where it belongs."""
    signed = f"{encoded(header)}.{encoded(claims)}"
    signature = private_key.sign(signed.encode("ascii"), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{base64url(signature)}"


def encoded(members: Members) -> str:
    """Return a part of a token: compact JSON in base64 for URLs."""
    return base64url(json.dumps(members, separators=(",", ":")).encode())
