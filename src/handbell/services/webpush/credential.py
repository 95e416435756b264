"""The credential for Web Push: a VAPID key, which an app makes itself (RFC 8292).

Every subscription is bound to the key that it was made with: who loses the key loses them all. So
keys of other programs can be taken along, in each form that these write. No text or error contains
a private key.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from handbell._base64url import base64url, read_base64url
from handbell._text import trimmed
from handbell.errors import CredentialError
from handbell.services.key_loader import MAX_FILE_BYTES, bare_key, pem_text

FINGERPRINT_DIGITS: Final = 16
SOURCES: Final = (
    "Give the private key as web-push or pywebpush print it (43 characters), its PEM file, or let "
    "Handbell make a new one"
)

_CURVE: Final = ec.SECP256R1()
_SCALAR_BYTES: Final = 32
_POINT_BYTES: Final = 65
_UNCOMPRESSED: Final = 4
_BLOCK: Final = re.compile(
    rb"-----BEGIN ((?:EC |ENCRYPTED )?PRIVATE KEY)-----(.*?)-----END \1-----", re.DOTALL
)
_LABEL: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
# Either structure of a key names the curve by this, near its beginning. Others are not loaded: the
# library may take minutes to validate the numbers of an RSA key.
_P256: Final = bytes.fromhex("06082a8648ce3d030107")
_MISTAKEN: Final = {
    b"PUBLIC KEY": "a public key; the private one is needed",
    b"CERTIFICATE": "a certificate, and no key",
    b"RSA PRIVATE KEY": "an RSA key, and not one on P-256",
    b"ENCRYPTED PRIVATE KEY": "a key that is protected by a password",
    b"OPENSSH PRIVATE KEY": "an OpenSSH key",
}
_PRIVATE: Final = ("privateKey", "private_key")
_PUBLIC: Final = ("publicKey", "public_key")


@dataclass(frozen=True, slots=True, kw_only=True)
class VapidKey:
    """A VAPID key: P-256, private.

    ``public_key`` is what a page subscribes with, its ``applicationServerKey``: the uncompressed
    point in base64 for URLs. ``fingerprint`` is the beginning of the SHA-256 of the public key
    (SPKI, DER), in hex.
    """

    private_key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)
    public_key: str = field(init=False)
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        public = self.private_key.public_key()
        point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        digest = hashlib.sha256(spki).hexdigest()
        object.__setattr__(self, "public_key", base64url(point))
        object.__setattr__(self, "fingerprint", digest[:FINGERPRINT_DIGITS])

    @classmethod
    def make(cls) -> Self:
        """Make a new key."""
        return cls(private_key=ec.generate_private_key(_CURVE))

    @classmethod
    def read(cls, text: str | bytes, *, where: str = "The given text") -> Self:
        """Read a private key; ``where`` names its place in errors.

        It is PEM (PKCS#8 or SEC1), base64 of the 32 bytes of the key or of its DER, or the JSON
        that ``web-push generate-vapid-keys --json`` prints. Raises
        :class:`~handbell.errors.CredentialError` only.
        """
        data = text.encode(errors="replace") if isinstance(text, str) else text
        if len(data) > MAX_FILE_BYTES:
            raise CredentialError(f"{where} is far too large for a key", fix=SOURCES)
        if not data.strip():
            raise CredentialError(f"{where} is empty", fix=SOURCES)
        # What a PEM text has escaped belongs to the JSON around it.
        text_of_key = pem_text(data)
        if text_of_key.lstrip()[:1] == b"{":
            is_plain = data.lstrip()[:1] == b"{"
            return cls._read_json(data if is_plain else text_of_key, where)
        return cls(private_key=_read_key(text_of_key, where))

    @classmethod
    def _read_json(cls, data: bytes, where: str) -> Self:
        try:
            members: Any = json.loads(data)
        except (ValueError, RecursionError):
            raise CredentialError(f"{where} is damaged: it begins as JSON", fix=SOURCES) from None
        if isinstance(members, dict) and members.get("type") == "service_account":
            raise CredentialError(
                f"{where} is the key file of a service account of Google's",
                fix="Add it as what it is; it is for Android, not for browsers",
            )
        private, public = _member(members, _PRIVATE), _member(members, _PUBLIC)
        if private is None:
            raise CredentialError(f"{where} is JSON without a `privateKey`", fix=SOURCES)
        key = cls.read(private, where=f"`privateKey` in {where}")
        if public is not None and public.rstrip("=") != key.public_key:
            raise CredentialError(
                f"`publicKey` in {where} does not belong to its `privateKey`", fix=SOURCES
            )
        return key

    @property
    def key_id(self) -> str:
        """Return the fingerprint, which takes the place of an auth key's key id in lists."""
        return self.fingerprint

    @property
    def private_key_text(self) -> str:
        """Return the private key as other programs print it: 43 characters. Only for export."""
        number = self.private_key.private_numbers().private_value
        return base64url(number.to_bytes(_SCALAR_BYTES, "big"))

    def pack(self) -> str:
        """Return it as text, private key included, for the vault to seal."""
        pem = self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return json.dumps({"pem": pem.decode()})

    @classmethod
    def unpack(cls, packed: str | bytes) -> Self:
        """Return the key from :meth:`pack`'s text."""
        return cls.read(json.loads(packed)["pem"])


def _member(members: object, names: tuple[str, ...]) -> str | None:
    found = (members.get(name) for name in names) if isinstance(members, dict) else ()
    return next((trimmed(each) for each in found if isinstance(each, str) and each.strip()), None)


def _read_key(data: bytes, where: str) -> ec.EllipticCurvePrivateKey:
    block = _BLOCK.search(data)
    if block is not None and block[1] != b"ENCRYPTED PRIVATE KEY":
        return _load(bare_key(block[2]) or b"", where, f"{where} is damaged: no key can be read")
    label = _LABEL.search(data)
    if label is not None:
        what = _MISTAKEN.get(label[1], "no private key that can be read")
        raise CredentialError(f"{where} holds {what}", fix=SOURCES)
    return _read_bare(data, where)


def _read_bare(data: bytes, where: str) -> ec.EllipticCurvePrivateKey:
    """Return the key of base64, of either alphabet, or of DER."""
    try:
        text = trimmed(data.decode()).translate(str.maketrans("+/", "-_"))
        data = read_base64url("".join(text.split()))
    except ValueError:
        pass
    if len(data) == _POINT_BYTES and data[0] == _UNCOMPRESSED:
        raise CredentialError(f"{where} is the public key, which pages subscribe with", fix=SOURCES)
    if len(data) != _SCALAR_BYTES:
        return _load(data, where, f"{where} is not a VAPID key")
    try:
        return ec.derive_private_key(int.from_bytes(data, "big"), _CURVE)
    except ValueError:
        raise CredentialError(f"{where} is no private key on P-256", fix=SOURCES) from None


def _load(der: bytes, where: str, otherwise: str) -> ec.EllipticCurvePrivateKey:
    key: object = None
    if _P256 in der:
        try:
            key = load_der_private_key(der, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
    elif der[:1] == b"\x30":
        otherwise = f"{where} holds another kind of key, and not one on P-256"
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CredentialError(otherwise, fix=SOURCES)
    return key
