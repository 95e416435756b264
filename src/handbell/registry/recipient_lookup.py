"""Look up the sessions of many mail addresses in one query."""

import json
from collections.abc import Collection
from typing import Any, Final, NamedTuple

from pydantic_core import from_json
from sqlalchemy import Connection, select

from handbell.storage.database import Quick, driver_of
from handbell.storage.tables import sessions, users

from .ownership import CLAIMED, NEWEST_FIRST, PROVEN
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
)
_TOLD: Final = f"json_array({', '.join(map(str, _COLUMNS))}) AS told"
BY_MAIL: Final = f"""
    SELECT json_group_array(json(told)) FROM (
        SELECT {_TOLD}
        FROM json_each(?2) AS wanted
        CROSS JOIN users ON users.app_id = ?1 AND users.mail = wanted.value
        CROSS JOIN sessions ON sessions.user_id = users.id
        ORDER BY sessions.registered_at DESC, sessions.id DESC
    )
"""  # noqa: S608 - names of columns only
_HELD: Final = """
    SELECT sessions.* FROM json_each(?2) AS wanted
    CROSS JOIN sessions ON sessions.app_id = ?1 AND sessions.token = wanted.value AND {}
"""
# Each half in the very words of its index.
BY_TOKEN: Final = f"""
    SELECT json_group_array(json(told)) FROM (
        SELECT {_TOLD}
        FROM (
            {_HELD.format("sessions.status IN ('active', 'quarantined')")}
            UNION ALL
            {_HELD.format("sessions.status = 'pending'")}
        ) AS sessions
        CROSS JOIN users ON users.id = sessions.user_id
        ORDER BY sessions.status = 'pending', sessions.registered_at DESC, sessions.id DESC
    )
"""  # noqa: S608 - names of columns only


def read_recipient_sessions(
    connection: Quick, app: int, mails: Collection[str]
) -> dict[str, list[RecipientSession]]:
    """Return the sessions of an app's users by mail, the newest registration first.

    ``app`` is the app's row, ``mails`` are folded. Mails without a session are left out.
    """
    found: dict[str, list[RecipientSession]] = {}
    for row in _rows(connection, app, mails):
        found.setdefault(row[0], []).append(RecipientSession._make(row))
    return found


def read_holders(
    connection: Quick, app: int, tokens: Collection[str]
) -> dict[str, RecipientSession]:
    """Return the session that holds each device token, by token; closed ones hold none.

    Where nobody has proven that a token is theirs, it is the newest of those who claim it.
    """
    found: dict[str, RecipientSession] = {}
    for row in _rows(connection, app, tokens, is_by_token=True):
        holder = RecipientSession._make(row)
        found.setdefault(holder.token, holder)
    return found


def _rows(
    connection: Quick, app: int, wanted: Collection[str], *, is_by_token: bool = False
) -> Any:
    driver = driver_of(connection)
    if driver is not None:
        # SQLite gives up the interpreter for each row that it steps to; as one text it does once.
        statement = BY_TOKEN if is_by_token else BY_MAIL
        (told,) = driver.execute(statement, (app, json.dumps(list(wanted)))).fetchone()
        return from_json(told, cache_strings="all")
    assert isinstance(connection, Connection)  # noqa: S101 - it is no driver
    found = select(*_COLUMNS).join_from(users, sessions, sessions.c.user_id == users.c.id)
    if is_by_token:
        found = found.where(sessions.c.app_id == app, sessions.c.token.in_(wanted))
        return [
            *connection.execute(found.where(PROVEN).order_by(*NEWEST_FIRST)),
            *connection.execute(found.where(CLAIMED).order_by(*NEWEST_FIRST)),
        ]
    found = found.where(users.c.app_id == app, users.c.mail.in_(wanted))
    return connection.execute(found.order_by(*NEWEST_FIRST))
