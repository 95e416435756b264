"""The work queue in the database: due work, and the worker that has leased it.

Work is leased under the id of a worker; :mod:`~handbell.delivery.queue.workers` releases it
when the worker dies, and :mod:`~handbell.delivery.queue.shards` has the parts of a
broadcast.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache, partial
from time import time
from typing import Any, Final, NamedTuple, cast

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    case,
    exists,
    func,
    insert,
    null,
    or_,
    select,
    update,
)

from handbell._chunks import chunks
from handbell.delivery.addresses import read_stored
from handbell.delivery.policy.parts import ShardPart
from handbell.delivery.urgency import LEVELS
from handbell.registry.conditions import DETAILS
from handbell.services.table import SERVICES
from handbell.storage.database import Database
from handbell.storage.lists import rows_of
from handbell.storage.statements import Statement
from handbell.storage.tables import ADDRESSED, deliveries, notifications, sessions, shards, users

from .due import Due
from .open_since import OpenSince
from .session_pages import ExtraColumns, Listener, Shard, has_other_services, read_page
from .shards import SHARDS, SIZE, SMALL, break_up, read_shard, read_zones_of

MOST_SHARDS: Final = 200
"""The maximum number of shards of different notifications that are taken at once."""


class PageRequest(NamedTuple):
    """A request for sessions of a shard.

    ``carried`` names the forms in which the notification can be sent; it is asked where the app has
    sessions of several push services, and so is the ``order`` of these for a device that has
    several.
    """

    shard: Shard
    limit: int
    extra: ExtraColumns
    is_development: bool
    carried: Callable[[], Collection[str]]
    order: tuple[str, ...] = tuple(SERVICES)


class Queue:
    """The work in one database. Every method is one transaction; ``now`` gives UNIX seconds."""

    def __init__(self, database: Database, *, now: Callable[[], float] = time) -> None:
        self._database = database
        self._now = now
        self._open_since = OpenSince(database)
        self._mixed: set[int] = set()

    def look(
        self, *, above: int = 0, apart_from: Collection[int] = (), full: Collection[str] = ()
    ) -> tuple[int, bool]:
        """Return the highest level at which deliveries are due, 0 for none, and whether a shard is.

        Only shards more urgent than ``above`` count, and not those of the notifications
        ``apart_from``. Work of the apps ``full`` does not count. Nothing is locked or
        taken.
        """
        since = self._open_since.row()
        asked: dict[str, Any] = {
            "now": self._milliseconds(),
            "above": above,
            "apart": list(apart_from),
            **({"full": list(full)} if full else {}),
            **({} if since is None else {"since": since}),
        }
        statement = _look(has_full=bool(full), has_since=since is not None)
        with self._database.read() as connection:
            *due, is_shard = connection.execute(statement, asked).one()
        level = next((level for level, is_due in zip(LEVELS, due, strict=True) if is_due), 0)
        return level, bool(is_shard)

    def claim_due(
        self, worker: int, level: int, limit: int, full: Collection[str] = ()
    ) -> list[Due]:
        """Take up to ``limit`` deliveries of a level that are due, the longest due first.

        Those of the apps ``full`` are left.
        """
        since = self._open_since.row()
        with self._database.write() as connection:
            keys = connection.execute(
                select(deliveries.c.notification_id, deliveries.c.number)
                .where(
                    deliveries.c.urgency == level,
                    deliveries.c.due_at <= self._milliseconds(),
                    *_from(since),
                    *_not_of(full, deliveries.c.notification_id),
                )
                .order_by(deliveries.c.due_at)
                .limit(limit)
                .with_for_update(skip_locked=True)
            ).all()
            return _take(connection, worker, keys)

    def claim_these(self, worker: int, keys: Collection[tuple[int, int]]) -> list[Due]:
        """Take those of some deliveries that are due and that nobody has."""
        with self._database.write() as connection:
            asked = {"keys": [*keys], "now": self._milliseconds()}
            return _take(connection, worker, _FREE.rows(connection, **asked))

    def claim_shards(
        self,
        worker: int,
        above: int = 0,
        apart_from: Collection[int] = (),
        full: Collection[str] = (),
        *,
        only: Collection[int] | None = None,
    ) -> list[Shard]:
        """Take the most urgent shards that are due, under the conditions of :meth:`look`.

        That is one, or as many small ones as make up a page: at most one of each notification, so
        that a large broadcast is spread over all workers. ``only`` are the rows to choose from.
        """
        free = _free(self._milliseconds(), above, apart_from, full)
        if only is not None:
            free = (*free, shards.c.id.in_(only))
        with self._database.write() as connection:
            firsts = (
                select(func.min(shards.c.id))
                .where(*free)
                .group_by(shards.c.notification_id, shards.c.urgency)
                .order_by(shards.c.urgency.desc(), func.min(shards.c.id))
                .limit(MOST_SHARDS)
            )
            found = connection.execute(
                SHARDS.add_columns(SIZE)
                .where(shards.c.id.in_(firsts), shards.c.worker_id.is_(None))
                .order_by(shards.c.urgency.desc(), shards.c.id)
                .with_for_update(skip_locked=True, of=shards)
            ).all()
            taken = _first_page_of(found)
            if taken:
                mine = shards.c.id.in_([row.id for row in taken])
                values = {"worker_id": worker, "reason": None}
                connection.execute(update(shards).where(mine).values(values))
        return [read_shard(row) for row in taken]

    def zones_of(self, shard: Shard) -> list[str]:
        """Return the time zones of the sessions that a shard has not reached."""
        with self._database.read() as connection:
            return read_zones_of(connection, shard)

    def divide(self, worker: int, shard: Shard, parts: Sequence[ShardPart]) -> bool:
        """End a shard where it was read to, and store parts of it for the rest.

        False, with nothing changed, if the worker no longer has it. A repeat for the same
        position changes nothing.
        """
        mine = (shards.c.id == shard.id, shards.c.worker_id == worker)
        rows = [
            {
                "notification_id": shard.notification,
                "source_id": shard.source,
                "urgency": shard.urgency,
                "position": shard.position,
                "last": shard.last,
                "due_at": int(part.due_at * 1000),
                "is_resumed": shard.is_resumed,
                "reason": part.reason,
                "zones": part.zones,
                "is_split": shard.is_split or len(parts) > 1,
            }
            for part in parts
        ]
        with self._database.write() as connection:
            ends = update(shards).where(*mine, shards.c.last > shard.position)
            if connection.execute(ends.values(last=shard.position)).rowcount:
                connection.execute(insert(shards), rows)
                return True
            return bool(connection.scalar(select(exists().where(*mine))))

    def break_up(self, worker: int, shard: Shard) -> bool:
        """End a shard where it was read to, and store single deliveries for the rest.

        False, with nothing changed, if the worker no longer has it.
        """
        mine = (shards.c.id == shard.id, shards.c.worker_id == worker)
        with self._database.write() as connection:
            if connection.scalar(select(shards.c.id).where(*mine).with_for_update()) is None:
                return False
            break_up(connection, shard, self._milliseconds())
            connection.execute(update(shards).where(*mine).values(last=shard.position))
        return True

    def page(
        self,
        shard: Shard,
        limit: int,
        *,
        extra: ExtraColumns = frozenset(),
        is_development: bool = False,
    ) -> list[Listener]:
        """Return the next sessions of a shard.

        See :func:`~handbell.delivery.queue.session_pages.read_page`.
        """
        (found,) = self.pages([PageRequest(shard, limit, extra, is_development, lambda: SERVICES)])
        return found

    def pages(self, asked: Iterable[PageRequest]) -> list[list[Listener]]:
        """Return the next sessions of several shards, in order."""
        with self._database.read() as connection:
            return [self._page(connection, one) for one in asked]

    def _page(self, connection: Connection, asked: PageRequest) -> list[Listener]:
        app = asked.shard.app_row
        read = partial(
            read_page,
            connection,
            asked.shard,
            asked.limit,
            extra=asked.extra,
            is_development=asked.is_development,
        )
        if not self.is_mixed(app):
            found = read()
            # Afterwards: whatever became another service's while it was read is seen.
            if not has_other_services(connection, app):
                return found
            self._mixed.add(app)
        return read(forms=asked.carried(), order=asked.order)

    def is_mixed(self, app_row: int) -> bool:
        """Return whether sessions of other services than Apple's were seen of an app."""
        return app_row in self._mixed

    def unsettled(self, rows: Collection[int]) -> set[int]:
        """Return which notifications have deliveries in flight or due, by one statement.

        The others are done for now: each delivery has ended, or waits for its time.
        """
        now = self._milliseconds()
        mine = deliveries.c.notification_id == notifications.c.id
        is_busy = or_(
            exists().where(shards.c.notification_id == notifications.c.id, shards.c.due_at <= now),
            exists().where(mine, deliveries.c.worker_id.is_not(None)),
            exists().where(mine, deliveries.c.due_at <= now, deliveries.c.state == "queued"),
        )
        with self._database.read() as connection:
            return {
                row
                for chunk in chunks(list(rows))
                for row in connection.scalars(
                    select(notifications.c.id).where(notifications.c.id.in_(chunk), is_busy)
                )
            }

    def depth(self) -> tuple[int, float | None]:
        """Return the number of waiting deliveries, and when the first falls due (UNIX seconds)."""
        with self._database.read() as connection:
            waiting = connection.scalar(
                select(func.count()).where(deliveries.c.due_at.is_not(None))
            )
            oldest = connection.scalar(
                select(func.min(deliveries.c.due_at)).where(deliveries.c.due_at.is_not(None))
            )
        return waiting or 0, None if oldest is None else oldest / 1000

    def _milliseconds(self) -> int:
        return int(self._now() * 1000)


# A join, since PostgreSQL looks up whatever is IN a list only where it knows how long that is.
_KEYS: Final = rows_of("keys", notification=BigInteger, number=BigInteger)
_IS_KEY: Final = and_(
    deliveries.c.notification_id == _KEYS.c.notification, deliveries.c.number == _KEYS.c.number
)
_TAKE: Final = Statement(
    update(deliveries)
    .where(_IS_KEY)
    .values(state="sending", worker_id=bindparam("worker"), due_at=null())
)
_DUE: Final = Statement(
    select(
        deliveries.c.notification_id,
        deliveries.c.number,
        # A session says itself which service it is of.
        func.coalesce(sessions.c.service, deliveries.c.gateway),
        func.coalesce(deliveries.c.address, sessions.c.token),
        deliveries.c.environment,
        deliveries.c.attempts,
        deliveries.c.is_repeat,
        users.c.mail,
        sessions.c.user_id,
        sessions.c.time_zone,
        case((deliveries.c.number < ADDRESSED, func.coalesce(sessions.c.status, "closed"))),
        sessions.c.locale,
        deliveries.c.begun_at,
        sessions.c.accepted_at.is_not(None),
        DETAILS,
        deliveries.c.failures,
    )
    .join_from(_KEYS, deliveries, _IS_KEY)
    .outerjoin(sessions, sessions.c.id == deliveries.c.number)
    .outerjoin(users, users.c.id == sessions.c.user_id)
    .order_by(deliveries.c.notification_id, deliveries.c.number)
)


def _due(row: Sequence[Any]) -> Due:
    due = Due._make(row)
    if due.number < ADDRESSED:
        return due
    token, details = read_stored(due.token)
    return due if details is None else due._replace(token=token, details=details)


_FREE: Final = Statement(
    select(deliveries.c.notification_id, deliveries.c.number)
    .join_from(_KEYS, deliveries, _IS_KEY)
    .where(deliveries.c.worker_id.is_(None), deliveries.c.due_at <= bindparam("now"))
    .with_for_update(of=deliveries)
)


def _take(connection: Connection, worker: int, keys: Sequence[Any]) -> list[Due]:
    """Write a worker's name into deliveries that this transaction has locked, and read them."""
    if not keys:
        return []
    taken = [tuple(key) for key in keys]
    _TAKE.run(connection, keys=taken, worker=worker)
    return [_due(row) for row in _DUE.rows(connection, keys=taken)]


def _first_page_of(found: Sequence[Row[Any]]) -> list[Row[Any]]:
    """Return the first of these shards, and as many of its urgency as fill a page with it."""
    taken: list[Row[Any]] = []
    size = 0
    for row in found:
        if taken and (row.urgency != taken[0].urgency or size + row.size > SMALL):
            break
        taken.append(row)
        size += row.size
    return taken


@lru_cache
def _look(*, has_full: bool, has_since: bool) -> Select[Any]:
    """Return the statement of :meth:`Queue.look`, built once: every iteration runs it."""
    now: Any = bindparam("now")
    full: Any = bindparam("full", expanding=True) if has_full else ()
    due = [
        exists().where(
            deliveries.c.urgency == level,
            deliveries.c.due_at <= now,
            *_from(bindparam("since") if has_since else None),
            *_not_of(full, deliveries.c.notification_id),
        )
        for level in LEVELS
    ]
    free = _free(now, bindparam("above"), bindparam("apart", expanding=True), full)
    asked: Any = select(*due, exists().where(*free))
    return cast("Select[Any]", asked)


def _free(now: Any, above: Any, apart_from: Any, full: Any) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions under which a shard may be taken; see :meth:`Queue.look`.

    Of shards that span the same sessions one is taken at a time: the next one skips the sessions
    with deliveries of the former one, once those are written.
    """
    other = shards.alias()
    is_taken = exists().where(
        other.c.notification_id == shards.c.notification_id,
        other.c.worker_id.is_not(None),
        other.c.position < shards.c.last,
        other.c.last > shards.c.position,
    )
    return (
        shards.c.worker_id.is_(None),
        shards.c.due_at <= now,
        shards.c.urgency > above,
        shards.c.notification_id.not_in(apart_from),
        or_(shards.c.is_split.is_(False), ~is_taken),
        *_not_of(full, shards.c.notification_id),
    )


def _from(row: Any) -> list[ColumnElement[bool]]:
    """Return the condition that a notification is of this row or a later one, none for None."""
    return [] if row is None else [deliveries.c.notification_id >= row]


def _not_of(app_ids: Any, notification: Any) -> list[Any]:
    """Return the condition that a notification is of none of these apps; none for no apps."""
    if isinstance(app_ids, Collection) and not app_ids:
        return []
    its = notifications.alias()
    return [~exists().where(its.c.id == notification, its.c.app.in_(app_ids))]
