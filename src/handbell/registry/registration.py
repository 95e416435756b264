"""How a token gets its owner: what a registration changes, within one transaction.

A token belongs to at most one session that is proven. Who only claims it has a pending session,
which takes nothing from anybody; the token moves in the moment of the proof.
"""

from dataclasses import dataclass, replace
from typing import Any, Final, Self

from sqlalchemy import (
    Connection,
    Insert,
    Row,
    bindparam,
    delete,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from handbell._mail import read_mail
from handbell.apps.app import App
from handbell.errors import RegistryError
from handbell.fixes import Action, Fix
from handbell.tables import apps, proofs, sessions, users

from .session import (
    MOVED,
    Environment,
    Platform,
    Session,
    read_environment,
    read_label,
    read_platform,
    read_time_zone,
    read_token,
)

PROVEN: Final = sessions.c.status.in_([literal_column("'active'"), literal_column("'quarantined'")])
"""The very words of the index that keeps one owner per token: only then is it used."""

CLAIMED: Final = sessions.c.status == literal_column("'pending'")
"""The very words of the index of those who only claim a token."""

NEWEST_FIRST: Final = (sessions.c.registered_at.desc(), sessions.c.id.desc())

_LABELS: Final = ("locale", "device", "app_version", "os_version", "external_id")
_DESCRIBED: Final = ("platform", "time_zone", *_LABELS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a device says of itself, checked; None is what it did not say."""

    platform: str | None = None
    environment: str | None = None
    locale: str | None = None
    time_zone: str | None = None
    device: str | None = None
    app_version: str | None = None
    os_version: str | None = None
    external_id: str | None = None

    @classmethod
    def read(
        cls,
        *,
        platform: Platform | str | None = None,
        environment: Environment | str | None = None,
        time_zone: str | None = None,
        **labels: str | None,
    ) -> Self:
        """Return what can be stored. Raises :class:`~handbell.errors.RegistryError` otherwise."""
        return cls(
            platform=None if platform is None else read_platform(platform),
            environment=None if environment is None else read_environment(environment),
            time_zone=None if time_zone is None else read_time_zone(time_zone),
            **{name: read_label(name, labels.pop(name, None)) for name in _LABELS},
            **labels,
        )

    def said(self) -> dict[str, str]:
        """Return the columns of what was said, without the environment."""
        values = {name: getattr(self, name) for name in _DESCRIBED}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A device of a person, checked. ``at`` is in UNIX milliseconds.

    ``status`` is ``active`` where it is proven, else ``pending``. ``secret_digest`` is of the
    secret by which the device is to speak for its session, or None to leave that as it is.
    """

    mail: str
    token: str
    status: str
    at: int
    about: Description
    secret_digest: str | None = None

    @classmethod
    def read(
        cls,
        mail: str,
        token: str,
        *,
        status: str = "active",
        at: int,
        secret_digest: str | None = None,
        **about: str | None,
    ) -> Self:
        """Return a registration, or raise :class:`~handbell.errors.RegistryError`."""
        if status not in ("active", "pending"):
            raise RegistryError(
                f"A session cannot be registered as {status!r}", fix="Use active or pending"
            )
        return cls(
            mail=registered_mail(mail),
            token=read_token(token),
            status=status,
            at=at,
            about=Description.read(**about),
            secret_digest=secret_digest,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A session as it is now, and the sessions that lost its token to it.

    Nothing more may be sent to those that ``moved``: give them to ``Engine.release`` before anybody
    is told that the device is this person's.
    """

    session: Session
    moved: tuple[int, ...] = ()


def registered_mail(text: str) -> str:
    """Return a mail address in its folded form, or raise RegistryError."""
    try:
        return read_mail(text)
    except ValueError as error:
        raise RegistryError(
            f"{text[:100]!r} is not a mail address: {error}",
            fix="Name the person by a mail address",
        ) from None


def register(connection: Connection, app: App, new: Registration) -> tuple[int, tuple[int, ...]]:
    """Write a registration; return the session's row and those whose token it took.

    The same person's session is refreshed: what was proven stays proven, a quarantine ends, and a
    closed one opens again.
    """
    lock_app(connection, app)
    user = _user(connection, app, new)
    holder = _holder(connection, app, new.token)
    if holder is not None and holder.user_id == user:
        return _refresh(connection, holder, new), ()
    moved = _take_over(connection, holder, new.at) if new.status == "active" else ()
    former = _former(connection, user, new.token)
    if former is not None:
        return _refresh(connection, former, new), moved
    return _add(connection, app, user, new), moved


def claim(connection: Connection, app: App, new: Registration) -> int:
    """Add a pending session of its own, whatever else is known, and return its row."""
    lock_app(connection, app)
    return _add(connection, app, _user_alike(connection, app, new), new)


def prove(connection: Connection, row: int, at: int) -> tuple[int, tuple[int, ...]] | None:
    """Make a pending session active; return the session's row and those whose token it took.

    Where the same person had a session with the token before, that one goes on in its place: what
    is on its way to it stays theirs. None when the session is not pending any more.
    """
    pending = _in_turn(connection, row)
    if pending is None or pending.status != "pending":
        return None
    holder = connection.execute(_holding(pending.app_id, pending.token)).one_or_none()
    is_own = holder is not None and holder.user_id == pending.user_id
    former = holder if is_own else _former(connection, pending.user_id, pending.token, but=row)
    moved = () if is_own else _take_over(connection, holder, at)
    if former is not None:
        return _carry_on(connection, former, pending), moved
    values = {"status": "active", "reason": None, "registered_at": at}
    connection.execute(update(sessions).where(sessions.c.id == row).values(values))
    return row, moved


def renew(
    connection: Connection, row: int, about: Description, *, token: str | None, at: int
) -> tuple[int, ...]:
    """Refresh a session whose device spoke for it; return those whose token it took.

    A device may get a new token, and stays this person's. A session that was closed because the
    push service called its device gone opens again.
    """
    known = _in_turn(connection, row)
    wanted = token or known.token
    is_claim = known.status == "pending"
    moved = () if is_claim else _make_way(connection, known, wanted, at)
    # A token lives in one environment: what a push service accepted there is known better than by
    # the device's guess.
    is_settled = known.accepted_at is not None and wanted == known.token
    values: dict[str, Any] = {
        **about.said(),
        "environment": known.environment if is_settled else about.environment or known.environment,
        "token": wanted,
        "status": "pending" if is_claim else "active",
        "reason": None,
        "closed_at": None,
        "registered_at": max(at, known.registered_at),
    }
    connection.execute(update(sessions).where(sessions.c.id == row).values(values))
    return moved


def is_repeat(known: Session, token: str | None) -> bool:
    """Return whether a device that speaks for its session changes nothing about who owns what."""
    return known.status in ("active", "pending") and token in (None, known.token)


def repeat(connection: Connection, known: Session, about: Description, *, at: int) -> Session:
    """Refresh a session as :func:`renew` does, where :func:`is_repeat` says so; it costs less.

    Each device does it at each start of its app.
    """
    is_settled = known.accepted_at is not None or about.environment is None
    values: dict[str, Any] = {
        **{name: getattr(known, name) for name in _DESCRIBED},
        **about.said(),
        "environment": known.environment if is_settled else about.environment,
        "reason": None,
        "registered_at": max(at, known.registered_at),
    }
    written = {f"new_{name}": value for name, value in values.items()}
    connection.execute(_REPEAT, {"row_id": known.id, **written})
    return replace(known, **values)


_REPEAT: Final = (
    update(sessions)
    .where(sessions.c.id == bindparam("row_id"))
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in (*_DESCRIBED, "environment", "reason", "registered_at")
        }
    )
)


def correct(
    connection: Connection, row: int, about: Description, *, token: str | None, at: int
) -> tuple[int, ...]:
    """Write what is better known of a session; return those whose token it took.

    Nothing of it says that the device is there, so its status and times stay.
    """
    known = _in_turn(connection, row)
    wanted = token or known.token
    is_proven = known.status in ("active", "quarantined")
    moved = _make_way(connection, known, wanted, at) if is_proven else ()
    values: dict[str, Any] = {
        **about.said(),
        "environment": about.environment or known.environment,
        "token": wanted,
    }
    connection.execute(update(sessions).where(sessions.c.id == row).values(values))
    return moved


def _in_turn(connection: Connection, row: int) -> Any:
    """Wait as :func:`lock_app` does, and return a session as it is then, or None."""
    app_id = select(sessions.c.app_id).where(sessions.c.id == row).scalar_subquery()
    connection.execute(select(apps.c.id).where(apps.c.id == app_id).with_for_update())
    return connection.execute(select(sessions).where(sessions.c.id == row)).one_or_none()


def _make_way(connection: Connection, known: Row[Any], token: str, at: int) -> tuple[int, ...]:
    holder = connection.execute(_holding(known.app_id, token)).one_or_none()
    return () if holder is None or holder.id == known.id else _take_over(connection, holder, at)


def lock_app(connection: Connection, app: App) -> None:
    """Wait until it is this transaction's turn to change who owns the app's tokens.

    Raises RegistryError when the app is not in the registry.
    """
    # Where a database has several writers at once, registrations of an app take turns here.
    statement = select(apps.c.id).where(apps.c.id == app.row).with_for_update()
    if connection.scalar(statement) is None:
        raise RegistryError(
            f"The app {app.id} is not in the registry",
            fix=Fix(Action.ADD_APP, "Add it", app=app.id),
        )


def _user(connection: Connection, app: App, new: Registration) -> int:
    statement = select(users.c.id).where(users.c.app_id == app.row, users.c.mail == new.mail)
    known = connection.scalar(statement)
    if known is not None:
        return int(known)
    values = {"app_id": app.row, "mail": new.mail, "created_at": new.at}
    return _inserted(connection, insert(users).values(values))


def _user_alike(connection: Connection, app: App, new: Registration) -> int:
    """Return the user as :func:`_user` does, by the same steps whether they are known or not."""
    add = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    values = {"app_id": app.row, "mail": new.mail, "created_at": new.at}
    connection.execute(add(users).values(values).on_conflict_do_nothing())
    return _user(connection, app, new)


def _holder(connection: Connection, app: App, token: str) -> Row[Any] | None:
    return connection.execute(_holding(app.row, token)).one_or_none()


def _holding(app_id: int | None, token: str) -> Any:
    return select(sessions).where(sessions.c.app_id == app_id, sessions.c.token == token, PROVEN)


def _take_over(connection: Connection, holder: Row[Any] | None, at: int) -> tuple[int, ...]:
    if holder is None:
        return ()
    connection.execute(update(sessions).where(sessions.c.id == holder.id).values(moved_values(at)))
    return (holder.id,)


def moved_values(at: int) -> dict[str, Any]:
    """Return the columns of a session whose token now is somebody else's."""
    # Whoever has the former secret speaks for nobody any more.
    return {"status": "closed", "reason": MOVED, "closed_at": at, "secret_digest": None}


def _former(connection: Connection, user: int, token: str, *, but: int = 0) -> Row[Any] | None:
    statement = (
        select(sessions)
        .where(sessions.c.user_id == user, sessions.c.token == token, sessions.c.id != but)
        .order_by(CLAIMED, *NEWEST_FIRST)
        .limit(1)
    )
    if but:
        # Another claim has a proof of its own to wait for.
        statement = statement.where(sessions.c.status != "pending")
    return connection.execute(statement).one_or_none()


def _refresh(connection: Connection, known: Row[Any], new: Registration) -> int:
    values = refreshed_values(known, new)
    connection.execute(update(sessions).where(sessions.c.id == known.id).values(values))
    return int(known.id)


def refreshed_values(known: Row[Any], new: Registration) -> dict[str, Any]:
    """Return the columns of a session whose person registers the device again."""
    # Only what was proven gets as far as active or quarantined; a closed one proves itself anew.
    is_proven = known.status in ("active", "quarantined")
    said = new.about.said()
    # Who only claimed the device must not speak for it once somebody else has proven it.
    keeps_secret = new.secret_digest is None and known.status != "pending"
    return {
        **{name: said.get(name, getattr(known, name)) for name in _DESCRIBED},
        "environment": new.about.environment or known.environment,
        "status": "active" if is_proven else new.status,
        "reason": None,
        "closed_at": None,
        "registered_at": max(new.at, known.registered_at),
        "secret_digest": known.secret_digest if keeps_secret else new.secret_digest,
    }


def _carry_on(connection: Connection, former: Row[Any], pending: Row[Any]) -> int:
    """Let a person's former session take the place of the one that was just proven."""
    # The links that were mailed for it go on saying that they were used, or are too old.
    connection.execute(
        update(proofs).where(proofs.c.session_id == pending.id).values(session_id=former.id)
    )
    connection.execute(delete(sessions).where(sessions.c.id == pending.id))
    said = {name: getattr(pending, name) for name in _DESCRIBED}
    values: dict[str, Any] = {
        **{name: value for name, value in said.items() if value is not None},
        # A token lives in one environment: what a push service accepted there is known for good.
        "environment": former.environment if former.accepted_at else pending.environment,
        "secret_digest": pending.secret_digest,
        "claimed_as": pending.id,
        "status": "active",
        "reason": None,
        "closed_at": None,
        "registered_at": max(pending.registered_at, former.registered_at),
    }
    connection.execute(update(sessions).where(sessions.c.id == former.id).values(values))
    return int(former.id)


def _add(connection: Connection, app: App, user: int, new: Registration) -> int:
    return _inserted(connection, insert(sessions).values(added_values(app, user, new)))


def added_values(app: App, user: int, new: Registration) -> dict[str, Any]:
    """Return the columns of a new session."""
    return {
        **dict.fromkeys(_DESCRIBED),
        "platform": "ios",
        **new.about.said(),
        "app_id": app.row,
        "user_id": user,
        "token": new.token,
        "environment": new.about.environment or "production",
        "status": new.status,
        "secret_digest": new.secret_digest,
        "created_at": new.at,
        "registered_at": new.at,
    }


def _inserted(connection: Connection, statement: Insert) -> int:
    key: Any = connection.execute(statement).inserted_primary_key
    return int(key[0])
