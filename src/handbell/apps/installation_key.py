"""Checks that this machine has the installation's secret key: all machines need the same.

The database stores a text sealed with that key (the note ``key`` of
:mod:`handbell.storage.installation`). A machine with another key could not open the stored
credentials, and would seal new ones that no other machine can open.
"""

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from sqlalchemy import Connection, select

from handbell.errors import ContradictionError, SettingsError
from handbell.storage.database import Database
from handbell.storage.installation import KEY, read_note, replace_note, write_note
from handbell.storage.tables import SEALED

from .vault import Vault

_KNOWN: Final = b"handbell"

_log = logging.getLogger(__name__)


class InstallationKey:
    """Compares the keys of a vault with the installation's key in a database."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault
        self._known: bytes | None = None

    def check_once(self) -> None:
        """Run :meth:`check` until it has succeeded once."""
        self.note()

    def check(self) -> None:
        """Raise SettingsError if the vault's keys do not include the installation's.

        An installation without a stored key gets the vault's first one, if the vault opens any of
        its secrets or there are none.
        """
        with self._database.read() as connection:
            note = read_note(connection, KEY)
            check_key(note, () if note else _secrets(connection), self._vault, self._database.name)
        self._known = self._first_note() if note is None else note.encode()

    def note(self) -> bytes:
        """Return a text that the installation's key has sealed; raises as :meth:`check` does.

        It is read once, and then by :meth:`follow`.
        """
        if self._known is None:
            self.check()
            assert self._known is not None  # noqa: S101 - that is what it is for
        check_key(self._known.decode(), (), self._vault, self._database.name)
        return self._known

    def follow(self) -> list[str]:
        """Learn whether the installation's key was replaced, and seal with the present one.

        Returns the names of the vault's keys, the one that seals first; none if the vault does not
        have it: then :meth:`note` raises from now on, so that nothing is sealed with another.
        """
        with self._database.read() as connection:
            found = read_note(connection, KEY)
        if found is None:
            return []
        before, self._known = self._known, found.encode()
        sealing = self._vault.key_of(self._known)
        if sealing is None:
            if before != self._known:
                _log.error(
                    "Secret key replaced; this process, with the keys of %s, does not have the "
                    "new one",
                    self._vault.origin,
                )
            return []
        return [sealing, *(name for name in self._vault.names if name != sealing)]

    def replace(self, *, check: Callable[[Connection], None]) -> None:
        """Make the vault's first key the installation's, which the vault must have as well.

        ``check`` looks at the database in the same transaction, and may refuse. Raises
        SettingsError if the vault does not have the present key.
        """
        with self._database.write(alone="secret key") as connection:
            check(connection)
            note = read_note(connection, KEY)
            check_key(note, (), self._vault, self._database.name)
            if note is None or self._vault.key_of(note.encode()) != self._vault.names[0]:
                write_note(connection, KEY, self._vault.seal(_KNOWN).decode())

    def accept(self) -> None:
        """Make the vault's first key the installation's, without a check."""
        with self._database.write() as connection:
            write_note(connection, KEY, self._vault.seal(_KNOWN).decode())

    def _first_note(self) -> bytes:
        mine = self._vault.seal(_KNOWN)
        with suppress(ContradictionError), self._database.write() as connection:
            replace_note(connection, KEY, None, mine.decode())
            return mine
        # Another process was faster, possibly with another key.
        with self._database.read() as connection:
            note = read_note(connection, KEY)
        check_key(note, (), self._vault, self._database.name)
        return mine if note is None else note.encode()


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
    return vault.key_of(sealed) is not None


def _secrets(connection: Connection) -> Iterable[bytes]:
    for column in SEALED:
        yield from connection.scalars(select(column).where(column.is_not(None)))
