"""Ownership of addresses: the changes of a registration, within one transaction.

The states of a session and their transitions are in the table of
docs/decisions/0016-proof-and-ownership.md. A token belongs to at most one proven session. A claim
is a pending session, which owns nothing; the token moves when it is proven. A secret alone never
takes a token from another person.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Insert,
    Row,
    bindparam,
    delete,
    insert,
    select,
    union_all,
    update,
)

from handbell.apps.app import App
from handbell.errors import ProofRequiredError, RegistryError
from handbell.fixes import Action, Fix
from handbell.services.address import Address
from handbell.services.table import SERVICES
from handbell.storage.bulk import insert_new
from handbell.storage.tables import apps, proofs, sessions, users

from .conditions import CLAIMED, GONE, NEWEST_FIRST, PROVEN
from .places import Place, address_columns, address_in, address_of, fitting, place_of
from .registration import DESCRIBED, DeviceDescription, Registration
from .session import MOVED, Session
from .session_limit import make_room, make_room_to_claim


def register(
    connection: Connection, app: App, new: Registration, *, max_sessions: int
) -> tuple[int, tuple[int, ...]]:
    """Write a registration; return the session's row and the rows that lost the token.

    The same person's session is refreshed: a proven one stays proven, a quarantine ends, and a
    closed one reopens. ``max_sessions`` is the limit of sessions per person.
    """
    lock_app(connection, app)
    user = _user(connection, app, new)
    holder = _holder(connection, app, new.address)
    is_proof = new.status == "active"
    is_own = holder is not None and holder.user_id == user
    if is_proof and not is_own:
        make_room(connection, user, max_sessions, at=new.at)
    if is_proof:
        silence_others(connection, app.row, {place_of(new.address): user})
    if holder is not None and is_own:
        return _refresh(connection, holder, new), ()
    former = _former(connection, user, new.address)
    if former is None and not is_proof:
        make_room_to_claim(connection, user, max_sessions)
    moved = _take_over(connection, holder, new.at) if is_proof else ()
    if former is not None:
        return _refresh(connection, former, new), moved
    return _add(connection, app, user, new), moved


def claim(connection: Connection, app: App, new: Registration, *, max_sessions: int) -> int:
    """Add a separate pending session and return its row.

    Beyond ``max_sessions`` claims of a person the oldest is removed; proven sessions are unchanged.
    """
    lock_app(connection, app)
    user = _user_alike(connection, app, new)
    make_room_to_claim(connection, user, max_sessions)
    return _add(connection, app, user, new)


def prove(
    connection: Connection, row: int, at: int, *, max_sessions: int
) -> tuple[int, tuple[int, ...]] | None:
    """Activate a pending session; return its row and the rows that lost the token.

    If the same person had a session with the token before, that one is resumed instead: its
    deliveries stay theirs. None when the session is no longer pending.
    """
    pending = _in_turn(connection, row)
    if pending is None or pending.status != "pending":
        return None
    silence_others(connection, pending.app_id, {place_of(pending): pending.user_id})
    holder = connection.execute(_holding(pending.app_id, pending)).one_or_none()
    is_own = holder is not None and holder.user_id == pending.user_id
    former = holder if is_own else _former(connection, pending.user_id, pending, but=row)
    if not is_own:
        make_room(connection, pending.user_id, max_sessions, at=at)
    moved = () if is_own else _take_over(connection, holder, at)
    if former is not None:
        return _carry_on(connection, former, pending), moved
    values = {"status": "active", "reason": None, "registered_at": at}
    connection.execute(update(sessions).where(sessions.c.id == row).values(values))
    return row, moved


def renew(
    connection: Connection,
    row: int,
    about: DeviceDescription,
    *,
    address: Address | None,
    at: int,
    max_sessions: int,
) -> tuple[int, ...]:
    """Refresh a session by its device's secret; return the rows that lost the token.

    A device keeps its owner with a new address, and when its session was closed as gone, which
    reopens it. It can only take a token from the same person: for another person's token
    :class:`~handbell.errors.ProofRequiredError` is raised.
    """
    known = _in_turn(connection, row)
    wanted = address or address_in(known)
    is_claim = known.status == "pending"
    moved = () if is_claim else _make_way_for_own(connection, known, wanted, at)
    if known.status == "closed":
        make_room(connection, known.user_id, max_sessions, at=at)
    # A token belongs to one environment: a push service's acceptance outweighs the device's guess.
    is_settled = known.accepted_at is not None and place_of(wanted) == place_of(known)
    environment = None if is_settled else about.environment
    values: dict[str, Any] = {
        **about.given(),
        **address_columns(wanted),
        "environment": fitting(wanted, environment or known.environment),
        "status": "pending" if is_claim else "active",
        "reason": None,
        "closed_at": None,
        "registered_at": max(at, known.registered_at),
    }
    connection.execute(update(sessions).where(sessions.c.id == row).values(values))
    return moved


def is_repeat(known: Session, address: Address | None) -> bool:
    """Return whether a device's renewal changes neither ownership nor address."""
    return known.status in ("active", "pending") and address in (None, address_of(known))


def repeat(connection: Connection, known: Session, about: DeviceDescription, *, at: int) -> Session:
    """Refresh a session as :func:`renew` does, but cheaper; :func:`is_repeat` must hold.

    Each device does this at each start of its app.
    """
    is_settled = known.accepted_at is not None or about.environment is None
    values: dict[str, Any] = {
        **{name: getattr(known, name) for name in DESCRIBED},
        **about.given(),
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
            for name in (*DESCRIBED, "environment", "reason", "registered_at")
        }
    )
)


def correct(
    connection: Connection,
    row: int,
    about: DeviceDescription,
    *,
    address: Address | None,
    at: int,
) -> tuple[int, ...]:
    """Correct a session; return the rows that lost the token.

    This is no sign of life of the device, so status and times are unchanged. The caller may
    register devices for anybody, which counts as a proof.
    """
    known = _in_turn(connection, row)
    wanted = address or address_in(known)
    moved: tuple[int, ...] = ()
    if known.status in ("active", "quarantined") and place_of(wanted) != place_of(known):
        silence_others(connection, known.app_id, {place_of(wanted): known.user_id})
        holder = connection.execute(_holding(known.app_id, wanted)).one_or_none()
        moved = _take_over(connection, holder, at)
    values: dict[str, Any] = {
        **about.given(),
        **address_columns(wanted),
        "environment": fitting(wanted, about.environment or known.environment),
    }
    connection.execute(update(sessions).where(sessions.c.id == row).values(values))
    return moved


def _in_turn(connection: Connection, row: int) -> Any:
    """Lock as :func:`lock_app` does, and return the session's current state, or None."""
    app_id = select(sessions.c.app_id).where(sessions.c.id == row).scalar_subquery()
    connection.execute(select(apps.c.id).where(apps.c.id == app_id).with_for_update())
    return connection.execute(select(sessions).where(sessions.c.id == row)).one_or_none()


def _make_way_for_own(
    connection: Connection, known: Row[Any], wanted: Address, at: int
) -> tuple[int, ...]:
    holder = connection.execute(_holding(known.app_id, wanted)).one_or_none()
    if holder is not None and holder.user_id != known.user_id:
        raise ProofRequiredError(
            "Somebody else has proven that this device is theirs",
            fix="Register it anew, with a proof: an identity token, a mailed link, or an API key",
        )
    silence_others(connection, known.app_id, {place_of(wanted): known.user_id}, but_claims=True)
    return () if holder is None or holder.id == known.id else _take_over(connection, holder, at)


def silence_others(
    connection: Connection,
    app_id: int | None,
    owners: Mapping[Place, int],
    *,
    but_claims: bool = False,
) -> None:
    """Revoke the secrets of sessions in these places that belong to somebody else.

    A secret outlives a session that was closed as gone, and a claim has one too. Once a person has
    proven a token, no other person's secret may open or change a session with it. ``but_claims``
    spares claims: a device that only changed its token proved nothing.
    """
    statuses = [GONE] if but_claims else [GONE, CLAIMED]
    with_token = (
        sessions.c.app_id == app_id,
        sessions.c.token.in_([token for _, token in owners]),
        sessions.c.secret_digest.is_not(None),
    )
    columns = (sessions.c.id, sessions.c.service, sessions.c.token, sessions.c.user_id)
    # One index each, which an OR would not use.
    found = union_all(*(select(*columns).where(*with_token, status) for status in statuses))
    rows = [
        row.id
        for row in connection.execute(found)
        if owners.get(place_of(row), row.user_id) != row.user_id
    ]
    if rows:
        void = update(sessions).where(sessions.c.id.in_(rows)).values(secret_digest=None)
        connection.execute(void)


def lock_app(connection: Connection, app: App) -> None:
    """Lock the ownership of the app's tokens for this transaction.

    Raises RegistryError for an unregistered app.
    """
    # On a database with concurrent writers, registrations of an app are serialized here.
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
    """Return the user as :func:`_user` does, in the same steps whether it exists or not."""
    values = {"app_id": (app.row,), "mail": (new.mail,), "created_at": (new.at,)}
    insert_new(connection, users, values, returned=["id"])
    return _user(connection, app, new)


def _holder(connection: Connection, app: App, address: Address) -> Row[Any] | None:
    return connection.execute(_holding(app.row, address)).one_or_none()


def _holding(app_id: int | None, address: Address | Row[Any]) -> Any:
    return select(sessions).where(
        sessions.c.app_id == app_id,
        sessions.c.token == address.token,
        sessions.c.service == address.service,
        PROVEN,
    )


def _take_over(connection: Connection, holder: Row[Any] | None, at: int) -> tuple[int, ...]:
    if holder is None:
        return ()
    connection.execute(update(sessions).where(sessions.c.id == holder.id).values(moved_values(at)))
    return (holder.id,)


def moved_values(at: int) -> dict[str, Any]:
    """Return the columns of a session whose token now belongs to another one."""
    # The former secret no longer authenticates anybody.
    return {"status": "closed", "reason": MOVED, "closed_at": at, "secret_digest": None}


def _former(
    connection: Connection, user: int, address: Address | Row[Any], *, but: int = 0
) -> Row[Any] | None:
    statement = (
        select(sessions)
        .where(
            sessions.c.user_id == user,
            sessions.c.token == address.token,
            sessions.c.service == address.service,
            sessions.c.id != but,
        )
        .order_by(CLAIMED, *NEWEST_FIRST)
        .limit(1)
    )
    if but:
        # Another claim awaits its own proof.
        statement = statement.where(sessions.c.status != "pending")
    return connection.execute(statement).one_or_none()


def _refresh(connection: Connection, known: Row[Any], new: Registration) -> int:
    values = refreshed_values(known, new)
    connection.execute(update(sessions).where(sessions.c.id == known.id).values(values))
    return int(known.id)


def refreshed_values(known: Row[Any], new: Registration) -> dict[str, Any]:
    """Return the columns of a session that its person registers again."""
    # Only a proven session becomes active or quarantined; a closed one has to be proven anew.
    is_proven = known.status in ("active", "quarantined")
    given = new.about.given()
    # A claimant must not speak for the device once somebody else has proven it.
    keeps_secret = new.secret_digest is None and known.status != "pending"
    return {
        **{name: given.get(name, getattr(known, name)) for name in DESCRIBED},
        **address_columns(new.address),
        "environment": new.about.environment or known.environment,
        "status": "active" if is_proven else new.status,
        "reason": None,
        "closed_at": None,
        "registered_at": max(new.at, known.registered_at),
        "secret_digest": known.secret_digest if keeps_secret else new.secret_digest,
    }


def _carry_on(connection: Connection, former: Row[Any], pending: Row[Any]) -> int:
    """Replace the just proven session by the person's former one."""
    # The links mailed for it must still report that they were used or have expired.
    connection.execute(
        update(proofs).where(proofs.c.session_id == pending.id).values(session_id=former.id)
    )
    connection.execute(delete(sessions).where(sessions.c.id == pending.id))
    given = {name: getattr(pending, name) for name in DESCRIBED}
    values: dict[str, Any] = {
        **{name: value for name, value in given.items() if value is not None},
        **address_columns(address_in(pending)),
        # A token belongs to one environment: a push service's acceptance there is proof of it.
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
        **dict.fromkeys(DESCRIBED),
        "platform": SERVICES[new.address.service].platforms[0],
        **new.about.given(),
        **address_columns(new.address),
        "app_id": app.row,
        "user_id": user,
        "environment": new.about.environment or "production",
        "status": new.status,
        "secret_digest": new.secret_digest,
        "created_at": new.at,
        "registered_at": new.at,
    }


def _inserted(connection: Connection, statement: Insert) -> int:
    key: Any = connection.execute(statement).inserted_primary_key
    return int(key[0])
