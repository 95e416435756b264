"""Addresses of Web Push: the subscription that a browser made for a page.

A subscription is identified by its endpoint; its keys encrypt what is sent there (RFC 8291).
"""

import json
from binascii import a2b_base64
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Self

from handbell._base64url import base64url, read_base64url
from handbell.errors import RegistryError
from handbell.services.address import Address

from .hosts import EndpointTarget
from .protocol import AUTH_SECRET_BYTES, KEY_BYTES

_KEYS: Final = "Send `subscription.toJSON()` of the page as it is"
_KEY: Final = "p256dh"
_SECRET: Final = "auth"  # noqa: S105 - a member's name
_USUAL: Final = bytes.maketrans(b"-_", b"+/")
_HEAD: Final = b'{"auth":"'
_BETWEEN: Final = b'","p256dh":"'
_SECRET_AT: Final = len(_HEAD)
_SECRET_ENDS: Final = _SECRET_AT + 22
_KEY_AT: Final = _SECRET_ENDS + len(_BETWEEN)
_KEY_ENDS: Final = _KEY_AT + 87


class SubscriptionKeys(NamedTuple):
    """The keys of a subscription: the receiver's public key (a point), and its secret."""

    public_key: bytes
    secret: bytes

    @classmethod
    def of(cls, details: str) -> Self:
        """Return the keys in the ``details`` of an address; raises ValueError for anything else."""
        data = details.encode().translate(_USUAL)
        if data[:_SECRET_AT] == _HEAD and data[_SECRET_ENDS:_KEY_AT] == _BETWEEN:
            # In the canonical form each has its place: this is done for each message.
            secret = a2b_base64(data[_SECRET_AT:_SECRET_ENDS] + b"==")
            return cls(a2b_base64(data[_KEY_AT:_KEY_ENDS] + b"="), secret)
        try:
            members = json.loads(details)
            return cls(read_base64url(members[_KEY]), read_base64url(members[_SECRET]))
        except (KeyError, TypeError, ValueError):
            raise ValueError("the address has no keys to encrypt with") from None


def read_address(token: str, details: Mapping[str, str] | None = None) -> Address:
    """Return the address of an endpoint (``token``) and its keys, ``p256dh`` and ``auth``.

    The canonical form has a host in lower case, no usual port, and keys without padding. Which
    hosts may be sent to is not checked here: see :class:`~.hosts.PushHosts`. Raises
    :class:`~handbell.errors.RegistryError` for anything else.
    """
    # The form alone is judged: a twin's endpoint is on loopback.
    target = EndpointTarget.read(token.strip(), allow_private=True)
    given = dict(details or {})
    public_key = _bytes(given.pop(_KEY, None), _KEY, KEY_BYTES)
    secret = _bytes(given.pop(_SECRET, None), _SECRET, AUTH_SECRET_BYTES)
    if given:
        raise RegistryError(f"A subscription has no `{min(given)[:80]}`", fix=_KEYS)
    _check_point(public_key)
    canonical = {_SECRET: base64url(secret), _KEY: base64url(public_key)}
    text = json.dumps(canonical, separators=(",", ":"))
    return Address("webpush", target.endpoint, "subscription", text)


def read_subscription(subscription: object) -> Address:
    """Return the address of a browser's subscription, as its ``toJSON()`` gives it.

    ``expirationTime`` is ignored: the push service says itself when a subscription has ended.
    Raises :class:`~handbell.errors.RegistryError` for anything else.
    """
    if not isinstance(subscription, Mapping):
        raise RegistryError("The subscription is not a JSON object", fix=_KEYS)
    endpoint, keys = subscription.get("endpoint"), subscription.get("keys")
    if not isinstance(endpoint, str) or not endpoint.strip():
        raise RegistryError("The subscription has no `endpoint`", fix=_KEYS)
    if not isinstance(keys, Mapping):
        raise RegistryError("The subscription has no `keys`", fix=_KEYS)
    return read_address(endpoint, {str(name): value for name, value in keys.items()})


def _check_point(public_key: bytes) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - heavy

    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key)
    except ValueError:
        raise RegistryError(
            f"`{_KEY}` of the subscription is not a point on P-256", fix=_KEYS
        ) from None


def _bytes(text: Any, name: str, size: int) -> bytes:
    if not isinstance(text, str) or not text:
        raise RegistryError(f"`{name}` of the subscription is missing", fix=_KEYS)
    try:
        data = read_base64url(text)
    except ValueError:
        raise RegistryError(
            f"`{name}` of the subscription is not base64 with the alphabet for URLs", fix=_KEYS
        ) from None
    if len(data) != size:
        raise RegistryError(
            f"`{name}` of the subscription has {len(data)} bytes, and not {size}", fix=_KEYS
        )
    return data
