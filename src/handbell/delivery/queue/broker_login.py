"""How a process proves itself to NATS: by user and password, by a token, or by a file.

The file of credentials is read at each connection, since whoever exchanges it starts nothing anew.
What is wrong with it is an error of nats-py's, so that it is tried again.
"""

import base64
import re
import ssl
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .broker_address import BrokerAddress

_JWT: Final = re.compile(r"-BEGIN NATS USER JWT-+\s+(\S+)")
_SEED: Final = re.compile(r"-BEGIN USER NKEY SEED-+\s+(\S+)")
_KEY_BYTES: Final = slice(2, 34)
"""Where the key is in a seed: after two bytes that say whose it is, before a checksum."""


def login(address: BrokerAddress) -> dict[str, Any]:
    """Return the options of ``nats.connect`` by which a process encrypts and proves itself."""
    options: dict[str, Any] = {}
    if address.is_tls:
        options["tls"] = _tls(address.ca_file)
    if (path := address.credentials_file) is not None:
        options["user_jwt_cb"] = lambda: _read(path, _JWT).encode()
        options["signature_cb"] = lambda nonce: sign(_read(path, _SEED), nonce)
    elif address.password is None:
        options["token"] = address.user or None
    else:
        options |= {"user": address.user, "password": address.password}
    return options


def sign(seed: str, nonce: str) -> bytes:
    """Return the signature of a server's nonce by a user's key, in base64."""
    raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    key = Ed25519PrivateKey.from_private_bytes(raw[_KEY_BYTES])
    return base64.b64encode(key.sign(nonce.encode()))


def _read(path: Path, part: re.Pattern[str]) -> str:
    from nats.errors import Error  # noqa: PLC0415 - of the extra

    try:
        found = part.search(path.read_text(encoding="ascii", errors="replace"))
    except OSError as error:
        raise Error(f"{path} (HANDBELL_NATS_CREDENTIALS): {error.strerror}") from None
    if found is None:
        raise Error(f"{path} (HANDBELL_NATS_CREDENTIALS) holds no credentials of NATS")
    return found[1]


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    from nats.errors import Error  # noqa: PLC0415 - of the extra

    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        why = error.strerror if not isinstance(error, ssl.SSLError) else "it is no PEM file"
        raise Error(f"{ca_file} (HANDBELL_NATS_CA_FILE): {why}") from None
