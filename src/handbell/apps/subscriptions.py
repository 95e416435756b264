"""What depends on a VAPID key: the subscriptions that browsers made with it.

A push service accepts for a subscription only the key that it was made with. Without that key its
session is put in quarantine, not closed: the key may come back.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, func, select, update

from handbell._text import count
from handbell.errors import CredentialInUseError
from handbell.storage.tables import sessions

from .app import App

_WEB_PUSH: Final = "webpush"
_REACHED: Final = ("active", "quarantined")
_ITS_KEY: Final = "its web push key "
_WAITS_FOR_ANOTHER: Final = func.coalesce(sessions.c.reason, "").startswith(_ITS_KEY)


def count_of(connection: Connection, app: App, environments: Collection[str]) -> int:
    """Return how many subscriptions of an app in some environments need their key."""
    statement = (
        select(func.count())
        .select_from(sessions)
        .where(*_of(app, environments), sessions.c.status.in_(_REACHED), ~_WAITS_FOR_ANOTHER)
    )
    return connection.scalar(statement) or 0


@contextmanager
def minded(
    connection: Connection,
    app: App,
    serving: Callable[[], Mapping[str, str]],
    *,
    is_forced: bool,
) -> Iterator[None]:
    """Compare which key serves each environment before and after a change of an app's credentials.

    ``serving`` gives the fingerprint by environment. A key serves no longer when it is removed,
    replaced, limited to another environment, or when one for its environment alone is added: its
    subscriptions are lost there, which :class:`~handbell.errors.CredentialInUseError` says unless
    it is forced. Those of a key that serves again are activated.
    """
    before = serving()
    yield
    after = serving()
    lost = {name: key for name, key in before.items() if after.get(name) != key}
    if not is_forced:
        _require_none(connection, app, lost)
    for environment, key in lost.items():
        _part_from(connection, app, key, environment)
    for environment, key in after.items():
        if before.get(environment) != key:
            _rejoin(connection, app, key, environment)


def _require_none(connection: Connection, app: App, environments: Collection[str]) -> None:
    """Raise CredentialInUseError if subscriptions of an app in some environments need their key."""
    number = count_of(connection, app, environments)
    if number:
        raise CredentialInUseError(
            f"{count(number, 'subscription')} of {app.id} can be reached by this web push key "
            "alone; without it each browser has to subscribe anew",
            fix="Keep the key, or repeat with `force` and lose them",
            sessions=number,
        )


def _part_from(connection: Connection, app: App, fingerprint: str, environment: str) -> None:
    """Put the subscriptions of a key that no longer serves an environment in quarantine."""
    statement = update(sessions).where(*_of(app, [environment]), sessions.c.status == "active")
    connection.execute(statement.values(status="quarantined", reason=_reason(fingerprint)))


def _rejoin(connection: Connection, app: App, fingerprint: str, environment: str) -> None:
    """Activate the subscriptions of a key that serves an environment again."""
    mine = (
        *_of(app, [environment]),
        sessions.c.status == "quarantined",
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
    return f"{_ITS_KEY}{fingerprint} was removed"
