"""The limit of sessions per person: what gives way to a new one."""

from sqlalchemy import Connection, delete, select, update

from handbell.errors import SessionLimitError
from handbell.storage.tables import sessions

from .conditions import CLAIMED, PROVEN
from .session import CROWDED_OUT


def make_room(connection: Connection, user: int, max_sessions: int, *, at: int) -> None:
    """Make room for one more proven session of a person.

    Beyond ``max_sessions``, sessions for which no push was ever accepted are removed, the longest
    silent first. Raises :class:`~handbell.errors.SessionLimitError`, with nothing changed, if that
    is not enough: working sessions are kept.
    """
    statement = (
        select(sessions.c.id, sessions.c.accepted_at)
        .where(sessions.c.user_id == user, PROVEN)
        .order_by(sessions.c.registered_at, sessions.c.id)
    )
    held = connection.execute(statement).all()
    excess = len(held) - max_sessions + 1
    if excess <= 0:
        return
    idle = [row.id for row in held if row.accepted_at is None][:excess]
    if len(idle) < excess:
        raise SessionLimitError(
            f"This person has {len(held)} sessions already, and {max_sessions} are allowed",
            fix="Close those that are no longer used, or raise HANDBELL_SESSIONS_PER_USER",
        )
    values = {"status": "closed", "reason": CROWDED_OUT, "closed_at": at, "secret_digest": None}
    connection.execute(update(sessions).where(sessions.c.id.in_(idle)).values(values))


def make_room_to_claim(connection: Connection, user: int, max_sessions: int) -> None:
    """Remove a user's oldest claims if there are ``max_sessions`` already."""
    statement = (
        select(sessions.c.id)
        .where(sessions.c.user_id == user, CLAIMED)
        .order_by(sessions.c.registered_at.desc(), sessions.c.id.desc())
        .offset(max_sessions - 1)
    )
    if rows := connection.scalars(statement).all():
        connection.execute(delete(sessions).where(sessions.c.id.in_(rows)))
