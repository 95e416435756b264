"""Look up the sessions of many mail addresses in one query."""

import json
from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

from pydantic_core import from_json
from sqlalchemy import Connection, select

from handbell.storage.database import Quick, driver_of
from handbell.storage.tables import sessions, users


class Addressee(NamedTuple):
    """A session as a send needs it, whatever its status; created thousands of times a second."""

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

_DEVICES: Final = """
    SELECT json_array(
        json_group_array(wanted.key),
        json_group_array(sessions.id),
        json_group_array(sessions.environment)
    )
    FROM json_each(?2) AS wanted
    CROSS JOIN users ON users.app_id = ?1 AND users.mail = wanted.value
    CROSS JOIN sessions ON sessions.user_id = users.id AND sessions.status = 'active'
"""


class Devices(NamedTuple):
    """The active sessions of many people, column by column.

    ``places`` are the positions of their users in the request. ``without`` has the mails without
    an active session, with their other sessions.
    """

    places: list[int]
    numbers: list[int]
    environments: list[str]
    without: dict[str, list[Addressee]]


def read_devices(connection: Quick, app: int, mails: Sequence[str]) -> Devices:
    """Return the active sessions of an app's users, for each mail in order, repeats included.

    ``app`` is the app's row, ``mails`` are folded.
    """
    places, numbers, environments = _devices(connection, app, mails)
    missing = set(range(len(mails))).difference(places)
    without: dict[str, list[Addressee]] = {mails[place]: [] for place in missing}
    if without:
        without |= read_addressees(connection, app, without)
    return Devices(places, numbers, environments, without)


def _devices(
    connection: Quick, app: int, mails: Sequence[str]
) -> tuple[list[int], list[int], list[str]]:
    driver = driver_of(connection)
    if driver is not None:
        (rows,) = driver.execute(_DEVICES, (app, json.dumps(mails))).fetchone()
        places, numbers, environments = from_json(rows, cache_strings="all")
        return places, numbers, environments
    assert isinstance(connection, Connection)  # noqa: S101 - it is no driver
    statement = (
        select(users.c.mail, sessions.c.id, sessions.c.environment)
        .join_from(users, sessions, sessions.c.user_id == users.c.id)
        .where(users.c.app_id == app, users.c.mail.in_(set(mails)), sessions.c.status == "active")
    )
    held: dict[str, list[Any]] = {}
    for row in connection.execute(statement):
        held.setdefault(row.mail, []).append(row)
    found = [(place, row) for place, mail in enumerate(mails) for row in held.get(mail, ())]
    return (
        [place for place, _ in found],
        [row.id for _, row in found],
        [row.environment for _, row in found],
    )


def read_addressees(
    connection: Quick, app: int, mails: Collection[str]
) -> dict[str, list[Addressee]]:
    """Return the sessions of an app's users by mail, the newest registration first.

    ``app`` is the app's row, ``mails`` are folded. Mails without a session are left out.
    """
    found: dict[str, list[Addressee]] = {}
    for row in _rows(connection, app, mails):
        found.setdefault(row[0], []).append(Addressee._make(row))
    return found


def _rows(connection: Quick, app: int, mails: Collection[str]) -> Any:
    driver = driver_of(connection)
    if driver is not None:
        # SQLite releases the interpreter lock for each row; as one text it does so once.
        (rows,) = driver.execute(_ONE_STEP, (app, json.dumps(list(mails)))).fetchone()
        return json.loads(rows)
    assert isinstance(connection, Connection)  # noqa: S101 - it is no driver
    statement = (
        select(*_COLUMNS)
        .join_from(users, sessions, sessions.c.user_id == users.c.id)
        .where(users.c.app_id == app, users.c.mail.in_(mails))
        .order_by(sessions.c.registered_at.desc(), sessions.c.id.desc())
    )
    return connection.execute(statement)
