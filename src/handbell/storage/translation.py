"""Errors of SQLAlchemy and of the drivers, translated into Handbell's."""

import sqlite3
from pathlib import Path
from typing import Final

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from handbell.errors import (
    ContradictionError,
    DatabaseLockedError,
    HandbellError,
    RequestError,
    StatementError,
    StorageError,
)

from . import postgresql, sqlite

_MAY_CHANGE: Final = frozenset({"42501", "42P01"})
"""PostgreSQL's states for a right, or a table, that is missing, which somebody may give."""


class Translator:
    """Translates the errors of one database: ``name`` is its URL without a password.

    ``path`` is the file of an SQLite database, None for a server; ``wait`` is how many seconds a
    write waits for its turn.
    """

    def __init__(self, name: str, path: Path | None, wait: float) -> None:
        self._name = name
        self._path = path
        self._wait = wait

    def translate(self, error: Exception) -> HandbellError | None:
        """Return the error for one of SQLAlchemy or of a driver, None for any other."""
        if isinstance(error, PoolTimeoutError):
            return StorageError(
                f"The database {self._name} failed: {error}",
                fix="Try again; if it lasts, let fewer threads of this program use it at once",
            )
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(cause, (sqlite3.Error, *postgresql.driver_errors())):
            # PEP 249 names these classes for every driver.
            names = {kind.__name__ for kind in type(cause).__mro__}
            is_refused = bool(names & {"IntegrityError", "DataError"})
            return self._contradiction(cause) if is_refused else self._storage_error(cause)
        return self._misunderstood(error) if isinstance(error, SQLAlchemyError) else None

    def _storage_error(self, error: BaseException | None) -> StorageError:
        if self._path is None:
            is_wrong = _is_misunderstood(error)
            return self._misunderstood(error) if is_wrong else postgresql.failure(self._name, error)
        if sqlite.code_of(error) in sqlite.MISUNDERSTOOD or _is_misunderstood(error):
            return self._misunderstood(error)
        return sqlite.failure(self._name, error, path=self._path, wait=self._wait)

    def _misunderstood(self, error: BaseException | None) -> StorageError:
        return StatementError(
            f"The database {self._name} does not know what it is asked for: {error}",
            fix="Check that only one version of Handbell uses it, and report this if it is so",
        )

    def _contradiction(self, error: BaseException | None) -> HandbellError:
        if "0x00" in str(error) or "\\u0000" in str(error):
            # PostgreSQL takes it in no text, whether it is stored or looked for.
            return RequestError(
                "A text holds the character U+0000, which no text can hold here",
                fix="Leave it out",
            )
        return ContradictionError(
            f"The database {self._name} refused what was to be written: {error}",
            fix="Nothing was changed; look at what else writes to this database",
        )

    def busy(self) -> DatabaseLockedError:
        """Return the error for a turn that other writes of this program did not give up."""
        return DatabaseLockedError(
            f"Other writes of this program have kept the database {self._name} busy for more "
            f"than {self._wait:g} s",
            fix="Try again; if it lasts, look for what writes much or long in this program",
        )

    def locked(self) -> DatabaseLockedError:
        """Return the error for a turn behind a write that waits for another process."""
        return sqlite.locked(self._name, self._wait)


def _is_misunderstood(error: BaseException | None) -> bool:
    """Return whether a driver error means a faulty statement, not a faulty database.

    PEP 249 defines these classes for every driver.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    is_wrong = bool(names & {"ProgrammingError", "NotSupportedError"})
    return is_wrong and getattr(error, "sqlstate", None) not in _MAY_CHANGE
