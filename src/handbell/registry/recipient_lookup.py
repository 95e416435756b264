"""Look up the sessions of many mail addresses in one query."""

from collections.abc import Collection
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, bindparam, select, union_all

from handbell.storage.connections import Quick
from handbell.storage.lists import each, look_up
from handbell.storage.statements import Query
from handbell.storage.tables import sessions, users

from .conditions import CLAIMED, DETAILS, NEWEST_FIRST, PROVEN
from .session import Environment


class RecipientSession(NamedTuple):
    """A session as a send needs it, whatever its status; created thousands of times a second."""

    mail: str
    id: int
    token: str
    environment: Environment
    status: str
    reason: str | None
    user_id: int
    time_zone: str | None
    locale: str | None
    accepted_at: int | None
    service: str
    details: str | None
    device_id: str | None


_COLUMNS: Final = (
    users.c.mail,
    sessions.c.id,
    sessions.c.token,
    sessions.c.environment,
    sessions.c.status,
    sessions.c.reason,
    sessions.c.user_id,
    sessions.c.time_zone,
    sessions.c.locale,
    sessions.c.accepted_at,
    sessions.c.service,
    DETAILS.label("details"),
    sessions.c.device_id,
)
_WANTED: Final = each("wanted")
_users: Final = look_up(
    _WANTED, users, and_(users.c.app_id == bindparam("app"), users.c.mail == _WANTED.c.value)
)
BY_MAIL: Final = Query(
    select(*_COLUMNS)
    .select_from(look_up(_users, sessions, sessions.c.user_id == users.c.id))
    .order_by(*NEWEST_FIRST)
)


def _held_by(status: ColumnElement[bool]) -> Select[Any]:
    mine = and_(sessions.c.app_id == bindparam("app"), sessions.c.token == _WANTED.c.value, status)
    columns = (*_COLUMNS[1:], sessions.c.registered_at)
    return select(*columns).select_from(look_up(_WANTED, sessions, mine))


# Each half repeats the predicate of its index exactly.
_held: Final = union_all(_held_by(PROVEN), _held_by(CLAIMED)).subquery("held")
BY_TOKEN: Final = Query(
    select(users.c.mail, *(_held.c[column.name] for column in _COLUMNS[1:]))
    .select_from(look_up(_held, users, users.c.id == _held.c.user_id))
    .order_by(_held.c.status == "pending", _held.c.registered_at.desc(), _held.c.id.desc())
)


def read_recipient_sessions(
    connection: Quick, app: int, mails: Collection[str]
) -> dict[str, list[RecipientSession]]:
    """Return the sessions of an app's users by mail, the newest registration first.

    ``app`` is the app's row, ``mails`` are folded. Mails without a session are left out.
    """
    found: dict[str, list[RecipientSession]] = {}
    for row in BY_MAIL.rows(connection, app=app, wanted=list(mails)):
        found.setdefault(row[0], []).append(RecipientSession._make(row))
    return found


def read_holders(
    connection: Quick, app: int, tokens: Collection[str]
) -> dict[str, RecipientSession]:
    """Return the session that holds each device token, by token; closed ones hold none.

    If nobody has proven that a token is theirs, the newest claim counts.
    """
    found: dict[str, RecipientSession] = {}
    for row in BY_TOKEN.rows(connection, app=app, wanted=list(tokens)):
        holder = RecipientSession._make(row)
        found.setdefault(holder.token, holder)
    return found
