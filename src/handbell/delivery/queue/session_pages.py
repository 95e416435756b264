"""Reading a broadcast's sessions in pages, with as little work for each of millions as can be.

Measured in instructions per session (docs/decisions/0009-where-the-time-of-a-push-goes.md): the
index is not what costs, the columns are, and so is each step that gives up the interpreter.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import repeat
from typing import Any, Final, NamedTuple, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    bindparam,
    case,
    exists,
    func,
    select,
)

from handbell.delivery.delivery import GatewayName
from handbell.registry.session import Environment
from handbell.storage.tables import deliveries, sessions

Also = frozenset[str]
"""Which of the columns beside token and environment are wanted: those of :data:`ALSO`."""

ALSO: Final = ("user_id", "time_zone", "locale")


class Listener(NamedTuple):
    """One session of a broadcast's page; its first attempt, unless the shard was resumed.

    ``user_id``, ``time_zone`` and ``locale`` are read only where something goes by them.
    """

    number: int
    token: str
    environment: Environment
    user_id: int | None
    time_zone: str | None
    is_repeat: bool
    gateway: GatewayName = "apns"
    attempts: int = 0
    mail: str | None = None
    locale: str | None = None
    begun_at: int | None = None


@dataclass(slots=True, kw_only=True)
class Shard:
    """A range of a broadcast that a worker has taken. ``position`` is how far it was handed out.

    ``zones`` are the time zones whose sessions it is for, as they are stored; None is for all.
    ``is_split`` says that others span the same sessions.
    """

    id: int
    notification: int
    app_row: int
    source: int | None
    urgency: int
    position: int
    last: int
    is_resumed: bool
    zones: str | None = None
    is_split: bool = False


_PLAIN: Final = ("id", "token", "environment")
_listener: Final = cast("Any", partial(tuple.__new__, Listener))


def read_page(
    connection: Connection,
    shard: Shard,
    limit: int,
    *,
    also: Also = frozenset(),
    is_development: bool = False,
) -> list[Listener]:
    """Return the next sessions of a shard, in the order of their ids; empty at its end.

    ``is_development`` makes sessions that were never reached start in that environment. What is not
    wanted by ``also`` is None.
    """
    is_sqlite = connection.dialect.name == "sqlite"
    statement = _statement(
        is_columnar=is_sqlite,
        is_development=is_development,
        has_source=shard.source is not None,
        passes_over=shard.is_resumed or shard.is_split,
        has_zones=shard.zones is not None,
        also=also,
    )
    values = {
        "app": shard.app_row,
        "position": shard.position,
        "last": shard.last,
        "most": limit,
        "source": shard.source,
        "notification": shard.notification,
        "zones": zone_values(connection, shard.zones),
    }
    found = connection.execute(statement, values)
    columns = _read_texts(found.one()) if is_sqlite else list(zip(*found.all(), strict=True))
    if not columns:
        return []
    return _listeners(columns, also, is_repeat=shard.is_resumed)


def _listeners(columns: Sequence[Iterable[Any]], also: Also, *, is_repeat: bool) -> list[Listener]:
    numbers, tokens, environments, *rest = columns
    named = dict(zip(_named(also), rest, strict=True))
    user_ids, zones, locales = (named.get(name, repeat(None)) for name in ALSO)
    made = zip(
        numbers,
        tokens,
        environments,
        user_ids,
        zones,
        repeat(is_repeat),
        repeat("apns"),
        repeat(0),
        repeat(None),
        locales,
        repeat(None),
    )
    # A named tuple's own constructor takes several times as long, and there are millions.
    return list(map(_listener, made))


def _named(also: Also) -> list[str]:
    return [name for name in ALSO if name in also]


def _read_texts(row: Sequence[Any]) -> list[Iterable[Any]]:
    """Return the columns of a page that was read as one text for each."""
    numbers, tokens, environments, *rest = row
    if numbers is None:
        return []
    return [
        map(int, numbers.split(",")),
        tokens.split(","),
        environments.split(","),
        *map(json.loads, rest),
    ]


@lru_cache
def _statement(
    *,
    is_columnar: bool,
    is_development: bool,
    has_source: bool,
    passes_over: bool,
    has_zones: bool,
    also: Also,
) -> Select[Any]:
    environment: Any = sessions.c.environment
    if is_development:
        is_new = sessions.c.accepted_at.is_(None) & (environment == "production")
        environment = case((is_new, "development"), else_=environment)
    columns = [sessions.c.id, sessions.c.token, environment.label("environment")]
    columns += [sessions.c[name] for name in _named(also)]
    statement = (
        select(*columns)
        .where(
            sessions.c.app_id == bindparam("app"),
            sessions.c.status == "active",
            sessions.c.id > bindparam("position"),
            sessions.c.id <= bindparam("last"),
        )
        .order_by(sessions.c.id)
        .limit(bindparam("most"))
    )
    if has_source:
        statement = statement.where(got(bindparam("source")))
    if has_zones:
        statement = statement.where(is_in_zones(is_sqlite=is_columnar))
    if passes_over:
        statement = statement.where(
            ~exists().where(
                deliveries.c.notification_id == bindparam("notification"),
                deliveries.c.number == sessions.c.id,
            )
        )
    return _by_column(statement, also) if is_columnar else statement


def is_in_zones(*, is_sqlite: bool) -> ColumnElement[bool]:
    """Return the condition that a session is of a shard's ``zones``, see :func:`zone_values`."""
    zone = func.coalesce(sessions.c.time_zone, "")
    if is_sqlite:
        each = func.json_each(bindparam("zones")).table_valued("value")
        return zone.in_(select(each.c.value))
    return zone.in_(bindparam("zones", expanding=True))


def zone_values(connection: Connection, zones: str | None) -> Any:
    """Return what :func:`is_in_zones` is bound to."""
    is_sqlite = connection.dialect.name == "sqlite"
    return zones if is_sqlite or zones is None else json.loads(zones)


def _by_column(statement: Select[Any], also: Also) -> Select[Any]:
    """Return the statement that gives one text for each column.

    SQLite gives up the interpreter for each row that it steps to, and the event loop is busy with
    it: a page is a single step. Ids, tokens and environments hold no comma.
    """
    page = statement.subquery()
    plain = [func.group_concat(page.c[name]) for name in _PLAIN]
    return select(*plain, *(func.json_group_array(page.c[name]) for name in _named(also)))


def got(notification: Any) -> Any:
    """Return the condition that a session was sent a notification."""
    former = deliveries.alias()
    return exists().where(
        former.c.notification_id == notification,
        former.c.number == sessions.c.id,
        former.c.state == "sent",
    )
