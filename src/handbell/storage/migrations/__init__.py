"""The schema's history, applied by :meth:`handbell.storage.database.Database.migrate`."""

from typing import Final

HEAD: Final = "0006"
"""The newest revision, known without loading Alembic. Revisions count up, four digits each."""

VERSION_TABLE: Final = "handbell_version"
"""Where a database keeps its revision. Not Alembic's default name, which other software uses."""
