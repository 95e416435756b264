"""Secrets that are shown once: the database keeps their digests only."""

import hashlib
import secrets
import string
from typing import Final

SESSION_MARK: Final = "hbs_"
"""The prefix of a session's secret, with which its device authenticates."""

_ALPHABET: Final = string.ascii_letters + string.digits
_LENGTH: Final = 32


def new_secret(mark: str = "") -> str:
    """Return a new secret: the mark, then 32 random letters and digits (190 bits)."""
    return mark + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def digest_of(secret: str) -> str:
    """Return the SHA-256 of a secret in hex; it is random, so no slow hash is needed."""
    return hashlib.sha256(secret.encode("utf-8", errors="replace")).hexdigest()
