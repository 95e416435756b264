"""Reads of users and sessions."""

from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any, Final

from sqlalchemy import Column, Connection, Select, bindparam, select

from handbell._chunks import chunks
from handbell._mail import fold_mail
from handbell.apps.app import App
from handbell.errors import UnknownSessionError
from handbell.fixes import Action, Fix
from handbell.storage.database import Database
from handbell.storage.tables import sessions, users

from .conditions import DETAILS, NEWEST_FIRST
from .recipient_lookup import RecipientSession, read_holders, read_recipient_sessions
from .session import ActiveSession, Session, SessionLocation
from .user import User

_CHUNK: Final = 1000

_TOLD: Final = frozenset(field.name for field in fields(Session))
SESSIONS: Final[Select[Any]] = select(
    *(column for column in sessions.c if column.name in _TOLD),
    sessions.c.address.label("details"),
    users.c.mail,
).join_from(sessions, users, users.c.id == sessions.c.user_id)
"""Selects the columns of :class:`Session`."""

_ACTIVE: Final[Select[Any]] = select(
    sessions.c.id,
    sessions.c.token,
    sessions.c.environment,
    users.c.mail,
    sessions.c.platform,
    sessions.c.time_zone,
    sessions.c.accepted_at,
    sessions.c.locale,
    sessions.c.service,
    DETAILS.label("details"),
    sessions.c.device_id,
).join_from(sessions, users, users.c.id == sessions.c.user_id)


_FIRST: Final = (
    select(
        sessions.c.environment,
        sessions.c.accepted_at.is_not(None).label("was_reached"),
        sessions.c.time_zone,
        sessions.c.service,
    )
    .where(sessions.c.app_id == bindparam("app"), sessions.c.status == "active")
    .order_by(sessions.c.id)
    .limit(bindparam("most"))
    .subquery()
)
_PLACES: Final = select(_FIRST).distinct()


class SessionReader:
    """Reads the users and sessions of every app."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def session(self, session_id: int) -> Session:
        """Return one session, or raise :class:`~handbell.errors.UnknownSessionError`."""
        found = self._sessions(SESSIONS.where(sessions.c.id == session_id))
        if not found:
            raise unknown_session(session_id)
        return found[0]

    def session_of_app(self, app: App, session_id: int) -> Session:
        """Return one session of an app, or raise UnknownSessionError."""
        found = self._sessions(SESSIONS.where(*named(app, session_id)))
        if not found:
            raise unknown_session(session_id)
        return found[0]

    def session_by_secret(
        self, app: App, digest: str, session_id: int | None = None
    ) -> Session | None:
        """Return the session of an app whose secret has this digest, if any.

        With a ``session_id``, only if its device knows it by that id.
        """
        statement = SESSIONS.where(*_secret(app, digest))
        if session_id is not None:
            known = (sessions.c.id == session_id) | (sessions.c.claimed_as == session_id)
            statement = statement.where(known)
        found = self._sessions(statement)
        return found[0] if found else None

    def sessions(self, app: App, *, status: str | None = None) -> list[Session]:
        """Return an app's sessions, or those of one status, the newest registration first."""
        wanted = SESSIONS.where(sessions.c.app_id == app.row).order_by(*NEWEST_FIRST)
        if status is not None:
            wanted = wanted.where(sessions.c.status == status)
        return self._sessions(wanted)

    def sessions_of(self, app: App, mail: str) -> list[Session]:
        """Return every session of a user, the newest registration first."""
        return self.sessions_by_mail(app, [mail]).get(mail, [])

    def sessions_by_mail(self, app: App, mails: Iterable[str]) -> dict[str, list[Session]]:
        """Return the sessions of many users under the mails as given.

        All statuses, each list with the newest registration first. Mails without one are left out.
        """
        spellings: dict[str, list[str]] = {}
        for mail in dict.fromkeys(mails):
            spellings.setdefault(fold_mail(mail), []).append(mail)
        found: dict[str, list[Session]] = {}
        for session in self._in_chunks(app, users.c.mail, spellings):
            for spelling in spellings[session.mail]:
                found.setdefault(spelling, []).append(session)
        return found

    def recipient_sessions(
        self, app: App, mails: Iterable[str]
    ) -> dict[str, list[RecipientSession]]:
        """Return the sessions of many users as a send needs them, by folded mail.

        All statuses, each list with the newest registration first. Mails without one are left out.
        """
        found: dict[str, list[RecipientSession]] = {}
        with self._database.quick_read() as connection:
            for chunk in chunks(dict.fromkeys(mails), _CHUNK):
                found |= read_recipient_sessions(connection, app.row or 0, chunk)
        return found

    def holders(self, app: App, tokens: Iterable[str]) -> dict[str, RecipientSession]:
        """Return what a send needs of the sessions that hold these device tokens, by token.

        Closed ones hold none. Where nobody has proven that a token is theirs, it is the newest of
        those who claim it.
        """
        found: dict[str, RecipientSession] = {}
        with self._database.quick_read() as connection:
            for chunk in chunks(dict.fromkeys(tokens), _CHUNK):
                found |= read_holders(connection, app.row or 0, chunk)
        return found

    def latest_by_token(self, app: App, tokens: Iterable[str]) -> dict[str, Session]:
        """Return the last registered session of each device token, closed ones included.

        Unproven claims rank after sessions that were proven once.
        """
        latest: dict[str, Session] = {}
        for session in self._in_chunks(app, sessions.c.token, dict.fromkeys(tokens)):
            known = latest.setdefault(session.token, session)
            if known.status == "pending" and session.status != "pending":
                latest[session.token] = session
        return latest

    def page_of_active(
        self, app: App, *, after_id: int = 0, limit: int = 1000
    ) -> list[ActiveSession]:
        """Return the next active sessions of an app in the order of their ids.

        Start with 0, then pass the last id of the page before; an empty page is the end.
        """
        page = (
            _ACTIVE.where(
                sessions.c.app_id == app.row,
                sessions.c.status == "active",
                sessions.c.id > after_id,
            )
            .order_by(sessions.c.id)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [ActiveSession._make(row) for row in connection.execute(page)]

    def locations_of_active(self, app: App, *, limit: int) -> list[SessionLocation]:
        """Return where an app's first active sessions are, each place once."""
        asked = {"app": app.row, "most": limit}
        with self._database.read() as connection:
            return [SessionLocation._make(row) for row in connection.execute(_PLACES, asked)]

    def time_zones(self, app: App) -> set[str | None]:
        """Return the time zones of an app's active sessions; None is an unknown one."""
        statement = (
            select(sessions.c.time_zone)
            .distinct()
            .where(sessions.c.app_id == app.row, sessions.c.status == "active")
        )
        with self._database.read() as connection:
            return set(connection.scalars(statement))

    def users(self, app: App) -> list[User]:
        """Return an app's users, sorted by mail."""
        statement = select(users).where(users.c.app_id == app.row).order_by(users.c.mail)
        with self._database.read() as connection:
            return [
                User(
                    id=row.id,
                    mail=row.mail,
                    external_id=row.external_id,
                    created_at=row.created_at,
                )
                for row in connection.execute(statement)
            ]

    def mail_addresses(self, app: App) -> list[str]:
        """Return the mail addresses of an app's users, sorted."""
        return [user.mail for user in self.users(app) if user.mail is not None]

    def addresses(self, app: App) -> list[str]:
        """Return the addresses of an app's active sessions, each once, sorted."""
        return self._tokens(app)

    def device_tokens(self, app: App) -> list[str]:
        """Return the device tokens among the addresses: all but browsers' subscriptions."""
        return self._tokens(app, sessions.c.kind != "subscription")

    def _tokens(self, app: App, *conditions: Any) -> list[str]:
        statement = (
            select(sessions.c.token)
            .where(sessions.c.app_id == app.row, sessions.c.status == "active", *conditions)
            .order_by(sessions.c.token)
        )
        with self._database.read() as connection:
            return list(dict.fromkeys(connection.scalars(statement)))

    def _sessions(self, statement: Select[Any]) -> list[Session]:
        with self._database.read() as connection:
            return read_sessions(connection, statement)

    def _in_chunks(
        self, app: App, column: Column[Any], values: Iterable[str], *conditions: Any
    ) -> Iterator[Session]:
        app_id = column.table.c.app_id
        with self._database.read() as connection:
            for chunk in chunks(values, _CHUNK):
                statement = SESSIONS.where(app_id == app.row, column.in_(chunk), *conditions)
                yield from read_sessions(connection, statement.order_by(*NEWEST_FIRST))


def named(app: App, session_id: int) -> tuple[Any, Any]:
    """Return the conditions for one session of an app."""
    return (sessions.c.id == session_id, sessions.c.app_id == app.row)


def _secret(app: App, digest: str) -> tuple[Any, Any]:
    return (sessions.c.secret_digest == digest, sessions.c.app_id == app.row)


def unknown_session(session_id: int) -> UnknownSessionError:
    """Return the error for a session that is not there."""
    return UnknownSessionError(
        f"There is no session {session_id}", fix=Fix(Action.LIST_SESSIONS, "See")
    )


def read_session(connection: Connection, row: int) -> Session:
    """Return the session of an existing row."""
    return read_sessions(connection, SESSIONS.where(sessions.c.id == row))[0]


def read_sessions(connection: Connection, statement: Select[Any]) -> list[Session]:
    """Return the sessions of a statement made of :data:`SESSIONS`."""
    return [Session(**row) for row in connection.execute(statement).mappings()]
