"""Credentials for APNs: a team's ``AuthKey_XXX.p8``, or a certificate of the app.

Errors state precisely what is wrong with a file, since these files are downloaded by hand and
easily confused. No text or error contains a private key.
"""

import hashlib
import json
import re
import warnings
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import NameOID, ObjectIdentifier

from handbell._text import trimmed
from handbell.errors import CredentialError
from handbell.services.key_loader import DOWNLOAD, bare_key, pem_text, read_source

from .protocol import TEAM_ID

FINGERPRINT_DIGITS: Final = 16

_KEY_ID: Final = re.compile(r"[A-Z0-9]{10}")
_KEY_FILE_NAME: Final = re.compile(
    r"(?:.*[^A-Za-z0-9])?(?:APNs)?AuthKey_([A-Z0-9]{10})(?![A-Za-z0-9])"
)
_FINDER_ALIAS: Final = b"book\0\0\0\0mark"
_LABEL: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
# A sequence, the version, and in a sequence the kind of key.
_PKCS8: Final = re.compile(
    rb"\x30(?:[\x00-\x7f]|\x81.|\x82..)\x02\x01[\x00\x01]"
    rb"\x30(?:[\x00-\x7f]|\x81.|\x82..)\x06(.{2,20})",
    re.DOTALL,
)
_EC_KEY: Final = bytes.fromhex("07 2a8648ce3d0201")
_RSA_KEY: Final = bytes.fromhex("09 2a864886f70d010101")
_MAX_RSA_BITS: Final = 4096
_LONGEST_SHOWN: Final = 24
_TO_PKCS8: Final = (
    "Convert it: openssl pkcs8 -topk8 -nocrypt -in FILE -out AuthKey_XXXXXXXXXX.p8 "
    "(with its key id for the X)"
)

_TOPICS: Final = ObjectIdentifier("1.2.840.113635.100.6.3.6")
_VOIP_TOPICS: Final = ObjectIdentifier("1.2.840.113635.100.6.3.4")
_DEVELOPMENT: Final = ObjectIdentifier("1.2.840.113635.100.6.3.1")
_PRODUCTION: Final = ObjectIdentifier("1.2.840.113635.100.6.3.2")
_LONG_LENGTH: Final = 0x80
_UTF8_STRING: Final = 0x0C
_SEQUENCE: Final = 0x30

_BOTH: Final = "Export both together from Keychain Access as .p12, and give its password"

# What a PEM file contains instead of a .p8, by its label.
_MISTAKEN: Final = {
    b"RSA PRIVATE KEY": ("an RSA key", DOWNLOAD),
    b"EC PRIVATE KEY": ("an EC key in the older SEC1 form, not in PKCS#8", _TO_PKCS8),
    b"EC PARAMETERS": ("an EC key in the older SEC1 form, not in PKCS#8", _TO_PKCS8),
    b"ENCRYPTED PRIVATE KEY": (
        "a key protected by a password",
        f"Apple's .p8 files have none. {_TO_PKCS8}",
    ),
    b"OPENSSH PRIVATE KEY": ("an OpenSSH key", DOWNLOAD),
    b"CERTIFICATE": ("a certificate", f"{DOWNLOAD}, or add this file as a certificate"),
    b"PUBLIC KEY": ("a public key", f"{DOWNLOAD}: the private one is needed"),
    b"CERTIFICATE REQUEST": ("a certificate signing request", DOWNLOAD),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthKey:
    """A team's key for APNs: P-256, private, with the ids that Apple gave it.

    ``fingerprint`` is the beginning of the SHA-256 of the public key (SPKI, DER), in hex. Two are
    equal when team, key id and fingerprint are.
    """

    team_id: str
    key_id: str
    private_key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        # Copied from Apple's pages, with stray blanks.
        object.__setattr__(self, "team_id", trimmed(self.team_id))
        object.__setattr__(self, "key_id", trimmed(self.key_id))
        _check_ids(self.team_id, self.key_id)
        spki = _spki(self.private_key.public_key())
        object.__setattr__(self, "fingerprint", _fingerprint(spki))

    @property
    def public_key_pem(self) -> str:
        """Return the public key, which the twin needs to verify signatures."""
        public = self.private_key.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def private_key_pem(self) -> bytes:
        """Return the key in the form of a .p8 file. Only for the vault."""
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate with its key, for one app: the older way of authentication with Apple.

    ``topics`` are those that the certificate lists, ``environments`` those it was issued for. It
    is valid from ``valid_from`` to ``expires_at`` (UNIX milliseconds). ``key_id`` is its
    fingerprint.
    """

    name: str
    team_id: str | None
    topics: tuple[str, ...]
    environments: tuple[str, ...]
    valid_from: int
    expires_at: int
    fingerprint: str
    pem: bytes = field(repr=False, compare=False)

    @property
    def key_id(self) -> str:
        """Return the fingerprint, which takes the place of an auth key's key id in lists."""
        return self.fingerprint


def read_auth_key(
    source: str | Path | bytes, *, team_id: str, key_id: str | None = None
) -> AuthKey:
    """Read an ``AuthKey_XXX.p8``: a path, or the text of the file.

    Without ``key_id`` it is taken from the file's name, or from that of the link's target. Raises
    :class:`~handbell.errors.CredentialError` only.
    """
    path, data, where = read_source(source)
    key = _private_key(pem_text(data), where)
    return AuthKey(team_id=team_id, key_id=key_id or _named_key_id(path), private_key=key)


def key_id_of_name(name: str) -> str | None:
    """Return the key id in a file name such as ``AuthKey_ABC123DEFG.p8``, or None."""
    found = _KEY_FILE_NAME.match(name)
    return found[1] if found else None


def read_certificate(source: str | Path | bytes, *, password: str | None = None) -> Certificate:
    """Read a certificate with its private key: a ``.p12`` or ``.pem`` file, or its contents.

    Raises :class:`~handbell.errors.CredentialError` only.
    """
    _, data, where = read_source(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            certificate, key_pem = _pair(pem_text(data), _secret(password))
            return _certificate(certificate, key_pem)
        except _IncompleteError as error:
            raise CredentialError(f"{where} {error}", fix=_BOTH) from None
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound):
            raise CredentialError(
                f"{where} is not a certificate with its private key, or the password is wrong",
                fix=_BOTH,
            ) from None


def pack(credential: AuthKey | Certificate) -> bytes:
    """Return a credential as text, secret included, for the vault to seal."""
    if isinstance(credential, Certificate):
        return json.dumps({"pem": credential.pem.decode()}).encode()
    return json.dumps(
        {
            "pem": credential.private_key_pem().decode(),
            "team_id": credential.team_id,
            "key_id": credential.key_id,
        }
    ).encode()


def unpack(packed: bytes) -> AuthKey | Certificate:
    """Return the credential from :func:`pack`'s text."""
    content: dict[str, str] = json.loads(packed)
    pem = content["pem"].encode()
    if "key_id" not in content:
        return read_certificate(pem)
    return read_auth_key(pem, team_id=content["team_id"], key_id=content["key_id"])


def _private_key(data: bytes, where: str) -> ec.EllipticCurvePrivateKey:
    label = _LABEL.search(data)
    if data.startswith(_FINDER_ALIAS):
        raise CredentialError(
            f"{where} is a Finder alias, not the key itself", fix="Use the file that it leads to"
        )
    if label is None:
        return _loaded(bare_key(data), where, f"{where} is not a PEM text, as a .p8 file is")
    if label[1] != b"PRIVATE KEY":
        kind, fix = _MISTAKEN.get(label[1], ("something else", DOWNLOAD))
        raise CredentialError(f"{where} holds {kind}", fix=fix)
    text, end, _ = data[label.end() :].partition(b"-----END PRIVATE KEY-----")
    if not end:
        raise CredentialError(f"{where} is cut short: its last line is missing", fix=DOWNLOAD)
    return _loaded(bare_key(text), where, f"{where} is damaged: no key can be read")


def _loaded(der: bytes | None, where: str, otherwise: str) -> ec.EllipticCurvePrivateKey:
    """Return the key of a PKCS#8 structure; ``otherwise`` is the error for anything else."""
    try:
        key = _load(der or b"")
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CredentialError(otherwise, fix=DOWNLOAD) from None
    if isinstance(key, str):
        raise CredentialError(f"{where} holds {key}, not one on P-256", fix=DOWNLOAD)
    _prove(key, where)
    return key


def _load(der: bytes) -> ec.EllipticCurvePrivateKey | str:
    """Return the key of a PKCS#8 structure; if it is not on P-256, a description of it."""
    head = _PKCS8.match(der)
    if head is None:
        raise ValueError("not PKCS#8")
    if not head[1].startswith(_EC_KEY):
        # Not loaded: the library may take minutes to validate the numbers of such a key.
        return "an RSA key" if head[1].startswith(_RSA_KEY) else "another kind of key"
    key = load_der_private_key(der, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("not what it says")
    return key if isinstance(key.curve, ec.SECP256R1) else f"a key on the curve {key.curve.name}"


def _prove(key: ec.EllipticCurvePrivateKey, where: str) -> None:
    algorithm = ec.ECDSA(hashes.SHA256())
    try:
        key.public_key().verify(key.sign(b"handbell", algorithm), b"handbell", algorithm)
    except InvalidSignature:
        raise CredentialError(
            f"The public key in {where} does not belong to its private key", fix=DOWNLOAD
        ) from None


def _named_key_id(path: Path | None) -> str:
    for name in (path.name, path.resolve().name) if path else ():
        found = _KEY_FILE_NAME.match(name)
        if found:
            return found[1]
    raise CredentialError(
        "The key id is missing: it is not in the name of the file",
        fix="Keep the name AuthKey_XXXXXXXXXX.p8, or give the key id beside the file: "
        "--key-id on the command line, key_id in Python",
    )


def _check_ids(team_id: str, key_id: str) -> None:
    if not TEAM_ID.fullmatch(team_id):
        raise CredentialError(
            f"{_shown(team_id)} is not a team id",
            fix="Use the 10 upper-case letters and digits of it",
        )
    if not _KEY_ID.fullmatch(key_id):
        raise CredentialError(
            f"{_shown(key_id)} is not a key id",
            fix="Use the 10 upper-case letters and digits that stand in the key's file name",
        )


def _shown(text: str) -> str:
    # Mixed-up arguments: the key itself was given.
    return repr(text) if len(text) <= _LONGEST_SHOWN else "What was given"


def _fingerprint(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest()[:FINGERPRINT_DIGITS]


class _IncompleteError(ValueError):
    """What a certificate file lacks, as the end of a sentence."""


def _secret(password: str | None) -> bytes | None:
    if password and "\0" in password:
        # OpenSSL ends a password at NUL, and the library would abort the process.
        raise ValueError("no password holds such a character")
    return password.encode() if password else None


def _pair(data: bytes, password: bytes | None) -> tuple[x509.Certificate, bytes]:
    """Return the certificate that belongs to the key, at any position, and the key."""
    key, certificates = _contents(data, password)
    is_small = isinstance(key, rsa.RSAPrivateKey) and key.key_size <= _MAX_RSA_BITS
    if not is_small and not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not a kind of key that Apple certifies")
    public = _spki(key.public_key())
    for certificate in certificates:
        if _spki(certificate.public_key()) == public:
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            return certificate, pem
    if certificates:
        raise _IncompleteError("holds a private key that belongs to no certificate in it")
    raise _IncompleteError("holds a private key without its certificate")


def _contents(data: bytes, password: bytes | None) -> tuple[Any, list[x509.Certificate]]:
    if b"-----BEGIN" not in data:
        key, certificate, others = pkcs12.load_key_and_certificates(data, password)
        return key, [item for item in (certificate, *others) if item is not None]
    start = re.search(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----", data)
    if start is None:
        raise _IncompleteError("holds no private key")
    is_protected = b"ENCRYPTED" in data
    key = load_pem_private_key(data[start.start() :], password if is_protected else None)
    has_one = b"-----BEGIN CERTIFICATE-----" in data
    return key, x509.load_pem_x509_certificates(data) if has_one else []


def _spki(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _certificate(certificate: x509.Certificate, key_pem: bytes) -> Certificate:
    return Certificate(
        name=_subject(certificate, NameOID.COMMON_NAME) or "",
        team_id=_subject(certificate, NameOID.ORGANIZATIONAL_UNIT_NAME),
        topics=_topics(certificate),
        environments=_environments(certificate),
        valid_from=_milliseconds(certificate.not_valid_before_utc),
        expires_at=_milliseconds(certificate.not_valid_after_utc),
        fingerprint=_fingerprint(certificate.public_bytes(Encoding.DER)),
        pem=certificate.public_bytes(Encoding.PEM) + key_pem,
    )


def _subject(certificate: x509.Certificate, oid: ObjectIdentifier) -> str | None:
    found = certificate.subject.get_attributes_for_oid(oid)
    return str(found[0].value) if found else None


def _topics(certificate: x509.Certificate) -> tuple[str, ...]:
    topics = [topic for oid in (_TOPICS, _VOIP_TOPICS) for topic in _listed(certificate, oid)]
    # A certificate for one app only has its bundle id in the subject.
    return tuple(dict.fromkeys(topics)) or tuple(
        filter(None, [_subject(certificate, NameOID.USER_ID)])
    )


def _environments(certificate: x509.Certificate) -> tuple[str, ...]:
    marks = ((_PRODUCTION, "production"), (_DEVELOPMENT, "development"))
    found = tuple(name for oid, name in marks if _extension(certificate, oid) is not None)
    return found or ("production", "development")


def _extension(certificate: x509.Certificate, oid: ObjectIdentifier) -> bytes | None:
    for extension in certificate.extensions:
        if extension.oid == oid and isinstance(extension.value, x509.UnrecognizedExtension):
            return extension.value.value
    return None


def _listed(certificate: x509.Certificate, oid: ObjectIdentifier) -> list[str]:
    # A sequence in which each topic, a UTF8String, is followed by a sequence with its kind.
    outer = _elements(_extension(certificate, oid) or b"")
    inner = _elements(outer[0][1]) if outer and outer[0][0] == _SEQUENCE else []
    return [content.decode() for tag, content in inner if tag == _UTF8_STRING]


def _elements(der: bytes) -> list[tuple[int, bytes]]:
    found = []
    while len(der) > 1:
        tag, size, start = der[0], der[1], 2
        if size & _LONG_LENGTH:
            start += size ^ _LONG_LENGTH
            size = int.from_bytes(der[2:start])
        found.append((tag, der[start : start + size]))
        der = der[start + size :]
    return found


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
