"""The stored users and sessions."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import Any, Final

from sqlalchemy import (
    Column,
    Connection,
    Select,
    bindparam,
    select,
    update,
)

from handbell._chunks import chunks
from handbell._mail import fold_mail
from handbell.apps.app import App
from handbell.errors import RegistryError, UnknownSessionError
from handbell.fixes import Action, Fix
from handbell.services.address import Address
from handbell.storage.database import Database
from handbell.storage.tables import sessions, users

from .addresses import (
    CheckAddress,
    Subscription,
    accept_any,
    check_environment,
    check_platform,
    read_address,
    service_of,
)
from .bulk import BulkResult, register_many
from .ownership import (
    NEWEST_FIRST,
    claim,
    correct,
    fitting,
    is_repeat,
    prove,
    register,
    renew,
    repeat,
)
from .recipient_lookup import RecipientSession, read_holders, read_recipient_sessions
from .registration import DeviceDescription, Registered, Registration
from .session import (
    ActiveSession,
    Environment,
    Platform,
    Session,
    SessionLocation,
)
from .user import User

SESSIONS_PER_USER: Final = 50
"""The default limit of sessions per person and app."""

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
    sessions.c.address.label("details"),
    sessions.c.device_id,
).join_from(sessions, users, users.c.id == sessions.c.user_id)
_SPEAKING: Final = SESSIONS.where(
    sessions.c.secret_digest == bindparam("secret"), sessions.c.app_id == bindparam("app")
)
_OPEN: Final = sessions.c.status != "closed"


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


class Registry:
    """The users and sessions of every app. ``now`` returns UNIX seconds.

    ``most_sessions`` is the limit per person and app; ``check_address`` refuses addresses that are
    not sent to, such as those of a host that is not allowed. Methods that take a session accept its
    id too. An unregistered app has neither users nor sessions.
    """

    def __init__(
        self,
        database: Database,
        *,
        most_sessions: int = SESSIONS_PER_USER,
        check_address: CheckAddress = accept_any,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.most_sessions = most_sessions
        self._check_address = check_address
        self._database = database
        self._now = now

    def register(
        self,
        app: App,
        mail: str,
        address: str | Subscription,
        *,
        platform: Platform | str | None = None,
        environment: Environment | str | None = None,
        service: str | None = None,
        status: str = "active",
        locale: str | None = None,
        time_zone: str | None = None,
        device: str | None = None,
        device_id: str | None = None,
        external_id: str | None = None,
        registered_at: int | None = None,
    ) -> Session:
        """Register a device for a user and return the session.

        One token has one owner: another user's session with it is closed in the same transaction,
        unless this one is ``pending``, which owns nothing until proven. For the same user the
        session is refreshed: a proven one stays proven, a quarantine ends, a closed session
        reopens. Without ``environment`` a known session keeps its own and a new one gets
        production. ``address`` is a token, or a browser's subscription; ``service`` tells what
        token it is where the platform does not. ``registered_at`` is in UNIX milliseconds, by
        default now. Raises :class:`~handbell.errors.RegistryError` for invalid values.
        """
        registration = Registration.read(
            mail,
            address,
            status=status,
            at=self._milliseconds() if registered_at is None else registered_at,
            platform=platform,
            environment=environment,
            service=service,
            locale=locale,
            time_zone=time_zone,
            device=device,
            device_id=device_id,
            external_id=external_id,
        )
        return self.admit(app, registration).session

    def admit(
        self,
        app: App,
        registration: Registration,
        *,
        first: Callable[[Connection], None] | None = None,
    ) -> Registered:
        """Write a registration as :meth:`register` does; return the sessions that lost the token.

        ``first`` is called in the same transaction; an error rolls back everything.
        """
        self._check(registration)
        with self._database.write() as connection:
            if first is not None:
                first(connection)
            row, moved = register(connection, app, registration, max_sessions=self.most_sessions)
            return Registered(session=read_session(connection, row), moved=moved)

    def admit_many(self, app: App, registrations: Iterable[Registration]) -> BulkResult:
        """Write many registrations in one transaction; return lost tokens and refusals.

        Registrations of persons who have reached the limit of sessions are refused, and those
        of addresses that are not sent to.
        """
        good: list[Registration] = []
        places: list[int] = []
        refused: dict[int, RegistryError] = {}
        for place, registration in enumerate(registrations):
            try:
                self._check(registration)
            except RegistryError as error:
                refused[place] = error
            else:
                good.append(registration)
                places.append(place)
        with self._database.write() as connection:
            result = register_many(connection, app, good, max_sessions=self.most_sessions)
        refused |= {places[at]: error for at, error in result.refused.items()}
        return BulkResult(moved=result.moved, refused=refused)

    def claim(
        self,
        app: App,
        registration: Registration,
        *,
        then: Callable[[Connection, int], None] | None = None,
    ) -> Session:
        """Add a separate pending session and return it.

        ``then`` is called in the same transaction with the session's id.
        """
        self._check(registration)
        with self._database.write() as connection:
            row = claim(connection, app, registration, max_sessions=self.most_sessions)
            if then is not None:
                then(connection, row)
            return read_session(connection, row)

    def renew(
        self,
        app: App,
        digest: str,
        about: DeviceDescription,
        *,
        address: str | Subscription | None = None,
        service: str | None = None,
    ) -> Registered | None:
        """Refresh the session of the secret with this digest; None when there is none.

        Its proof covers a new ``address`` of the device, unless that belongs to another
        person: :class:`~handbell.errors.ProofRequiredError` is raised then.
        A session that was closed as gone reopens.
        """
        named = {"secret": digest, "app": app.row}
        with self._database.write() as connection:
            found = connection.execute(_SPEAKING, named).mappings().one_or_none()
            if found is None:
                return None
            known = Session(**found)
            wanted = self._new_address(known, about, address, service)
            at = self._milliseconds()
            if is_repeat(known, wanted):
                return Registered(session=repeat(connection, known, about, at=at))
            moved = renew(
                connection, known.id, about, address=wanted, at=at, max_sessions=self.most_sessions
            )
            return Registered(session=read_session(connection, known.id), moved=moved)

    def change(
        self,
        app: App,
        session_id: int,
        about: DeviceDescription,
        *,
        address: str | Subscription | None = None,
        service: str | None = None,
    ) -> Registered:
        """Correct a session and return it.

        Raises :class:`~handbell.errors.UnknownSessionError` when the app has no such session, and
        :class:`~handbell.errors.RegistryError` for a new address of a closed one.
        """
        with self._database.write() as connection:
            named = SESSIONS.where(*_named(app, session_id))
            found = connection.execute(named).mappings().one_or_none()
            if found is None:
                raise _unknown(session_id)
            known = Session(**found)
            wanted = self._new_address(known, about, address, service)
            if wanted is not None and known.status == "closed":
                raise RegistryError(
                    f"Session {session_id} is closed", fix="Register the device anew"
                )
            moved = correct(connection, session_id, about, address=wanted, at=self._milliseconds())
            return Registered(session=read_session(connection, session_id), moved=moved)

    def _check(self, registration: Registration) -> None:
        environment = registration.about.environment or "production"
        self._check_address(registration.address, environment)

    def _new_address(
        self,
        known: Session,
        about: DeviceDescription,
        given: str | Subscription | None,
        service: str | None,
    ) -> Address | None:
        """Return the address that a device changes to, or None where it keeps its own."""
        wanted = None
        if given is not None:
            wanted = read_address(
                given, service=service, platform=about.platform, known=known.service
            )
            environment = about.environment or fitting(wanted, known.environment)
            self._check_address(wanted, environment)
        reached_by = service_of(wanted.service if wanted else known.service)
        check_environment(reached_by, about.environment)
        if wanted is None:
            check_platform(reached_by, about.platform)
        return wanted

    def activate(self, session: Session | int) -> Registered | None:
        """Activate a proven pending session; the token moves to it.

        Another user's session with the token is closed in the same transaction. If this user had
        one before, that one is resumed instead. None when it is not pending.
        """
        row = session.id if isinstance(session, Session) else session
        with self._database.write() as connection:
            proven = prove(connection, row, self._milliseconds(), max_sessions=self.most_sessions)
            if proven is None:
                return None
            return Registered(session=read_session(connection, proven[0]), moved=proven[1])

    def close(self, session: Session | int, reason: str) -> bool:
        """Close a session: nothing is sent to it any more. Return whether it was open.

        Its device's secret is revoked, even if it was closed before.
        """
        values = {"status": "closed", "reason": reason, "closed_at": self._milliseconds()}
        row = session.id if isinstance(session, Session) else session
        with self._database.write() as connection:
            mine = update(sessions).where(sessions.c.id == row)
            connection.execute(mine.values(secret_digest=None))
            return connection.execute(mine.where(_OPEN).values(values)).rowcount > 0

    def quarantine(self, session: Session | int, *, reason: str) -> bool:
        """Stop sending to an active session until its device registers again; keep the token."""
        return self._change(
            session, sessions.c.status == "active", status="quarantined", reason=reason
        )

    def release(self, session: Session | int) -> bool:
        """End a session's quarantine: sends resume. Return whether it was in quarantine."""
        return self._change(
            session, sessions.c.status == "quarantined", status="active", reason=None
        )

    def session(self, session_id: int) -> Session:
        """Return one session, or raise :class:`~handbell.errors.UnknownSessionError`."""
        found = self._sessions(SESSIONS.where(sessions.c.id == session_id))
        if not found:
            raise _unknown(session_id)
        return found[0]

    def session_of_app(self, app: App, session_id: int) -> Session:
        """Return one session of an app, or raise UnknownSessionError."""
        found = self._sessions(SESSIONS.where(*_named(app, session_id)))
        if not found:
            raise _unknown(session_id)
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

    def _change(self, session: Session | int, condition: Any, **values: Any) -> bool:
        row = session.id if isinstance(session, Session) else session
        statement = update(sessions).where(sessions.c.id == row, condition).values(values)
        with self._database.write() as connection:
            return connection.execute(statement).rowcount > 0

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

    def _milliseconds(self) -> int:
        return int(self._now() * 1000)


def _named(app: App, session_id: int) -> tuple[Any, Any]:
    return (sessions.c.id == session_id, sessions.c.app_id == app.row)


def _secret(app: App, digest: str) -> tuple[Any, Any]:
    return (sessions.c.secret_digest == digest, sessions.c.app_id == app.row)


def _unknown(session_id: int) -> UnknownSessionError:
    return UnknownSessionError(
        f"There is no session {session_id}", fix=Fix(Action.LIST_SESSIONS, "See")
    )


def read_session(connection: Connection, row: int) -> Session:
    """Return the session of an existing row."""
    return read_sessions(connection, SESSIONS.where(sessions.c.id == row))[0]


def read_sessions(connection: Connection, statement: Select[Any]) -> list[Session]:
    """Return the sessions of a statement made of :data:`SESSIONS`."""
    return [Session(**row) for row in connection.execute(statement).mappings()]
