"""Whether this machine has the installation's secret key: all machines need the same.

The database keeps a text that was sealed with it (the note ``key`` of
:mod:`handbell.storage.installation`). Whoever cannot open that would find no credential that it can
use, and seal what no other machine can open.
"""

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, select

from handbell.errors import ContradictionError, CredentialError, SettingsError
from handbell.storage.database import Database
from handbell.storage.installation import KEY, read_note, replace_note, write_note
from handbell.storage.tables import SEALED

from .vault import Vault

_KNOWN: Final = b"handbell"


class InstallationKey:
    """Compares the keys of a vault with the one of the installation in a database."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault
        self._is_right = False

    def check_once(self) -> None:
        """Do as :meth:`check` does, until it was right once."""
        if not self._is_right:
            self.check()

    def check(self) -> None:
        """Raise SettingsError where the vault's keys are not the installation's.

        An installation that has not noted its key gets the vault's, where that opens any of its
        secrets or there are none. One whose key was replaced, and is still in the vault, notes the
        vault's first key: who lacks that is told so at its next start.
        """
        with self._database.read() as connection:
            note = read_note(connection, KEY)
            check_key(note, () if note else _secrets(connection), self._vault, self._database.name)
        if note is None or not self._vault.has_sealed(note.encode()):
            self._note(note)
        self._is_right = True

    def accept(self) -> None:
        """Make the vault's first key the installation's, whatever it was."""
        with self._database.write() as connection:
            write_note(connection, KEY, self._vault.seal(_KNOWN).decode())

    def _note(self, former: str | None) -> None:
        try:
            with self._database.write() as connection:
                written = replace_note(connection, KEY, former, self._vault.seal(_KNOWN).decode())
        except ContradictionError:
            written = False
        if not written:
            # Another process was faster, maybe one with another key.
            with self._database.read() as connection:
                check_key(read_note(connection, KEY), (), self._vault, self._database.name)


def check_key(note: str | None, secrets: Iterable[bytes], vault: Vault, name: str) -> None:
    """Raise SettingsError where a vault opens neither the note of the database ``name``.

    Where there is no note it has to open one of the ``secrets``, unless there are none.
    """
    sealed = iter(secrets if note is None else [note.encode()])
    has_any = False
    for each in sealed:
        has_any = True
        if opens(vault, each):
            return
    if has_any:
        raise SettingsError(
            f"The secret key of this machine, from {vault.origin}, is not the installation's: it "
            f"does not open what is sealed in {name}",
            fix="Give it the key of a machine that works: copy its secret.key, or set the same "
            "HANDBELL_SECRET_KEY; only if that key is lost for good: handbell db accept-key",
        )


def opens(vault: Vault, sealed: bytes) -> bool:
    """Return whether a vault opens a secret."""
    try:
        vault.unseal(sealed)
    except CredentialError:
        return False
    return True


def _secrets(connection: Connection) -> Iterable[bytes]:
    for column in SEALED:
        yield from connection.scalars(select(column).where(column.is_not(None)))
