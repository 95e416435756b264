"""Users and sessions in the database: who is reached where."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from sqlalchemy import (
    Column,
    Connection,
    Insert,
    Row,
    Select,
    insert,
    literal_column,
    select,
    update,
)

from handbell._mail import fold_mail, read_mail
from handbell.apps.app import App
from handbell.database import Database
from handbell.errors import RegistryError
from handbell.tables import apps, sessions, users

from .session import (
    MOVED,
    ActiveSession,
    Environment,
    Platform,
    Session,
    read_environment,
    read_label,
    read_platform,
    read_time_zone,
    read_token,
)
from .user import User

_CHUNK: Final = 1000

_SESSIONS: Final[Select[Any]] = select(
    *(column for column in sessions.c if column.name not in {"app_id", "secret_digest"}),
    users.c.mail,
).join_from(sessions, users, users.c.id == sessions.c.user_id)
_ACTIVE: Final[Select[Any]] = select(
    sessions.c.id,
    sessions.c.token,
    sessions.c.environment,
    users.c.mail,
    sessions.c.platform,
    sessions.c.time_zone,
    sessions.c.accepted_at,
).join_from(sessions, users, users.c.id == sessions.c.user_id)
_NEWEST_FIRST: Final = (sessions.c.registered_at.desc(), sessions.c.id.desc())
# The very words of the index that keeps one owner per token: only then is it used.
_OPEN: Final = sessions.c.status != literal_column("'closed'")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Registration:
    """What a device says of itself, checked."""

    mail: str
    token: str
    platform: str
    environment: str | None
    status: str
    locale: str | None
    time_zone: str | None
    device: str | None
    external_id: str | None
    at: int


class Registry:
    """The users and sessions of every app. ``now`` returns UNIX seconds.

    Where a method takes a session it takes its id or the session itself. An app without a registry
    entry has neither users nor sessions.
    """

    def __init__(self, database: Database, *, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now

    def register(
        self,
        app: App,
        mail: str,
        token: str,
        *,
        platform: Platform | str = "ios",
        environment: Environment | str | None = None,
        status: str = "active",
        locale: str | None = None,
        time_zone: str | None = None,
        device: str | None = None,
        external_id: str | None = None,
        registered_at: int | None = None,
    ) -> Session:
        """Note whose device a token is, and return the session.

        One token has one owner: another user's session with it is closed in the same transaction.
        For the same user the session is refreshed: what was proven stays proven, a quarantine
        ends, a closed session opens again. Without ``environment`` a known session keeps its own
        and a new one is for production. ``registered_at`` is in UNIX milliseconds, by default now.
        Raises :class:`~handbell.errors.RegistryError` for what cannot be used.
        """
        if status not in ("active", "pending"):
            raise RegistryError(
                f"A session cannot be registered as {status!r}", fix="Use active or pending"
            )
        registration = _Registration(
            mail=_mail(mail),
            token=read_token(token),
            platform=read_platform(platform),
            environment=None if environment is None else read_environment(environment),
            status=status,
            locale=read_label("locale", locale),
            time_zone=None if time_zone is None else read_time_zone(time_zone),
            device=read_label("device", device),
            external_id=read_label("external_id", external_id),
            at=self._milliseconds() if registered_at is None else registered_at,
        )
        with self._database.write() as connection:
            row = _register(connection, app, registration)
            return _read_sessions(connection, _SESSIONS.where(sessions.c.id == row))[0]

    def activate(self, session: Session | int) -> bool:
        """Make a pending session active once it is proven; say whether it was pending."""
        return self._change(session, sessions.c.status == "pending", status="active", reason=None)

    def close(self, session: Session | int, reason: str) -> bool:
        """Close a session: nothing is sent to it any more. Say whether it was open."""
        return self._change(
            session, _OPEN, status="closed", reason=reason, closed_at=self._milliseconds()
        )

    def close_if_gone(self, session: Session | int, *, since: int | None, reason: str) -> bool:
        """Close a session whose device the push service says is gone since ``since``.

        Only if its last registration is earlier: a device that came back keeps its session. None,
        where the service gives no instant, closes it. Instants are in UNIX milliseconds.
        """
        earlier = _OPEN if since is None else _OPEN & (sessions.c.registered_at < since)
        return self._change(
            session, earlier, status="closed", reason=reason, closed_at=self._milliseconds()
        )

    def quarantine(self, session: Session | int, *, reason: str) -> bool:
        """Stop sending to an active session until its device registers again; keep the token."""
        return self._change(
            session, sessions.c.status == "active", status="quarantined", reason=reason
        )

    def remember_environment(self, session: Session | int, environment: Environment | str) -> None:
        """Note where a session's token turned out to live."""
        self._change(session, _OPEN, environment=read_environment(environment))

    def mark_accepted(
        self,
        session_ids: Iterable[int],
        *,
        at: int | None = None,
        connection: Connection | None = None,
    ) -> None:
        """Note that the push service took something for these sessions, now or at ``at``.

        With a ``connection`` it happens in that transaction, else in one of its own.
        """
        moment = self._milliseconds() if at is None else at
        statements = [
            update(sessions).where(sessions.c.id.in_(chunk)).values(accepted_at=moment)
            for chunk in _chunks(session_ids)
        ]
        with nullcontext(connection) if connection else self._database.write() as writing:
            for statement in statements:
                writing.execute(statement)

    def session(self, session_id: int) -> Session:
        """Return one session. Raises :class:`~handbell.errors.RegistryError` when there is none."""
        found = self._sessions(_SESSIONS.where(sessions.c.id == session_id))
        if not found:
            raise RegistryError(
                f"There is no session {session_id}", fix="See: handbell session list"
            )
        return found[0]

    def sessions(self, app: App, *, status: str | None = None) -> list[Session]:
        """Return an app's sessions, or those of one status, the newest registration first."""
        wanted = _SESSIONS.where(sessions.c.app_id == app.row).order_by(*_NEWEST_FIRST)
        if status is not None:
            wanted = wanted.where(sessions.c.status == status)
        return self._sessions(wanted)

    def sessions_of(self, app: App, mail: str) -> list[Session]:
        """Return every session of a user, the newest registration first; none if not known."""
        return self.sessions_by_mail(app, [mail]).get(mail, [])

    def sessions_by_mail(self, app: App, mails: Iterable[str]) -> dict[str, list[Session]]:
        """Return the sessions of many users under the mails as given.

        All statuses, each list with the newest registration first. Who has none is left out.
        """
        spellings: dict[str, list[str]] = {}
        for mail in dict.fromkeys(mails):
            spellings.setdefault(fold_mail(mail), []).append(mail)
        found: dict[str, list[Session]] = {}
        for session in self._in_chunks(app, users.c.mail, spellings):
            for spelling in spellings[session.mail]:
                found.setdefault(spelling, []).append(session)
        return found

    def find_tokens(self, app: App, tokens: Iterable[str]) -> dict[str, Session]:
        """Return the sessions that hold these device tokens, by token; closed ones hold none."""
        folded = dict.fromkeys(token.lower() for token in tokens)
        found = self._in_chunks(app, sessions.c.token, folded, _OPEN)
        return {session.token: session for session in found}

    def latest_by_token(self, app: App, tokens: Iterable[str]) -> dict[str, Session]:
        """Return the last registered session of each device token, closed ones included."""
        folded = dict.fromkeys(token.lower() for token in tokens)
        latest: dict[str, Session] = {}
        for session in self._in_chunks(app, sessions.c.token, folded):
            latest.setdefault(session.token, session)
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

    def device_tokens(self, app: App) -> list[str]:
        """Return the device tokens of an app's active sessions, each once, sorted."""
        statement = (
            select(sessions.c.token)
            .where(sessions.c.app_id == app.row, sessions.c.status == "active")
            .order_by(sessions.c.token)
        )
        with self._database.read() as connection:
            return list(connection.scalars(statement))

    def _change(self, session: Session | int, condition: Any, **values: Any) -> bool:
        row = session.id if isinstance(session, Session) else session
        statement = update(sessions).where(sessions.c.id == row, condition).values(values)
        with self._database.write() as connection:
            return connection.execute(statement).rowcount > 0

    def _sessions(self, statement: Select[Any]) -> list[Session]:
        with self._database.read() as connection:
            return _read_sessions(connection, statement)

    def _in_chunks(
        self, app: App, column: Column[Any], values: Iterable[str], *conditions: Any
    ) -> Iterator[Session]:
        app_id = column.table.c.app_id
        with self._database.read() as connection:
            for chunk in _chunks(values):
                statement = _SESSIONS.where(app_id == app.row, column.in_(chunk), *conditions)
                yield from _read_sessions(connection, statement.order_by(*_NEWEST_FIRST))

    def _milliseconds(self) -> int:
        return int(self._now() * 1000)


def _register(connection: Connection, app: App, registration: _Registration) -> int:
    _lock_app(connection, app)
    user = _user(connection, app, registration)
    holder = _holder(connection, app, registration.token)
    if holder is not None and holder.user_id == user:
        return _refresh(connection, holder, registration)
    if holder is not None:
        moved = {"status": "closed", "reason": MOVED, "closed_at": registration.at}
        connection.execute(update(sessions).where(sessions.c.id == holder.id).values(moved))
    former = _former(connection, user, registration.token)
    if former is not None:
        return _refresh(connection, former, registration)
    return _add(connection, app, user, registration)


def _lock_app(connection: Connection, app: App) -> None:
    # Where a database has several writers at once, registrations of an app take turns here.
    statement = select(apps.c.id).where(apps.c.id == app.row).with_for_update()
    if connection.scalar(statement) is None:
        raise RegistryError(
            f"The app {app.id} is not in the registry", fix=f"Run: handbell app add {app.id}"
        )


def _user(connection: Connection, app: App, registration: _Registration) -> int:
    statement = select(users.c.id).where(
        users.c.app_id == app.row, users.c.mail == registration.mail
    )
    known = connection.scalar(statement)
    if known is not None:
        return int(known)
    values = {"app_id": app.row, "mail": registration.mail, "created_at": registration.at}
    return _inserted(connection, insert(users).values(values))


def _holder(connection: Connection, app: App, token: str) -> Row[Any] | None:
    statement = select(sessions).where(
        sessions.c.app_id == app.row, sessions.c.token == token, _OPEN
    )
    return connection.execute(statement).one_or_none()


def _former(connection: Connection, user: int, token: str) -> Row[Any] | None:
    statement = (
        select(sessions)
        .where(sessions.c.user_id == user, sessions.c.token == token)
        .order_by(*_NEWEST_FIRST)
        .limit(1)
    )
    return connection.execute(statement).one_or_none()


def _refresh(connection: Connection, known: Row[Any], registration: _Registration) -> int:
    # Only what was proven gets as far as active or quarantined; a closed one proves itself anew.
    is_proven = known.status in ("active", "quarantined")
    values = {
        **_described(registration),
        "environment": registration.environment or known.environment,
        "status": "active" if is_proven else registration.status,
        "reason": None,
        "closed_at": None,
        "registered_at": max(registration.at, known.registered_at),
    }
    connection.execute(update(sessions).where(sessions.c.id == known.id).values(values))
    return int(known.id)


def _add(connection: Connection, app: App, user: int, registration: _Registration) -> int:
    values = {
        **_described(registration),
        "app_id": app.row,
        "user_id": user,
        "token": registration.token,
        "environment": registration.environment or "production",
        "status": registration.status,
        "created_at": registration.at,
        "registered_at": registration.at,
    }
    return _inserted(connection, insert(sessions).values(values))


def _described(registration: _Registration) -> dict[str, str]:
    """Return what the device said of itself; what it left out stays as it was."""
    said = {
        "platform": registration.platform,
        "locale": registration.locale,
        "time_zone": registration.time_zone,
        "device": registration.device,
        "external_id": registration.external_id,
    }
    return {name: value for name, value in said.items() if value is not None}


def _inserted(connection: Connection, statement: Insert) -> int:
    key: Any = connection.execute(statement).inserted_primary_key
    return int(key[0])


def _read_sessions(connection: Connection, statement: Select[Any]) -> list[Session]:
    return [Session(**row) for row in connection.execute(statement).mappings()]


def _mail(text: str) -> str:
    try:
        return read_mail(text)
    except ValueError as error:
        raise RegistryError(
            f"{text[:100]!r} is not a mail address: {error}",
            fix="Name the person by a mail address",
        ) from None


def _chunks(values: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(values)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk
