"""Who sends: verification of the ``vapid`` authentication scheme (RFC 8292)."""

import re
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from handbell.services.webpush.protocol import MAX_VAPID_SECONDS, VAPID_SCHEME
from handbell.twin.web_token import BadTokenError, WebToken

from .encryption import decode, encode
from .refusal import RefusalError

_PARAMETER: Final = re.compile(r'\s*([A-Za-z]+)\s*=\s*"?([A-Za-z0-9._~+/=-]*)"?\s*')
_SIGNATURE_BYTES: Final = 64


def authenticate(header: str | None, *, origin: str, key: str | None, now: float) -> str | None:
    """Return the public key of a request's sender, base64url; None for one that does not say.

    ``key`` is the subscription's: then only its sender is admitted. Raises RefusalError: 401 for
    no or an unreadable authentication, 403 for one that proves nothing or somebody else
    (RFC 8292, 4.2).
    """
    if header is None:
        if key is None:
            return None
        raise RefusalError(401, 109, "The subscription is restricted: it needs vapid credentials.")
    scheme, _, rest = header.partition(" ")
    if scheme.lower() != VAPID_SCHEME:
        raise RefusalError(401, 109, f"The authentication scheme is {scheme!r}, not 'vapid'.")
    found = {one[1]: one[2] for part in rest.split(",") if (one := _PARAMETER.fullmatch(part))}
    if "t" not in found or "k" not in found:
        raise RefusalError(401, 109, "The vapid credentials lack 't' or 'k'.")
    sender, public_key = _public_key(found["k"])
    _check(found["t"], public_key, origin=origin, now=now)
    if key is not None and sender != key:
        raise RefusalError(
            403, 109, "The key is another one than the subscription's applicationServerKey."
        )
    return sender


def read_key(text: str) -> str:
    """Return an ``applicationServerKey`` as base64url without padding; ValueError if it is none."""
    point = decode(text)
    ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    return encode(point)


def _public_key(text: str) -> tuple[str, ec.EllipticCurvePublicKey]:
    try:
        point = decode(text)
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError:
        raise RefusalError(403, 109, "'k' is not a public key on P-256 in base64url.") from None
    return encode(point), key


def _check(text: str, key: ec.EllipticCurvePublicKey, *, origin: str, now: float) -> None:
    try:
        token = WebToken.read(text)
    except BadTokenError as error:
        raise RefusalError(401, 109, str(error)) from None
    if token.header.get("alg") != "ES256":
        raise RefusalError(403, 109, "The token is not signed by ES256.")
    if len(token.signature) != _SIGNATURE_BYTES or not token.is_signed_by(key):
        raise RefusalError(403, 109, "The signature is not that of the key 'k'.")
    audience = token.claims.get("aud")
    if audience != origin:
        raise RefusalError(403, 109, f"'aud' is {audience!r}, not the origin {origin!r}.")
    expires = token.claims.get("exp")
    if not isinstance(expires, int | float) or isinstance(expires, bool):
        raise RefusalError(403, 109, "'exp' is missing or not a number.")
    if expires <= now:
        raise RefusalError(403, 109, "The token has expired.")
    if expires > now + MAX_VAPID_SECONDS:
        raise RefusalError(403, 109, "'exp' is more than 24 hours ahead.")
    subject = token.claims.get("sub")
    # Optional in RFC 8292, required by Mozilla and of this form for Apple.
    if not isinstance(subject, str) or not subject.startswith(("mailto:", "https:")):
        raise RefusalError(403, 109, "'sub' is not a mailto: or https: URI.")
