"""The vault: seals credentials with a key that is not in the database."""

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from handbell.errors import CredentialError, SettingsError, StorageError
from handbell.settings import Settings, secret_keys
from handbell.storage.database import private_folder, storage_error

KEY_FILE: Final = "secret.key"
_OTHERS: Final = 0o077


class Vault:
    """Seals and opens bytes. The first key seals, every key opens.

    Build it with :meth:`open`. Neither its text nor its errors show a key.
    """

    def __init__(self, keys: Sequence[str | bytes], *, origin: str = "the given key") -> None:
        try:
            fernets = [Fernet(key) for key in keys]
        except (ValueError, TypeError):
            fernets = []
        if not fernets:
            raise SettingsError(
                f"There is no usable key in {origin}",
                fix="Put back the key that was there; a new one cannot open what is sealed",
            )
        self._fernet = MultiFernet(fernets)
        self._origin = origin

    def __repr__(self) -> str:
        return f"Vault(origin={self._origin!r})"

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Return the vault of the settings: ``secret_key``, else ``secret.key`` in the home folder.

        The file is made with mode 600 at first use, whole or not at all, also when several
        processes start at once. It holds one key per line. Raises
        :class:`~handbell.errors.StorageError` when others may read it or it cannot be used.
        """
        if settings.secret_key is not None:
            return cls(secret_keys(settings.secret_key), origin="HANDBELL_SECRET_KEY")
        path = settings.home / KEY_FILE
        try:
            if not path.exists():
                _make(path)
            return cls(_read(path), origin=str(path))
        except OSError as error:
            raise storage_error(error, path) from error

    def seal(self, plain: bytes) -> bytes:
        """Return the bytes sealed with the first key."""
        return self._fernet.encrypt(plain)

    def unseal(self, sealed: bytes) -> bytes:
        """Return what was sealed. Raises :class:`CredentialError` when no key here fits."""
        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken:
            raise self._no_key() from None

    def reseal(self, sealed: bytes) -> bytes:
        """Return the same sealed with the first key, so that the others can be given up."""
        try:
            return self._fernet.rotate(sealed)
        except InvalidToken:
            raise self._no_key() from None

    def _no_key(self) -> CredentialError:
        return CredentialError(
            f"A stored credential was sealed with another key than {self._origin}",
            fix="Bring back the key it was sealed with, or add the credential again",
        )


def _make(path: Path) -> None:
    private_folder(path.parent)
    # Made with mode 600 beside its place, then linked: a link is never half written, and only
    # the first of several processes gets it.
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".secret-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(Fernet.generate_key() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            path.hardlink_to(draft)
        _flush_folder(path.parent)
    finally:
        with suppress(OSError):  # what hindered it is told, and not what follows from that
            Path(draft).unlink()


def _flush_folder(path: Path) -> None:
    # The name too must outlive a power failure, else what is sealed could never be opened.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: Path) -> list[bytes]:
    if path.stat().st_mode & _OTHERS:
        raise StorageError(
            f"Others may read {path}, the key that seals the credentials",
            fix=f"Run: chmod 600 {path}",
        )
    return path.read_bytes().split()
