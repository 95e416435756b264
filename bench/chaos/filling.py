"""A registry that is filled at once, past the code that would do it one by one."""

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert, text

from handbell.storage.database import Database
from handbell.storage.tables import sessions, users


def fill(database: Database, app: int, tokens: Sequence[str]) -> None:
    """Give an app in an empty registry a user with one active session for each token.

    They are numbered from 1, and their mails are user0@example.com and so on.
    """
    if not tokens:
        return
    at = int(time.time() * 1000) - 60_000
    common = {"app_id": app, "created_at": at}
    about = {"platform": "ios", "environment": "production", "status": "active"}
    named: list[dict[str, Any]] = [
        {"id": number, "mail": f"user{number - 1}@example.com", **common}
        for number in range(1, len(tokens) + 1)
    ]
    registered: list[dict[str, Any]] = [
        {"id": number, "user_id": number, "token": token, "registered_at": at, **about, **common}
        for number, token in enumerate(tokens, 1)
    ]
    with database.write() as connection:
        connection.execute(insert(users), named)
        connection.execute(insert(sessions), registered)
        _count_on(connection)


def _count_on(connection: Connection) -> None:
    """Let PostgreSQL count on from the ids that were given; SQLite does by itself."""
    if connection.dialect.name == "postgresql":
        for table in ("users", "sessions"):
            last = f"(SELECT max(id) FROM {table})"  # noqa: S608 - names
            sequence = f"pg_get_serial_sequence('{table}', 'id')"
            connection.execute(text(f"SELECT setval({sequence}, {last})"))
