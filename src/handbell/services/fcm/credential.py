"""The credential for FCM: a service account, by the JSON file of its key.

Errors state precisely what is wrong with a file, since it is downloaded by hand and easily
confused with ``google-services.json``. No text or error contains the private key.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from handbell._text import one_line, trimmed
from handbell.errors import CredentialError
from handbell.services.key_loader import MAX_FILE_BYTES, pem_text

from .protocol import TOKEN_URI

FINGERPRINT_DIGITS: Final = 16
DOWNLOAD: Final = (
    "Use the JSON file from the Firebase console: Project settings, Service accounts, Generate new "
    "private key"
)

_KIND: Final = "service_account"
_PROJECT: Final = re.compile(r"(?:[a-z0-9.-]{1,100}:)?[a-z0-9][a-z0-9-]{0,62}")
_MAIL: Final = re.compile(r"[^@\s\x00-\x1f]{1,200}@[A-Za-z0-9.-]{1,200}")
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
_LEAST_BITS: Final = 2048
_MOST_BITS: Final = 4096
_LONGEST_SHOWN: Final = 80
_HOSTS_END: Final = ".googleapis.com"
_HOSTS: Final = frozenset({"accounts.google.com", "localhost", "127.0.0.1", "::1"})
_USUAL: Final = f"It is usually {TOKEN_URI}"
_LABEL: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_SIGNED: Final = b"handbell"

# What a PEM text holds instead of a key file, by its label.
_PEM_MISTAKEN: Final = {
    b"PRIVATE KEY": "a private key alone, such as Apple's AuthKey_XXX.p8",
    b"RSA PRIVATE KEY": "an RSA key alone",
    b"EC PRIVATE KEY": "an EC key alone",
    b"CERTIFICATE": "a certificate",
}
# What a JSON file of Google's is instead, by members that only it has.
_JSON_MISTAKEN: Final = (
    (
        ("project_info", "client"),
        "the app's configuration google-services.json, which holds no private key",
    ),
    (("installed",), "an OAuth client for desktop apps"),
    (("web",), "an OAuth client for web apps"),
    (("apiKey", "messagingSenderId"), "the configuration of a web app, without a private key"),
    (("keys",), "a set of public keys"),
    (("refresh_token",), "a user's own credentials"),
    (("configurations",), "a file of Android Studio"),
)
_KINDS_MISTAKEN: Final = {
    "authorized_user": "a user's own credentials, as gcloud keeps them",
    "external_account": "a workload identity, without a private key",
    "impersonated_service_account": "an impersonated service account, without a private key",
    "gdch_service_account": "a service account of Google Distributed Cloud",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccount:
    """A service account of a Google project, with its private RSA key.

    ``project_id`` is the Firebase project that it sends for. ``private_key_id`` is Google's name
    of the key, empty where the file has none. ``token_uri`` is where access tokens are asked for.
    ``fingerprint`` is the beginning of the SHA-256 of the public key (SPKI, DER), in hex.
    """

    client_email: str
    project_id: str
    private_key: rsa.RSAPrivateKey = field(repr=False, compare=False)
    private_key_id: str = ""
    token_uri: str = TOKEN_URI
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        _check_members(self)
        spki = self.private_key.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        object.__setattr__(
            self, "fingerprint", hashlib.sha256(spki).hexdigest()[:FINGERPRINT_DIGITS]
        )

    @classmethod
    def read(cls, text: str | bytes, *, where: str = "The given text") -> Self:
        """Read the JSON text of a key file; ``where`` names it in errors.

        Raises :class:`~handbell.errors.CredentialError` only.
        """
        members = _members(text.encode() if isinstance(text, str) else text, where)
        return cls(
            client_email=_text(members, "client_email", where),
            project_id=_text(members, "project_id", where),
            private_key=_private_key(_text(members, "private_key", where), where),
            private_key_id=_text(members, "private_key_id", where, is_optional=True),
            token_uri=_text(members, "token_uri", where, is_optional=True) or TOKEN_URI,
        )

    @property
    def key_id(self) -> str:
        """Return Google's name of the key, or the fingerprint where the file has none."""
        return self.private_key_id or self.fingerprint

    @property
    def public_key_pem(self) -> str:
        """Return the public key, which the twin needs to verify signatures."""
        public = self.private_key.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def pack(self) -> str:
        """Return it as the JSON text of a key file, private key included, for the vault to seal."""
        pem = self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        members = {
            "type": _KIND,
            "project_id": self.project_id,
            "private_key_id": self.private_key_id,
            "private_key": pem.decode(),
            "client_email": self.client_email,
            "token_uri": self.token_uri,
        }
        return json.dumps({name: value for name, value in members.items() if value})

    @classmethod
    def unpack(cls, packed: str | bytes) -> Self:
        """Return the service account from :meth:`pack`'s text."""
        return cls.read(packed)


def is_key_file(data: bytes) -> bool:
    """Return whether a file looks like JSON of Google's, whichever, and no key of Apple's."""
    return pem_text(data).lstrip()[:1] == b"{"


def _members(data: bytes, where: str) -> Mapping[str, Any]:
    if len(data) > MAX_FILE_BYTES:
        raise CredentialError(f"{where} is far too large for a key file", fix=DOWNLOAD)
    if not data.strip():
        raise CredentialError(f"{where} is empty", fix=DOWNLOAD)
    try:
        members = json.loads(data)
    except (ValueError, RecursionError):
        raise CredentialError(f"{where} {_not_json(data)}", fix=DOWNLOAD) from None
    if not isinstance(members, dict):
        raise CredentialError(f"{where} is JSON, and no key file of Google's", fix=DOWNLOAD)
    kind = members.get("type")
    if kind != _KIND:
        raise CredentialError(f"{where} {_not_service_account(members, kind)}", fix=DOWNLOAD)
    return members


def _not_json(data: bytes) -> str:
    label = _LABEL.search(pem_text(data))
    if label is not None and not data.lstrip().startswith(b"{"):
        return f"holds {_PEM_MISTAKEN.get(label[1], 'another kind of key')}, not Google's key file"
    if data.lstrip().startswith(b"{"):
        return "is damaged: it begins as JSON and cannot be read to its end"
    return "is not JSON, as the key file of a service account is"


def _not_service_account(members: Mapping[str, Any], kind: object) -> str:
    if isinstance(kind, str) and kind in _KINDS_MISTAKEN:
        return f"holds {_KINDS_MISTAKEN[kind]}"
    for names, words in _JSON_MISTAKEN:
        if all(name in members for name in names):
            return f"is {words}"
    return f"is JSON, but its `type` is not `{_KIND}`"


def _text(members: Mapping[str, Any], name: str, where: str, *, is_optional: bool = False) -> str:
    value = members.get(name)
    if is_optional and value is None:
        return ""
    if not isinstance(value, str) or not (is_optional or trimmed(value)):
        state = "is missing" if value is None or value == "" else "is not a text"
        raise CredentialError(f"`{name}` {state} in {_within(where)}", fix=DOWNLOAD)
    return trimmed(value)


def _within(where: str) -> str:
    return where[:1].lower() + where[1:] if where.startswith("The ") else where


def _private_key(pem: str, where: str) -> rsa.RSAPrivateKey:
    data = pem_text(pem.encode(errors="replace"))
    if b"-----BEGIN" not in data:
        raise CredentialError(f"`private_key` in {_within(where)} is not a PEM text", fix=DOWNLOAD)
    if b"ENCRYPTED" in data:
        raise CredentialError(
            f"`private_key` in {_within(where)} is protected by a password, and Google's are not",
            fix=DOWNLOAD,
        )
    try:
        # Without the library's own check, which takes minutes for numbers made for that purpose;
        # _prove takes its place.
        key = load_pem_private_key(data, password=None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CredentialError(
            f"`private_key` in {_within(where)} is damaged: no key can be read", fix=DOWNLOAD
        ) from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise CredentialError(
            f"`private_key` in {_within(where)} is not an RSA key, as Google's are", fix=DOWNLOAD
        )
    if not _LEAST_BITS <= key.key_size <= _MOST_BITS:
        raise CredentialError(
            f"`private_key` in {_within(where)} has {key.key_size:,} bits, and Google's have 2,048",
            fix=DOWNLOAD,
        )
    if not _is_sound(key):
        raise CredentialError(
            f"`private_key` in {_within(where)} is damaged: it does not fit its public key",
            fix=DOWNLOAD,
        )
    return key


def _is_sound(key: rsa.RSAPrivateKey) -> bool:
    """Return whether the numbers belong together, in bounded time: it signs, and that verifies."""
    numbers = key.private_numbers()
    if numbers.p * numbers.q != numbers.public_numbers.n or not 1 < numbers.p < 1 << _MOST_BITS:
        return False
    if max(numbers.d, numbers.dmp1, numbers.dmq1, numbers.iqmp) >= numbers.public_numbers.n:
        return False
    scheme, algorithm = padding.PKCS1v15(), hashes.SHA256()
    try:
        signature = key.sign(_SIGNED, scheme, algorithm)
        key.public_key().verify(signature, _SIGNED, scheme, algorithm)
    except (InvalidSignature, ValueError):
        return False
    return True


def _check_members(account: ServiceAccount) -> None:
    if not _MAIL.fullmatch(account.client_email):
        raise CredentialError(
            f"`client_email` is {_shown(account.client_email)}, which is no service account",
            fix=DOWNLOAD,
        )
    if not _PROJECT.fullmatch(account.project_id):
        raise CredentialError(
            f"`project_id` is {_shown(account.project_id)}, which is no id of a project",
            fix=DOWNLOAD,
        )
    if account.private_key_id and not _KEY_ID.fullmatch(account.private_key_id):
        raise CredentialError("`private_key_id` is not one of Google's", fix=DOWNLOAD)
    _check_token_uri(account.token_uri)


def _check_token_uri(uri: str) -> None:
    """Refuse an address that is not Google's: the signed request is worth an hour of sending.

    The file may be a stranger's, so no other host of a network is asked either; the twin's on
    loopback is.
    """
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    if parts.scheme == "http" and host:
        raise CredentialError(f"`token_uri` is {_shown(uri)}, and only https is safe", fix=_USUAL)
    is_plain = uri.isascii() and uri.isprintable() and not set(uri) & set(' @#\\"')
    if parts.scheme != "https" or not is_plain or not parts.path.startswith("/") or port == 0:
        raise CredentialError("`token_uri` is not an address with a host and a path", fix=_USUAL)
    if not host.endswith(_HOSTS_END) and host not in _HOSTS:
        raise CredentialError(f"`token_uri` leads to {_shown(host)}, not to Google", fix=_USUAL)


def _shown(text: str) -> str:
    # The members may have been mixed up: the key itself is never repeated.
    is_key = "-----" in text or len(text) > _LONGEST_SHOWN
    return "a long text" if is_key else f"`{one_line(text)}`"
