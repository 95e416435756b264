"""Who is behind many mail addresses, as a send needs to know it: one step of the database."""

import json
from collections.abc import Collection
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, select

from handbell.tables import sessions, users


class Addressee(NamedTuple):
    """What a send needs of a session, whatever its status: there may be thousands a second."""

    mail: str
    id: int
    token: str
    environment: str
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
_ONE_STEP: Final = f"""
    SELECT json_group_array(json(told)) FROM (
        SELECT json_array({", ".join(map(str, _COLUMNS))}) AS told
        FROM json_each(?2) AS wanted
        CROSS JOIN users ON users.app_id = ?1 AND users.mail = wanted.value
        CROSS JOIN sessions ON sessions.user_id = users.id
        ORDER BY sessions.registered_at DESC, sessions.id DESC
    )
"""  # noqa: S608 - names of columns only


def read_addressees(
    connection: Connection, app: int, mails: Collection[str]
) -> dict[str, list[Addressee]]:
    """Return the sessions of an app's users by mail, the newest registration first.

    ``app`` is the app's row, ``mails`` are folded. Who has no session is left out.
    """
    found: dict[str, list[Addressee]] = {}
    for row in _rows(connection, app, mails):
        found.setdefault(row[0], []).append(Addressee._make(row))
    return found


def _rows(connection: Connection, app: int, mails: Collection[str]) -> Any:
    if connection.dialect.name == "sqlite":
        # SQLite gives up the interpreter for each row that it steps to; as one text it does once.
        asked = (app, json.dumps(list(mails)))
        return json.loads(connection.exec_driver_sql(_ONE_STEP, asked).scalar_one())
    statement = (
        select(*_COLUMNS)
        .join_from(users, sessions, sessions.c.user_id == users.c.id)
        .where(users.c.app_id == app, users.c.mail.in_(mails))
        .order_by(sessions.c.registered_at.desc(), sessions.c.id.desc())
    )
    return connection.execute(statement)
