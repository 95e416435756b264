"""Checks that this machine has the installation's secret key: all machines need the same.

The database stores a text sealed with that key (the note ``key`` of
:mod:`handbell.storage.installation`). A machine with another key could not open the stored
credentials, and would seal new ones that no other machine can open.
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
    """Compares the keys of a vault with the installation's key in a database."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault
        self._is_right = False

    def check_once(self) -> None:
        """Run :meth:`check` until it has succeeded once."""
        if not self._is_right:
            self.check()

    def check(self) -> None:
        """Raise SettingsError if the vault's keys do not include the installation's.

        An installation without a stored key gets the vault's, if that opens any of its secrets or
        there are none. If the installation's key is in the vault but no longer its first, the first
        one is stored: a machine that lacks it gets the error at its next start.
        """
        with self._database.read() as connection:
            note = read_note(connection, KEY)
            check_key(note, () if note else _secrets(connection), self._vault, self._database.name)
        if note is None or not self._vault.has_sealed(note.encode()):
            self._note(note)
        self._is_right = True

    def accept(self) -> None:
        """Make the vault's first key the installation's, without a check."""
        with self._database.write() as connection:
            write_note(connection, KEY, self._vault.seal(_KNOWN).decode())

    def _note(self, former: str | None) -> None:
        try:
            with self._database.write() as connection:
                written = replace_note(connection, KEY, former, self._vault.seal(_KNOWN).decode())
        except ContradictionError:
            written = False
        if not written:
            # Another process was faster, possibly with another key.
            with self._database.read() as connection:
                check_key(read_note(connection, KEY), (), self._vault, self._database.name)


def check_key(note: str | None, secrets: Iterable[bytes], vault: Vault, name: str) -> None:
    """Raise SettingsError if a vault cannot open the note of the database ``name``.

    Without a note it must open one of the ``secrets``, unless there are none.
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
