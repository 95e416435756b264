"""The vault: encrypts credentials with a key that is not in the database."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from handbell.errors import CredentialError, SettingsError, StorageError
from handbell.setting_values import secret_keys
from handbell.settings import Settings
from handbell.storage.folders import private_folder, storage_error

KEY_FILE: Final = "secret.key"
_OTHERS: Final = 0o077
_NAME_DIGITS: Final = 8


class Vault:
    """Encrypts and decrypts bytes. Every key decrypts; the first encrypts, or the installation's.

    Create it with :meth:`open`. Neither its repr nor its errors contain a key; ``origin`` says
    their source. ``find_note`` is called before each encryption and returns a text that the key to
    use has sealed; it may refuse.
    """

    def __init__(
        self,
        keys: Sequence[str | bytes],
        *,
        origin: str = "the given key",
        find_note: Callable[[], bytes | None] = lambda: None,
    ) -> None:
        try:
            fernets = [Fernet(key) for key in keys]
        except (ValueError, TypeError):
            fernets = []
        if not fernets:
            raise SettingsError(
                f"There is no usable key in {origin}",
                fix="Put back the key that was there; a new one cannot open what is sealed",
            )
        self._fernets = dict(zip(map(_name_of, keys), fernets, strict=True))
        self._fernet = MultiFernet(fernets)
        self._find_note = find_note
        self.origin = origin

    def __repr__(self) -> str:
        return f"Vault(origin={self.origin!r})"

    @classmethod
    def open(
        cls, settings: Settings, *, find_note: Callable[[], bytes | None] = lambda: None
    ) -> Self:
        """Return the vault of the settings: ``secret_key``, else ``secret.key`` in the home folder.

        The file is created atomically with mode 600 at first use, even when several processes
        start at once. It has one key per line. Raises :class:`~handbell.errors.StorageError` when
        others may read it or it is unusable.
        """
        if settings.secret_key is not None:
            keys = secret_keys(settings.secret_key)
            return cls(keys, origin="HANDBELL_SECRET_KEY", find_note=find_note)
        path = settings.home / KEY_FILE
        try:
            if not path.exists():
                _make(path)
            return cls(_read(path), origin=str(path), find_note=find_note)
        except OSError as error:
            raise storage_error(error, path) from error

    @property
    def names(self) -> list[str]:
        """Return what the keys are called in messages, the first one first; no key can be told."""
        return [*self._fernets]

    def key_of(self, sealed: bytes) -> str | None:
        """Return the name of the key that has encrypted it, None for another vault's."""
        for name, fernet in self._fernets.items():
            with suppress(InvalidToken):
                fernet.decrypt(sealed)
                return name
        return None

    def seal(self, plain: bytes) -> bytes:
        """Encrypt with the key of the note, by default the first one."""
        note = self._find_note()
        name = self.names[0] if note is None else self.key_of(note)
        if name is None:
            raise self._no_key()
        return self._fernets[name].encrypt(plain)

    def unseal(self, sealed: bytes) -> bytes:
        """Decrypt. Raises :class:`CredentialError` when no key fits."""
        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken:
            raise self._no_key() from None

    def reseal(self, sealed: bytes) -> bytes:
        """Re-encrypt with the first key, so that the others can be removed."""
        try:
            return self._fernet.rotate(sealed)
        except InvalidToken:
            raise self._no_key() from None

    def _no_key(self) -> CredentialError:
        return CredentialError(
            f"A stored credential was sealed with another key than {self.origin}",
            fix="Bring back the key it was sealed with, or add the credential again",
        )


def _name_of(key: str | bytes) -> str:
    # A part of a hash of 256 random bits helps nobody to find them.
    text = key.encode() if isinstance(key, str) else key
    return hashlib.sha256(b"handbell:" + text).hexdigest()[:_NAME_DIGITS]


def _make(path: Path) -> None:
    private_folder(path.parent)
    # Created with mode 600 under a temporary name, then linked: a link is never half written, and
    # only the first of several processes gets it.
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
        with suppress(OSError):  # raise the original error, not a consequence of it
            Path(draft).unlink()


def _flush_folder(path: Path) -> None:
    # The name must survive a power failure too, else sealed secrets could never be decrypted.
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
