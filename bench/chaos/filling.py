"""A registry that is filled at once, past the code that would do it one by one."""

import contextlib
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path


def fill(path: Path, app: int, tokens: Sequence[str]) -> None:
    """Give an app in an empty registry a user with one active session for each token.

    They are numbered from 1, and their mails are user0@example.com and so on.
    """
    at = int(time.time() * 1000) - 60_000
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        numbers = range(1, len(tokens) + 1)
        connection.executemany(
            "INSERT INTO users (id, app_id, mail, created_at) VALUES (?, ?, ?, ?)",
            ((number, app, f"user{number - 1}@example.com", at) for number in numbers),
        )
        connection.executemany(
            "INSERT INTO sessions (id, app_id, user_id, token, platform, environment, status,"
            " created_at, registered_at) VALUES (?, ?, ?, ?, 'ios', 'production', 'active', ?, ?)",
            ((number, app, number, token, at, at) for number, token in enumerate(tokens, 1)),
        )
