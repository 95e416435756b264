"""Folders and files of a database, and what it means when the operating system refuses one."""

from pathlib import Path
from typing import Final

from handbell._files import refused
from handbell.errors import DatabaseFullError, ReadOnlyError, StorageError


def private_folder(path: Path) -> Path:
    """Return the folder; create it with mode 700 when it is missing.

    Raises :class:`ReadOnlyError` where it may not be created, :class:`DatabaseFullError` where
    there is no space for it, :class:`StorageError` otherwise.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, path) from error
    return path


def storage_error(error: OSError, path: Path) -> StorageError:
    """Return the error for the operating system's refusal of ``path``."""
    kind, why, fix = refused(error, elsewhere=_ELSEWHERE)
    if kind == "read-only":
        return ReadOnlyError(f"{path} cannot be written: {why}", fix=fix)
    if kind == "full":
        return DatabaseFullError(f"{path} cannot be written: {why}", fix=fix)
    return StorageError(f"{path} cannot be used: {why}", fix=fix)


_ELSEWHERE: Final = (
    "name another folder in HANDBELL_HOME (or HANDBELL_DATABASE_URL, where that is set)"
)
