"""The twin's certificate authority, created at the first start in the twin's folder.

``ca.pem`` is what a client trusts; ``ca.key`` and ``server.pem`` are readable by their owner
alone. Validity depends on the machine's clock, as TLS libraries check it, not on the twin's.
"""

import datetime as dt
import ipaddress
import os
import secrets
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from .discovery import cannot_use

CA_FILE: Final = "ca.pem"
CA_KEY_FILE: Final = "ca.key"
SERVER_FILE: Final = "server.pem"

TOPICS_EXTENSION: Final = ObjectIdentifier("1.2.840.113635.100.6.3.6")
"""Where Apple's push certificates list their topics (sending-notification-requests-to-apns)."""
DEVELOPMENT_EXTENSION: Final = ObjectIdentifier("1.2.840.113635.100.6.3.1")
"""Marks a certificate for the development hosts (Apple WWDR certification practice statement)."""
PRODUCTION_EXTENSION: Final = ObjectIdentifier("1.2.840.113635.100.6.3.2")
"""Marks a certificate for the production hosts (the same statement)."""

_ENVIRONMENTS: Final = {
    "development": DEVELOPMENT_EXTENSION,
    "production": PRODUCTION_EXTENSION,
}
_DAY: Final = dt.timedelta(days=1)
_CA_LIFE: Final = 3650 * _DAY
_LEAF_LIFE: Final = 365 * _DAY
_RENEW_BEFORE: Final = 30 * _DAY
_PRIVATE: Final = 0o600
SIGNING: Final = hashes.SHA256()
"""The hash of every signature."""


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A client certificate's content: the topics it may push to, and its environments.

    Without topics it is not a push certificate; without sides it is valid for both.
    """

    topics: tuple[str, ...]
    sides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Authority:
    """The certificate authority of one twin, in ``folder``."""

    folder: Path
    certificate: x509.Certificate
    _key: ec.EllipticCurvePrivateKey

    @classmethod
    def open(cls, folder: Path) -> "Authority":
        """Return the authority in the folder; create it when absent or about to expire.

        Raises TwinError when the folder cannot be read or written.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return _load(folder) or _make(folder)
        except OSError as error:
            raise cannot_use(folder, error) from None

    @property
    def ca_file(self) -> Path:
        """Return the file with the authority's certificate: what a client has to trust."""
        return self.folder / CA_FILE

    def server_context(self, *, speaks_http1: bool = False) -> ssl.SSLContext:
        """Return the server's TLS context: 1.2 or later, ALPN ``h2``, optional client certificate.

        Apple serves TLS 1.2 or later and HTTP/2 only (sending-notification-requests-to-apns), the
        others HTTP/1.1 too. A client certificate of another authority fails the handshake. Raises
        TwinError where the folder cannot be written.
        """
        try:
            file = self._server_file()
        except OSError as error:
            raise cannot_use(self.folder, error) from None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2", "http/1.1"] if speaks_http1 else ["h2"])
        context.load_cert_chain(file)
        context.load_verify_locations(self.ca_file)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def issue_client_certificate(
        self, topics: Iterable[str], *, environment: str | None = None
    ) -> bytes:
        """Return a push certificate with its key, as one PEM text.

        The first topic, the bundle id, is also the UID in the subject, as in Apple's.
        ``environment`` limits it to ``production`` or ``development``. Without topics it is a
        certificate that cannot push: the twin answers ``BadCertificate``.
        """
        listed = tuple(topics)
        marks = [_ENVIRONMENTS[environment]] if environment else list(_ENVIRONMENTS.values())
        extensions = [(mark, _NULL) for mark in marks if listed]
        if listed:
            extensions.append((TOPICS_EXTENSION, encode_topics(listed)))
        name = f"Apple Push Services twin: {listed[0]}" if listed else "No push certificate"
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]
        subject += [x509.NameAttribute(NameOID.USER_ID, topic) for topic in listed[:1]]
        key = ec.generate_private_key(ec.SECP256R1())
        builder = leaf_builder(self.certificate, subject, key, ExtendedKeyUsageOID.CLIENT_AUTH)
        for oid, value in extensions:
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
        return to_pem(builder.sign(self._key, SIGNING)) + key_pem(key)

    def _server_file(self) -> Path:
        """Return the file with the server's certificate and key, renewed before it expires."""
        path = self.folder / SERVER_FILE
        if not self._is_good_server_file(path):
            key = ec.generate_private_key(ec.SECP256R1())
            subject = [x509.NameAttribute(NameOID.COMMON_NAME, "Handbell twin")]
            builder = leaf_builder(self.certificate, subject, key, ExtendedKeyUsageOID.SERVER_AUTH)
            builder = builder.add_extension(_SERVER_NAMES, critical=False)
            write_file(path, to_pem(builder.sign(self._key, SIGNING)) + key_pem(key), mode=_PRIVATE)
        return path

    def _is_good_server_file(self, path: Path) -> bool:
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
            certificate.verify_directly_issued_by(self.certificate)
        except (OSError, ValueError, TypeError, InvalidSignature):
            return False
        return _lasts(certificate)


def read_client_certificate(der: bytes) -> ClientCertificate:
    """Return the content of a client's certificate that TLS has verified."""
    extensions = {
        extension.oid: extension.value
        for extension in x509.load_der_x509_certificate(der).extensions
    }
    listed = extensions.get(TOPICS_EXTENSION)
    topics = decode_topics(listed.value) if isinstance(listed, x509.UnrecognizedExtension) else ()
    return ClientCertificate(
        topics, tuple(n for n, oid in _ENVIRONMENTS.items() if oid in extensions)
    )


def encode_topics(topics: Iterable[str]) -> bytes:
    """Return topics as DER: a sequence of (UTF8String topic, sequence of UTF8String kind) pairs."""
    pairs = (
        _der(_UTF8_STRING, topic.encode())
        + _der(_SEQUENCE, _der(_UTF8_STRING, _kind(topic).encode()))
        for topic in topics
    )
    return _der(_SEQUENCE, b"".join(pairs))


def decode_topics(value: bytes) -> tuple[str, ...]:
    """Return the topics in the extension; nothing when it is unreadable."""
    _, content, _ = _der_split(value)
    topics = []
    while content:
        tag, text, content = _der_split(content)
        if tag == _UTF8_STRING:
            topics.append(text.decode(errors="replace"))
    return tuple(topics)


def _kind(topic: str) -> str:
    return {"voip": "voip", "complication": "complication"}.get(topic.rpartition(".")[2], "app")


_NULL: Final = b"\x05\x00"
_UTF8_STRING: Final = 0x0C
_SEQUENCE: Final = 0x30
_SHORT: Final = 0x80


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < _SHORT:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, _SHORT | len(length)]) + length + content


def _der_split(value: bytes) -> tuple[int, bytes, bytes]:
    """Return the tag and content of the first element, and what follows it."""
    if len(value) < 2:  # noqa: PLR2004  a tag and a length are the least
        return 0, b"", b""
    tag, size, start = value[0], value[1], 2
    if size & _SHORT:
        start += size & ~_SHORT
        size = int.from_bytes(value[2:start])
    return tag, value[start : start + size], value[start + size :]


_SERVER_NAMES: Final = x509.SubjectAlternativeName(
    [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
)
_CA_USAGE: Final = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
_LEAF_USAGE: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def _load(folder: Path) -> Authority | None:
    try:
        certificate = x509.load_pem_x509_certificate((folder / CA_FILE).read_bytes())
        key = serialization.load_pem_private_key((folder / CA_KEY_FILE).read_bytes(), None)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not _lasts(certificate):
        return None
    return (
        Authority(folder, certificate, key)
        if key.public_key() == certificate.public_key()
        else None
    )


def _make(folder: Path) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    # The name differs between twins, so that a trust store may hold several of them.
    name = f"Handbell twin {secrets.token_hex(4)}"
    certificate = authority_builder(name, key, _CA_LIFE).sign(key, SIGNING)
    write_file(folder / CA_KEY_FILE, key_pem(key), mode=_PRIVATE)
    write_file(folder / CA_FILE, to_pem(certificate), mode=0o644)
    return Authority(folder, certificate, key)


def authority_builder(
    name: str, key: ec.EllipticCurvePrivateKey, life: dt.timedelta
) -> x509.CertificateBuilder:
    """Return the certificate of an authority that signs no other authority, before it is signed."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        _builder(subject, subject, key, life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_CA_USAGE, critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
    )


def leaf_builder(
    issuer: x509.Certificate,
    subject: list[x509.NameAttribute[str]],
    key: ec.EllipticCurvePrivateKey,
    purpose: ObjectIdentifier,
    life: dt.timedelta = _LEAF_LIFE,
) -> x509.CertificateBuilder:
    """Return a leaf certificate that passes strict verification (RFC 5280)."""
    issuer_identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _builder(issuer.subject, x509.Name(subject), key, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_LEAF_USAGE, critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_identifier),
            critical=False,
        )
    )


def _builder(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePrivateKey, life: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + life)
    )


def _lasts(certificate: x509.Certificate) -> bool:
    now = dt.datetime.now(dt.UTC)
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - _RENEW_BEFORE


def to_pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate in PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key in PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def write_file(path: Path, content: bytes, *, mode: int) -> None:
    """Write the file atomically, never readable to others in between."""
    passing = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        passing.replace(path)
    except OSError:
        passing.unlink(missing_ok=True)
        raise
