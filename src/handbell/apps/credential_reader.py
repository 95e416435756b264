"""Recognize a credential by its file: Apple's key or certificate, Google's account, a VAPID key."""

from pathlib import Path
from typing import Final

from handbell.services.apns.credential import read_auth_key, read_certificate
from handbell.services.fcm.credential import ServiceAccount, is_key_file
from handbell.services.key_loader import read_source
from handbell.services.webpush.credential import VapidKey

from .app import App
from .credential_kinds import Credential

CERTIFICATES: Final = frozenset({".p12", ".pfx", ".pem", ".cer"})
"""The endings of files with a certificate."""


def read_credential(
    source: str | Path | bytes,
    app: App,
    *,
    key_id: str | None = None,
    password: str | None = None,
    is_web_push: bool = False,
) -> Credential:
    """Read a credential of an app from a file, or its contents.

    ``key_id`` is for an Apple key whose file name does not say it, ``password`` for a certificate.
    A VAPID key looks like one of Apple's: ``is_web_push`` says that it is one. Raises
    :class:`~handbell.errors.CredentialError` only, or AppError for a key of Apple's where the app
    has no ids of Apple's.
    """
    found = read_source(source)
    if is_web_push:
        return VapidKey.read(found.data, where=found.where)
    if is_key_file(found.data):
        if _is_vapid(found.data):
            return VapidKey.read(found.data, where=found.where)
        return ServiceAccount.read(found.data, where=found.where)
    if found.path is not None and found.path.suffix.lower() in CERTIFICATES:
        return read_certificate(source, password=password)
    return read_auth_key(source, team_id=app.apple.team_id, key_id=key_id)


def _is_vapid(data: bytes) -> bool:
    """Return whether JSON is what ``web-push generate-vapid-keys --json`` prints."""
    return b'"privateKey"' in data and b'"private_key"' not in data
