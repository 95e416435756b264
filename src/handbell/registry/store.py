"""The stored users and sessions, and their changes."""

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from sqlalchemy import (
    Connection,
    bindparam,
    update,
)

from handbell.apps.app import App
from handbell.errors import RegistryError
from handbell.services.address import Address
from handbell.services.service import PushService
from handbell.storage.database import Database
from handbell.storage.tables import sessions

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
    claim,
    correct,
    is_repeat,
    prove,
    register,
    renew,
    repeat,
)
from .places import address_of, fitting
from .reader import SESSIONS, SessionReader, named, read_session, unknown_session
from .registration import DeviceDescription, Registered, Registration
from .session import (
    Environment,
    Platform,
    Session,
)

SESSIONS_PER_USER: Final = 50
"""The default limit of sessions per person and app."""

_SPEAKING: Final = SESSIONS.where(
    sessions.c.secret_digest == bindparam("secret"), sessions.c.app_id == bindparam("app")
)
_OPEN: Final = sessions.c.status != "closed"


class Registry(SessionReader):
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
        super().__init__(database)
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
        self.check(registration)
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
                self.check(registration)
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
        self.check(registration)
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
            its = SESSIONS.where(*named(app, session_id))
            found = connection.execute(its).mappings().one_or_none()
            if found is None:
                raise unknown_session(session_id)
            known = Session(**found)
            wanted = self._new_address(known, about, address, service)
            if wanted is not None and known.status == "closed":
                raise RegistryError(
                    f"Session {session_id} is closed", fix="Register the device anew"
                )
            moved = correct(connection, session_id, about, address=wanted, at=self._milliseconds())
            return Registered(session=read_session(connection, session_id), moved=moved)

    def check(self, registration: Registration) -> None:
        """Raise RegistryError for an address that is not sent to; :meth:`admit` does as well."""
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
            _check_service(reached_by, service)
            if about.environment not in (None, known.environment):
                self._check_address(address_of(known), about.environment)
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

    def _change(self, session: Session | int, condition: Any, **values: Any) -> bool:
        row = session.id if isinstance(session, Session) else session
        statement = update(sessions).where(sessions.c.id == row, condition).values(values)
        with self._database.write() as connection:
            return connection.execute(statement).rowcount > 0

    def _milliseconds(self) -> int:
        return int(self._now() * 1000)


def _check_service(reached_by: PushService, named: str | None) -> None:
    """Raise RegistryError if another service is named without an address of it."""
    if named is not None and service_of(named) is not reached_by:
        raise RegistryError(
            f"The session's address is one of {reached_by.title}",
            fix="Give an address of the other service as well",
        )
