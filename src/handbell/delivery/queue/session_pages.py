"""Read a broadcast's sessions in pages, as cheaply per session as possible.

Measured in instructions per session (docs/decisions/0009-where-the-time-of-a-push-goes.md): the
index costs little, but each column does, and each step that gives up the interpreter lock.
"""

from collections.abc import Collection, Iterable, Sequence
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
    literal,
    or_,
    select,
)

from handbell.delivery.delivery import GatewayName
from handbell.delivery.policy.parts import NO_ZONE, read_zones
from handbell.registry.conditions import DETAILS, FORM
from handbell.registry.session import Environment
from handbell.services.forms import service_name
from handbell.services.table import SERVICES
from handbell.storage.lists import each, in_list
from handbell.storage.statements import Page, Statement
from handbell.storage.tables import OF_OTHER_SERVICES, deliveries, sessions

ExtraColumns = frozenset[str]
"""Columns to read in addition to token and environment, some of :data:`EXTRA_COLUMNS`."""

EXTRA_COLUMNS: Final = ("user_id", "time_zone", "locale")


class Listener(NamedTuple):
    """One session of a broadcast's page; its first attempt, unless the shard was resumed.

    ``user_id``, ``time_zone`` and ``locale`` are read only where a rule or a language needs them,
    ``gateway`` and ``details`` only where an app has sessions of several push services.
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
    details: str | None = None

    @property
    def failures(self) -> int:
        """Return 0: what has failed before has a row of its own."""
        return 0


@dataclass(slots=True, kw_only=True)
class Shard:
    """A range of a broadcast that a worker has taken. ``position`` is how far it was handed out.

    ``zones`` are the time zones whose sessions it is for, as they are stored; None is for all.
    ``is_split`` says that others span the same sessions, ``failures`` how often in a row it failed.
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
    failures: int = 0


_PLAIN: Final = ("id", "token", "environment")
_MIXED: Final = ("id", "environment", "service")
# The condition is that of the index, literally.
_OTHERS: Final = Statement(
    select(literal(1))
    .select_from(sessions)
    .where(sessions.c.app_id == bindparam("app"), OF_OTHER_SERVICES)
    .limit(1)
)
_listener: Final = cast("Any", partial(tuple.__new__, Listener))


def read_page(
    connection: Connection,
    shard: Shard,
    limit: int,
    *,
    extra: ExtraColumns = frozenset(),
    is_development: bool = False,
    forms: Collection[str] | None = None,
    order: tuple[str, ...] = tuple(SERVICES),
) -> list[Listener]:
    """Return the next sessions of a shard, in the order of their ids; empty at its end.

    ``is_development`` makes sessions that were never reached start in that environment. What is not
    wanted by ``extra`` is None. ``forms`` are those in which the notification can be sent; None
    says that all sessions are Apple's. Of one device's sessions with several services, that of the
    first in ``order`` gets it; in place of a former notification, whichever got that.
    """
    page = _page(
        is_development=is_development,
        has_source=shard.source is not None,
        skips_sent=shard.is_resumed or shard.is_split,
        has_zones=shard.zones is not None,
        extra=extra,
        order=None if forms is None else order,
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
    if forms is not None:
        values["forms"] = list(forms)
        values["services"] = list({service_name(form) for form in forms})
    columns = page.columns(connection, **values)
    if not columns:
        return []
    return _listeners(columns, extra, is_repeat=shard.is_resumed, is_mixed=forms is not None)


def has_other_services(connection: Connection, app_row: int) -> bool:
    """Return whether an app has sessions of other push services than Apple's."""
    return bool(_OTHERS.rows(connection, app=app_row))


def _listeners(
    columns: Sequence[Iterable[Any]], extra: ExtraColumns, *, is_repeat: bool, is_mixed: bool
) -> list[Listener]:
    numbers, tokens, environments, *rest = columns
    gateways: Iterable[Any] = repeat("apns")
    details: Iterable[Any] = repeat(None)
    if is_mixed:
        gateways, details, *rest = rest
    named = dict(zip(_named(extra), rest, strict=True))
    user_ids, zones, locales = (named.get(name, repeat(None)) for name in EXTRA_COLUMNS)
    made = zip(
        numbers,
        tokens,
        environments,
        user_ids,
        zones,
        repeat(is_repeat),
        gateways,
        repeat(0),
        repeat(None),
        locales,
        repeat(None),
        details,
    )
    # A named tuple's own constructor takes several times as long, and there are millions.
    return list(map(_listener, made))


def _named(extra: ExtraColumns) -> list[str]:
    return [name for name in EXTRA_COLUMNS if name in extra]


@lru_cache
def _page(
    *,
    is_development: bool,
    has_source: bool,
    skips_sent: bool,
    has_zones: bool,
    extra: ExtraColumns,
    order: tuple[str, ...] | None,
) -> Page:
    environment = environment_of() if is_development else sessions.c.environment
    columns = [sessions.c.id, sessions.c.token, environment.label("environment")]
    if order is not None:
        columns += [sessions.c.service, DETAILS.label("details")]
    columns += [sessions.c[name] for name in _named(extra)]
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
    if skips_sent:
        statement = statement.where(
            ~exists().where(
                deliveries.c.notification_id == bindparam("notification"),
                deliveries.c.number == sessions.c.id,
            )
        )
    if order is None:
        # No id, token or environment holds a comma.
        return Page(statement, _PLAIN)
    carried = FORM.in_(select(each("forms").c.value))
    # Who got the former one gets this one, by the same service.
    among = select(each("services").c.value)
    once = [] if has_source else [is_first_of_device(order, among)]
    return Page(statement.where(carried, *once), _MIXED)


def environment_of() -> ColumnElement[str]:
    """Return where a notification in development goes: a session that was never reached, there."""
    environment = sessions.c.environment
    is_new = sessions.c.accepted_at.is_(None) & (environment == "production")
    return case((is_new, "development"), else_=environment)


def is_first_of_device(order: Sequence[str], among: Any) -> ColumnElement[bool]:
    """Return the condition that a session comes first of its device's with services ``among``."""
    other = sessions.alias()
    before = exists().where(
        other.c.user_id == sessions.c.user_id,
        other.c.device_id == sessions.c.device_id,
        other.c.app_id == sessions.c.app_id,
        other.c.status == "active",
        other.c.service.in_(among),
        _place(other.c.service, order) < _place(sessions.c.service, order),
    )
    return sessions.c.device_id.is_(None) | ~before


def _place(service: ColumnElement[str], order: Sequence[str]) -> ColumnElement[int]:
    places = [(service == name, place) for place, name in enumerate(order)]
    return case(*places, else_=len(order))


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
