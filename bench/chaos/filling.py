"""A registry that is filled at once, past the code that would do it one by one."""

import time
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, insert, text

from handbell.storage.database import Database
from handbell.storage.tables import sessions, users
from handbell.twin.phone import Phone

PLATFORMS: Final = {"apns": "ios", "fcm": "android", "webpush": "web"}


def fill(database: Database, app: int, phones: Sequence[Phone]) -> None:
    """Give an app in an empty registry a user with one active session for each phone.

    They are numbered from 1, and their mails are user0@example.com and so on.
    """
    if not phones:
        return
    at = int(time.time() * 1000) - 60_000
    common = {"app_id": app, "created_at": at}
    named: list[dict[str, Any]] = [
        {"id": number, "mail": f"user{number - 1}@example.com", **common}
        for number in range(1, len(phones) + 1)
    ]
    registered: list[dict[str, Any]] = [
        {"id": number, "user_id": number, "registered_at": at, **_about(phone), **common}
        for number, phone in enumerate(phones, 1)
    ]
    with database.write() as connection:
        connection.execute(insert(users), named)
        connection.execute(insert(sessions), registered)
        _count_on(connection)


def _about(phone: Phone) -> dict[str, Any]:
    """Return the columns of a phone's session; other services know the twin as an environment."""
    return {
        "service": phone.service,
        "kind": phone.kind if phone.service == "webpush" else "device",
        "token": phone.token,
        "address": phone.details,
        "platform": PLATFORMS[phone.service],
        "environment": "production" if phone.service == "apns" else "twin",
        "status": "active",
    }


def _count_on(connection: Connection) -> None:
    """Let PostgreSQL count on from the ids that were given; SQLite does by itself."""
    if connection.dialect.name == "postgresql":
        for table in ("users", "sessions"):
            last = f"(SELECT max(id) FROM {table})"  # noqa: S608 - names
            sequence = f"pg_get_serial_sequence('{table}', 'id')"
            connection.execute(text(f"SELECT setval({sequence}, {last})"))
