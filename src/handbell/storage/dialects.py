"""The dialects in which statements are compiled once, for each database."""

from typing import Final

from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

SQLITE: Final = sqlite.dialect(paramstyle="named")
"""SQLite's, with values bound by name."""

POSTGRESQL: Final = PGDialect_psycopg()  # type: ignore[no-untyped-call]
"""PostgreSQL's, as psycopg takes it."""
