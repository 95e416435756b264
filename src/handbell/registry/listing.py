"""Paginated lists of users and sessions, with filters and counts, for millions of rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from sqlalchemy import Connection, Select, func, select

from handbell._mail import fold_mail
from handbell.apps.app import App
from handbell.storage.database import Database
from handbell.storage.tables import sessions, users

from .reader import SESSIONS, read_sessions
from .session import Session, Status
from .user import User

STATUSES: Final[tuple[str, ...]] = get_args(Status)

_HIGHEST: Final = "\U0010ffff"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFilter:
    """A filter for an app's sessions; None is any. ``mail`` is the user's whole address."""

    status: str | None = None
    mail: str | None = None
    platform: str | None = None
    environment: str | None = None
    service: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedUser:
    """A user, with the number of sessions by status."""

    user: User
    sessions: dict[str, int] = field(default_factory=dict)


class Directory:
    """Read-only lists of the registry."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def sessions(
        self,
        app: App,
        wanted: SessionFilter | None = None,
        *,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Session]:
        """Return sessions of an app, the newest first.

        ``before`` is the last id of the previous page. The cost of a page does not depend on its
        position.
        """
        wanted = wanted or SessionFilter()
        with self._database.read() as connection:
            return _page(connection, app, wanted, before, limit)

    def statuses(self, app: App) -> dict[str, int]:
        """Return the number of an app's sessions by status."""
        statement = (
            select(sessions.c.status, func.count())
            .where(sessions.c.app_id == app.row)
            .group_by(sessions.c.status)
        )
        with self._database.read() as connection:
            return {row[0]: row[1] for row in connection.execute(statement)}

    def users(
        self,
        app: App,
        *,
        containing: str = "",
        beginning: str = "",
        after: str | None = None,
        limit: int = 50,
    ) -> list[ListedUser]:
        """Return users of an app by their mail addresses, in order.

        Filters by a text in the address or at its beginning; ``after`` is the last address of the
        previous page. Only ``beginning`` is fast for any number of users.
        """
        statement = select(users).where(*_people(app, containing)).order_by(users.c.mail)
        if start := fold_mail(beginning):
            statement = statement.where(users.c.mail >= start, users.c.mail < start + _HIGHEST)
        if after is not None:
            statement = statement.where(users.c.mail > after)
        with self._database.read() as connection:
            found = [_user(row) for row in connection.execute(statement.limit(limit))]
            return _counted(connection, found)

    def user(self, app: App, mail: str) -> ListedUser | None:
        """Return one user of an app, or None."""
        statement = select(users).where(users.c.app_id == app.row, users.c.mail == fold_mail(mail))
        with self._database.read() as connection:
            found = [_user(row) for row in connection.execute(statement)]
            return next(iter(_counted(connection, found)), None)


def _page(
    connection: Connection, app: App, wanted: SessionFilter, before: int | None, limit: int
) -> list[Session]:
    conditions = _conditions(app, wanted)
    if before is not None:
        conditions.append(sessions.c.id < before)
    # By status, as in the index: no page scans the sessions of other apps.
    statuses = STATUSES if wanted.status is None else (wanted.status,)
    ids: list[int] = []
    for status in statuses:
        of_status = select(sessions.c.id).where(*conditions, sessions.c.status == status)
        ids.extend(connection.scalars(of_status.order_by(sessions.c.id.desc()).limit(limit)))
    newest = sorted(ids, reverse=True)[:limit]
    statement: Select[Any] = SESSIONS.where(sessions.c.id.in_(newest))
    return read_sessions(connection, statement.order_by(sessions.c.id.desc()))


def _conditions(app: App, wanted: SessionFilter) -> list[Any]:
    conditions: list[Any] = [sessions.c.app_id == app.row]
    if wanted.mail is not None:
        person = select(users.c.id).where(
            users.c.app_id == app.row, users.c.mail == fold_mail(wanted.mail)
        )
        conditions.append(sessions.c.user_id == person.scalar_subquery())
    if wanted.platform is not None:
        conditions.append(sessions.c.platform == wanted.platform)
    if wanted.environment is not None:
        conditions.append(sessions.c.environment == wanted.environment)
    if wanted.service is not None:
        conditions.append(sessions.c.service == wanted.service)
    return conditions


def _people(app: App, containing: str) -> list[Any]:
    conditions: list[Any] = [users.c.app_id == app.row, users.c.mail.is_not(None)]
    if text := containing.strip():
        conditions.append(users.c.mail.contains(text.lower(), autoescape=True))
    return conditions


def _user(row: Any) -> User:
    return User(id=row.id, mail=row.mail, external_id=row.external_id, created_at=row.created_at)


def _counted(connection: Connection, people: Sequence[User]) -> list[ListedUser]:
    counts: dict[int, dict[str, int]] = {}
    for user_id, status, number in connection.execute(_statuses_of(user.id for user in people)):
        counts.setdefault(user_id, {})[status] = number
    return [ListedUser(user=user, sessions=counts.get(user.id, {})) for user in people]


def _statuses_of(user_ids: Iterable[int]) -> Select[Any]:
    return (
        select(sessions.c.user_id, sessions.c.status, func.count())
        .where(sessions.c.user_id.in_(list(user_ids)))
        .group_by(sessions.c.user_id, sessions.c.status)
    )
