"""Which files of an installation other users may read or change; reported at every start."""

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from ._paths import others_can_access
from .settings import Settings


def exposures(settings: Settings) -> Iterator[str]:
    """Yield a sentence with its fix for each file with secrets that others may access.

    These are the database, with mail addresses and device tokens, and the settings file, if it has
    a password. Nothing is opened.
    """
    database = _database_file(settings)
    if database is not None and (may := others_can_access(database)):
        yield (
            f"Others on this machine may {may} the database {database}, with its mail addresses "
            f"and device tokens. Run: chmod 600 {database}"
        )
    file = settings.secrets_file
    if file is not None and (may := others_can_access(file)):
        yield (
            f"Others on this machine may {may} {file}, where a password stands. "
            f"Run: chmod 600 {file}"
        )


def _database_file(settings: Settings) -> Path | None:
    try:
        url = make_url(settings.database_url)
    except ArgumentError:
        return None
    is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    return Path(str(url.database)) if is_file else None
