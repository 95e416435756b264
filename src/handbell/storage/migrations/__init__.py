"""The schema's history, applied by :meth:`handbell.storage.database.Database.migrate`."""

from typing import Final

HEAD: Final = "0006"
"""The newest revision, known without loading Alembic. Revisions count up, four digits each."""

NEEDED: Final = "0006"
"""The oldest revision on which this code works. A step behind it removes what code before it used,
and may wait until no such code runs any more."""

OLDEST: Final = "0006"
"""The oldest revision whose code works on the schema of :data:`HEAD`. Each step says so by a name
``oldest``; one that does not is for its own code and what comes after."""

VERSION_TABLE: Final = "handbell_version"
"""Where a database keeps its revision. Not Alembic's default name, which other software uses."""
