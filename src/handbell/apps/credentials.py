"""What proves an app to Apple: a team's ``AuthKey_XXX.p8``, or a certificate of the app.

Reading says precisely what is wrong with a file, since these files are fetched once, by hand, and
easily mistaken. Nothing here shows a private key in its text or in an error.
"""

import base64
import hashlib
import json
import re
import warnings
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

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

from handbell._engines import refuse_ours
from handbell.errors import CredentialError

from .app import TEAM_ID

MAX_FILE_BYTES: Final = 64 * 1024
FINGERPRINT_DIGITS: Final = 16

_KEY_ID: Final = re.compile(r"[A-Z0-9]{10}")
_KEY_FILE_NAME: Final = re.compile(r"AuthKey_([A-Z0-9]{10})(?![A-Za-z0-9])")
_FINDER_ALIAS: Final = b"book\0\0\0\0mark"
_LABEL: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
# A sequence, the version, and within a sequence the kind of key.
_PKCS8: Final = re.compile(
    rb"\x30(?:[\x00-\x7f]|\x81.|\x82..)\x02\x01[\x00\x01]"
    rb"\x30(?:[\x00-\x7f]|\x81.|\x82..)\x06(.{2,20})",
    re.DOTALL,
)
_EC_KEY: Final = bytes.fromhex("07 2a8648ce3d0201")
_RSA_KEY: Final = bytes.fromhex("09 2a864886f70d010101")
_MAX_RSA_BITS: Final = 4096
_DOWNLOAD: Final = (
    "Use the AuthKey_XXXXXXXXXX.p8 from Certificates, Identifiers & Profiles, Keys, at "
    "developer.apple.com/account"
)
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

# What a PEM file holds instead of a .p8, by its label.
_MISTAKEN: Final = {
    b"RSA PRIVATE KEY": ("an RSA key", _DOWNLOAD),
    b"EC PRIVATE KEY": ("an EC key in the older SEC1 form, not in PKCS#8", _TO_PKCS8),
    b"EC PARAMETERS": ("an EC key in the older SEC1 form, not in PKCS#8", _TO_PKCS8),
    b"ENCRYPTED PRIVATE KEY": (
        "a key protected by a password",
        f"Apple's .p8 files have none. {_TO_PKCS8}",
    ),
    b"OPENSSH PRIVATE KEY": ("an OpenSSH key", _DOWNLOAD),
    b"CERTIFICATE": ("a certificate", f"{_DOWNLOAD}, or add this file as a certificate"),
    b"PUBLIC KEY": ("a public key", f"{_DOWNLOAD}: the private one is needed"),
    b"CERTIFICATE REQUEST": ("a certificate signing request", _DOWNLOAD),
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
        _check_ids(self.team_id, self.key_id)
        public = self.private_key.public_key()
        spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        object.__setattr__(self, "fingerprint", _fingerprint(spki))

    @property
    def public_key_pem(self) -> str:
        """The public key, which the twin needs to check signatures."""
        public = self.private_key.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def private_key_pem(self) -> bytes:
        """Return the key as in a .p8 file. For the vault: it goes nowhere else."""
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate with its key, for one app: the older way to prove oneself to Apple.

    ``topics`` are those that the certificate lists, ``environments`` those it was issued for,
    ``expires_at`` is in UNIX milliseconds. ``key_id`` names it in lists: its fingerprint.
    """

    name: str
    team_id: str | None
    topics: tuple[str, ...]
    environments: tuple[str, ...]
    expires_at: int
    fingerprint: str
    pem: bytes = field(repr=False, compare=False)

    @property
    def key_id(self) -> str:
        """What stands in a list where an auth key has its key id."""
        return self.fingerprint


def read_auth_key(
    source: str | Path | bytes, *, team_id: str, key_id: str | None = None
) -> AuthKey:
    """Read an ``AuthKey_XXX.p8``: a path, or the text of the file.

    Without ``key_id`` it is taken from the file's name, or from the name of the file that a link
    leads to. Raises :class:`~handbell.errors.CredentialError`, and nothing else.
    """
    path, data = _source(source)
    where = str(path) if path else "The given text"
    key = _private_key(data, where)
    return AuthKey(team_id=team_id, key_id=key_id or _named_key_id(path), private_key=key)


def key_id_of_name(name: str) -> str | None:
    """Return the key id that a file's name such as ``AuthKey_ABC123DEFG.p8`` says, or None."""
    found = _KEY_FILE_NAME.match(name)
    return found[1] if found else None


def read_certificate(source: str | Path | bytes, *, password: str | None = None) -> Certificate:
    """Read a certificate with its private key: a ``.p12`` or ``.pem`` file, or its contents.

    Raises :class:`~handbell.errors.CredentialError`, and nothing else.
    """
    path, data = _source(source)
    where = str(path) if path else "The given text"
    secret = password.encode() if password else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            certificate, key_pem = _pair(data, secret)
            return _certificate(certificate, key_pem)
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound):
            raise CredentialError(
                f"{where} is not a certificate with its private key, or the password is wrong",
                fix="Export both together from Keychain Access as .p12, and give its password",
            ) from None


def pack(credential: AuthKey | Certificate) -> bytes:
    """Return a credential as the text that a vault seals; it holds the secret."""
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
    """Return the credential that :func:`pack` made a text of."""
    content: dict[str, str] = json.loads(packed)
    pem = content["pem"].encode()
    if "key_id" not in content:
        return read_certificate(pem)
    return read_auth_key(pem, team_id=content["team_id"], key_id=content["key_id"])


def _source(source: str | Path | bytes) -> tuple[Path | None, bytes]:
    if isinstance(source, bytes):
        return None, _sized(source, "The given text")
    if isinstance(source, str) and ("-----" in source or "\n" in source):
        # In an environment variable line ends are often written as \n.
        text = source if "\n" in source else source.replace("\\n", "\n")
        return None, _sized(text.encode(errors="replace"), "The given text")
    try:
        path = Path(source).expanduser()
        refuse_ours(path)
        with path.open("rb") as file:
            return path, _sized(file.read(MAX_FILE_BYTES + 1), str(path))
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreadable(source, error) from None


def _sized(data: bytes, where: str) -> bytes:
    if not data.strip():
        raise CredentialError(f"{where} is empty", fix=_DOWNLOAD)
    if len(data) > MAX_FILE_BYTES:
        raise CredentialError(f"{where} is far too large for a key or certificate", fix=_DOWNLOAD)
    return data


def _unreadable(source: str | Path, error: Exception) -> CredentialError:
    if isinstance(error, FileNotFoundError):
        return CredentialError(f"There is no file {source}", fix="Check the path")
    if isinstance(error, IsADirectoryError):
        return CredentialError(f"{source} is a folder", fix="Name the file within it")
    why = error.strerror if isinstance(error, OSError) and error.strerror else "not a path"
    return CredentialError(
        f"A file with the key cannot be read: {why}",
        fix="Check the path and who may read it",
    )


def _private_key(data: bytes, where: str) -> ec.EllipticCurvePrivateKey:
    label = _LABEL.search(data)
    if data.startswith(_FINDER_ALIAS):
        raise CredentialError(
            f"{where} is a Finder alias, not the key itself", fix="Use the file that it leads to"
        )
    if label is None:
        raise CredentialError(f"{where} is not a PEM text, as a .p8 file is", fix=_DOWNLOAD)
    if label[1] != b"PRIVATE KEY":
        what, fix = _MISTAKEN.get(label[1], ("something else", _DOWNLOAD))
        raise CredentialError(f"{where} holds {what}", fix=fix)
    text, end, _ = data[label.end() :].partition(b"-----END PRIVATE KEY-----")
    if not end:
        raise CredentialError(f"{where} is cut short: its last line is missing", fix=_DOWNLOAD)
    try:
        key = _load(base64.b64decode(text))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CredentialError(f"{where} is damaged: no key can be read", fix=_DOWNLOAD) from None
    if isinstance(key, str):
        raise CredentialError(f"{where} holds {key}, not one on P-256", fix=_DOWNLOAD)
    _prove(key, where)
    return key


def _load(der: bytes) -> ec.EllipticCurvePrivateKey | str:
    """Return the key of a PKCS#8 structure; of one that is not on P-256, what it is."""
    head = _PKCS8.match(der)
    if head is None:
        raise ValueError("not PKCS#8")
    if not head[1].startswith(_EC_KEY):
        # It is not loaded: to check the numbers of such a key may take the library minutes.
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
            f"The public key in {where} does not belong to its private key", fix=_DOWNLOAD
        ) from None


def _named_key_id(path: Path | None) -> str:
    for name in (path.name, path.resolve().name) if path else ():
        found = _KEY_FILE_NAME.match(name)
        if found:
            return found[1]
    raise CredentialError(
        "The key id is missing: it is not in the name of the file",
        fix="Keep the name AuthKey_XXXXXXXXXX.p8, or give the key id beside the file",
    )


def _check_ids(team_id: str, key_id: str) -> None:
    if not TEAM_ID.fullmatch(team_id):
        raise CredentialError(
            f"{team_id!r} is not a team id", fix="Use the 10 upper-case letters and digits of it"
        )
    if not _KEY_ID.fullmatch(key_id):
        raise CredentialError(
            f"{key_id!r} is not a key id",
            fix="Use the 10 upper-case letters and digits that stand in the key's file name",
        )


def _fingerprint(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest()[:FINGERPRINT_DIGITS]


def _pair(data: bytes, password: bytes | None) -> tuple[x509.Certificate, bytes]:
    if b"-----BEGIN" in data:
        certificate = x509.load_pem_x509_certificate(data)
        start = re.search(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----", data)
        if start is None:
            raise ValueError("no private key")
        is_protected = b"ENCRYPTED" in data
        key = load_pem_private_key(data[start.start() :], password if is_protected else None)
    else:
        bundle_key, bundle_certificate, _others = pkcs12.load_key_and_certificates(data, password)
        if bundle_key is None or bundle_certificate is None:
            raise ValueError("not a pair")
        key, certificate = bundle_key, bundle_certificate
    is_small = isinstance(key, rsa.RSAPrivateKey) and key.key_size <= _MAX_RSA_BITS
    if not is_small and not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not a key that Apple certifies")
    ends = (key.public_key(), certificate.public_key())
    ours, theirs = (
        end.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for end in ends
    )
    if ours != theirs:
        raise ValueError("the key is another's")
    return certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _certificate(certificate: x509.Certificate, key_pem: bytes) -> Certificate:
    return Certificate(
        name=_subject(certificate, NameOID.COMMON_NAME) or "",
        team_id=_subject(certificate, NameOID.ORGANIZATIONAL_UNIT_NAME),
        topics=_topics(certificate),
        environments=_environments(certificate),
        expires_at=_milliseconds(certificate.not_valid_after_utc),
        fingerprint=_fingerprint(certificate.public_bytes(Encoding.DER)),
        pem=certificate.public_bytes(Encoding.PEM) + key_pem,
    )


def _subject(certificate: x509.Certificate, oid: ObjectIdentifier) -> str | None:
    found = certificate.subject.get_attributes_for_oid(oid)
    return str(found[0].value) if found else None


def _topics(certificate: x509.Certificate) -> tuple[str, ...]:
    topics = [topic for oid in (_TOPICS, _VOIP_TOPICS) for topic in _listed(certificate, oid)]
    # A certificate for one app alone carries its bundle id in the subject.
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
