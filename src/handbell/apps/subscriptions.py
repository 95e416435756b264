"""What depends on a VAPID key: the subscriptions that browsers made with it.

A push service accepts for a subscription only the key that it was made with. Without that key its
session is put in quarantine, not closed: the key may come back.
"""

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import Connection, func, select, update

from handbell._text import count
from handbell.errors import CredentialInUseError
from handbell.storage.tables import sessions

from .app import App

_WEB_PUSH: Final = "webpush"
_REACHED: Final = ("active", "quarantined")


def count_of(connection: Connection, app: App, environments: Collection[str]) -> int:
    """Return how many subscriptions of an app in some environments need their key."""
    statement = (
        select(func.count())
        .select_from(sessions)
        .where(*_of(app, environments), sessions.c.status.in_(_REACHED))
    )
    return connection.scalar(statement) or 0


def require_none(connection: Connection, app: App, environments: Collection[str]) -> None:
    """Raise CredentialInUseError if subscriptions of an app in some environments need their key."""
    number = count_of(connection, app, environments)
    if number:
        raise CredentialInUseError(
            f"{count(number, 'subscription')} of {app.id} can be reached by this web push key "
            "alone; without it each browser has to subscribe anew",
            fix="Keep the key, or repeat with `force` and lose them",
            sessions=number,
        )


def part_from(
    connection: Connection, app: App, fingerprint: str, environments: Collection[str]
) -> None:
    """Put the subscriptions of a key that is removed in quarantine."""
    statement = update(sessions).where(*_of(app, environments), sessions.c.status == "active")
    connection.execute(statement.values(status="quarantined", reason=_reason(fingerprint)))


def rejoin(connection: Connection, app: App, fingerprint: str) -> None:
    """Activate the subscriptions of a key that is back."""
    mine = (
        sessions.c.app_id == app.row,
        sessions.c.status == "quarantined",
        sessions.c.service == _WEB_PUSH,
        sessions.c.reason == _reason(fingerprint),
    )
    connection.execute(update(sessions).where(*mine).values(status="active", reason=None))


def _of(app: App, environments: Collection[str]) -> tuple[Any, ...]:
    return (
        sessions.c.app_id == app.row,
        sessions.c.service == _WEB_PUSH,
        sessions.c.environment.in_(environments),
    )


def _reason(fingerprint: str) -> str:
    return f"its web push key {fingerprint} was removed"
