"""Notes about an installation, shared by all of its machines.

The table ``installation`` holds a text by name. Each note belongs to the module that defines its
meaning; only the note of a closed database is here, because each opening reads it.
"""

import json
from dataclasses import asdict, dataclass
from typing import Final, Self

from sqlalchemy import Connection, delete, insert, select, update

from handbell._text import moment
from handbell.errors import StorageError

from .tables import installation

KEY: Final = "key"
"""The note of the installation's secret key; see :mod:`handbell.apps.installation_key`."""
CLOSED: Final = "closed"
"""The name of the note of a closed database; see :class:`Closure`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure:
    """Why a database is closed: it was copied to another one, or a copy into it is incomplete.

    ``copy`` is the id of the copy, ``other`` the name of the other database, ``at`` the start of
    the copy (UNIX milliseconds). ``is_source`` says whether this one is the source.
    """

    copy: str
    other: str
    at: int
    is_source: bool

    @classmethod
    def read(cls, text: str | None) -> Self | None:
        """Parse a note; None if there is none."""
        return None if text is None else cls(**json.loads(text))

    def text(self) -> str:
        """Return the note."""
        return json.dumps(asdict(self))

    def error(self, name: str) -> StorageError:
        """Return the error for users of the closed database ``name``."""
        if self.is_source:
            return StorageError(
                f"{name} is closed: it is copied to {self.other} since {moment(self.at)}, and what "
                "both of them sent would arrive twice",
                fix=f"Set HANDBELL_DATABASE_URL to {self.other}; or, as long as nothing was done "
                "there, take this one back into use: handbell db reopen",
            )
        return StorageError(
            f"{name} is not complete: the copy from {self.other}, begun {moment(self.at)}, has not "
            "ended",
            fix="Run the same handbell db copy again, it goes on where it stopped; or use another "
            "database",
        )


def read_note(connection: Connection, name: str) -> str | None:
    """Return the text of a note, or None."""
    return connection.scalar(select(installation.c.value).where(installation.c.name == name))


def write_note(connection: Connection, name: str, text: str) -> None:
    """Write a note, replacing a former one."""
    mine = update(installation).where(installation.c.name == name)
    if not connection.execute(mine.values(value=text)).rowcount:
        connection.execute(insert(installation).values(name=name, value=text))


def replace_note(connection: Connection, name: str, former: str | None, text: str) -> bool:
    """Write a note unless it was changed meanwhile; return whether it was written.

    ``former`` is its text when it was read. Raises ContradictionError if there was none and
    another process has written one.
    """
    if former is None:
        connection.execute(insert(installation).values(name=name, value=text))
        return True
    mine = (installation.c.name == name, installation.c.value == former)
    return bool(connection.execute(update(installation).where(*mine).values(value=text)).rowcount)


def remove_note(connection: Connection, name: str) -> bool:
    """Remove a note; return whether there was one."""
    return bool(
        connection.execute(delete(installation).where(installation.c.name == name)).rowcount
    )


def check_open(connection: Connection, name: str) -> None:
    """Raise StorageError if the database ``name`` is closed."""
    if (closure := Closure.read(read_note(connection, CLOSED))) is not None:
        raise closure.error(name)
