"""The two dialects: which one a connection has, and those that statements are compiled in once."""

from typing import Final

from sqlalchemy import Connection, Engine
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

SQLITE: Final = sqlite.dialect(paramstyle="named")
"""SQLite's, with values bound by name."""

POSTGRESQL: Final = PGDialect_psycopg()  # type: ignore[no-untyped-call]
"""PostgreSQL's, as psycopg takes it."""


def is_sqlite(connection: Connection | Engine) -> bool:
    """Return whether a connection leads to SQLite; otherwise it leads to PostgreSQL."""
    return connection.dialect.name == "sqlite"
