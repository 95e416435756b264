"""Reading a broadcast's sessions in pages, with as little work for each of millions as can be.

Measured in instructions per session (docs/decisions/0009-where-the-time-of-a-push-goes.md): the
index is not what costs, the columns are, and so is each step that gives up the interpreter.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import repeat
from typing import Any, Final, NamedTuple, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    bindparam,
    case,
    exists,
    func,
    or_,
    select,
)

from handbell.delivery.delivery import GatewayName
from handbell.delivery.policy.parts import NO_ZONE, read_zones
from handbell.registry.session import Environment
from handbell.storage.lists import each, in_list
from handbell.storage.statements import Page
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
    page = _page(
        is_development=is_development,
        has_source=shard.source is not None,
        passes_over=shard.is_resumed or shard.is_split,
        has_zones=shard.zones is not None,
        also=also,
    )
    values: dict[str, Any] = {
        "app": shard.app_row,
        "position": shard.position,
        "last": shard.last,
        "most": limit,
    }
    if shard.source is not None:
        values["source"] = shard.source
    if shard.is_resumed or shard.is_split:
        values["notification"] = shard.notification
    if shard.zones is not None:
        values["zones"] = read_zones(shard.zones)
    columns = page.columns(connection, **values)
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


@lru_cache
def _page(
    *, is_development: bool, has_source: bool, passes_over: bool, has_zones: bool, also: Also
) -> Page:
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
        statement = statement.where(_zone().in_(select(each("zones").c.value)))
    if passes_over:
        statement = statement.where(
            ~exists().where(
                deliveries.c.notification_id == bindparam("notification"),
                deliveries.c.number == sessions.c.id,
            )
        )
    # No id, token or environment holds a comma.
    return Page(statement, _PLAIN)


def is_in_zones(zones: str) -> ColumnElement[bool]:
    """Return the condition that a session is of a shard's ``zones``, as they are stored."""
    return in_list(_zone(), read_zones(zones))


def _zone() -> ColumnElement[str]:
    return func.coalesce(sessions.c.time_zone, NO_ZONE)


def got(notification: Any) -> Any:
    """Return the condition that a session may have got a notification."""
    former = deliveries.alias()
    return exists().where(
        former.c.notification_id == notification,
        former.c.number == sessions.c.id,
        may_have_arrived(former),
    )


def may_have_arrived(of: FromClause) -> ColumnElement[bool]:
    """Return the condition that deliveries were accepted, or were sent without an answer."""
    return or_(of.c.state == "sent", of.c.is_repeat)
