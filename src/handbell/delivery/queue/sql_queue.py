"""The work in the database: what is due, and who takes it.

Work is taken under the name of a worker; see :mod:`~handbell.delivery.queue.workers` for what
becomes of it when the worker dies, and :mod:`~handbell.delivery.queue.shards` for the parts of a
broadcast.
"""

import json
from collections.abc import Callable, Collection, Sequence
from time import time
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    exists,
    func,
    or_,
    select,
    tuple_,
    update,
)

from handbell._chunks import chunks
from handbell.delivery.urgency import LEVELS
from handbell.storage.database import Database
from handbell.storage.tables import ADDRESSED, deliveries, notifications, sessions, shards, users

from .due import Due
from .session_pages import Also, Listener, Shard, read_page
from .shards import SHARDS


class Queue:
    """The work in one database. Every method is one transaction; ``now`` gives UNIX seconds."""

    def __init__(self, database: Database, *, now: Callable[[], float] = time) -> None:
        self._database = database
        self._now = now

    def look(
        self, *, above: int = 0, apart_from: Collection[int] = (), full: Collection[str] = ()
    ) -> tuple[int, bool]:
        """Return the highest level at which deliveries are due, 0 for none, and if a shard is.

        Of shards only those more urgent than ``above`` count, and not those of the notifications
        ``apart_from``. What belongs to the apps ``full`` does not count. Nothing is locked or
        taken.
        """
        now = self._milliseconds()
        with self._database.read() as connection:
            level = next(
                (
                    level
                    for level in LEVELS
                    if connection.scalar(
                        select(
                            exists().where(
                                deliveries.c.urgency == level,
                                deliveries.c.due_at <= now,
                                *_not_of(full, deliveries.c.notification_id),
                            )
                        )
                    )
                ),
                0,
            )
            free = and_(
                shards.c.worker_id.is_(None),
                shards.c.due_at <= now,
                shards.c.urgency > above,
                shards.c.notification_id.not_in(apart_from),
                *_not_of(full, shards.c.notification_id),
            )
            return level, bool(connection.scalar(select(exists().where(free))))

    def claim_due(
        self, worker: int, level: int, limit: int, full: Collection[str] = ()
    ) -> list[Due]:
        """Take up to ``limit`` deliveries of a level that are due, the longest due first.

        Those of the apps ``full`` stay.
        """
        with self._database.write() as connection:
            keys = connection.execute(
                select(deliveries.c.notification_id, deliveries.c.number)
                .where(
                    deliveries.c.urgency == level,
                    deliveries.c.due_at <= self._milliseconds(),
                    *_not_of(full, deliveries.c.notification_id),
                )
                .order_by(deliveries.c.due_at)
                .limit(limit)
                .with_for_update(skip_locked=True)
            ).all()
            if not keys:
                return []
            taken = _are(connection, [tuple(key) for key in keys])
            connection.execute(
                update(deliveries)
                .where(taken)
                .values(state="sending", worker_id=worker, due_at=None)
            )
            return [Due._make(row) for row in connection.execute(_DUE.where(taken))]

    def claim_shard(
        self,
        worker: int,
        above: int = 0,
        apart_from: Collection[int] = (),
        full: Collection[str] = (),
    ) -> Shard | None:
        """Take the most urgent shard that is due, under the conditions of :meth:`look`."""
        with self._database.write() as connection:
            found = connection.execute(
                SHARDS.where(
                    shards.c.worker_id.is_(None),
                    shards.c.due_at <= self._milliseconds(),
                    shards.c.urgency > above,
                    shards.c.notification_id.not_in(apart_from),
                    *_not_of(full, shards.c.notification_id),
                )
                .order_by(shards.c.urgency.desc(), shards.c.id)
                .limit(1)
                .with_for_update(skip_locked=True, of=shards)
            ).one_or_none()
            if found is None:
                return None
            connection.execute(
                update(shards).where(shards.c.id == found.id).values(worker_id=worker)
            )
        return Shard(
            id=found.id,
            notification=found.notification_id,
            app_row=found.app_row,
            source=found.source_id,
            urgency=found.urgency,
            position=found.position,
            last=found.last,
            is_resumed=found.is_resumed,
        )

    def page(
        self,
        shard: Shard,
        limit: int,
        *,
        also: Also = frozenset(),
        is_development: bool = False,
    ) -> list[Listener]:
        """Return the next sessions of a shard.

        See :func:`~handbell.delivery.queue.session_pages.read_page`.
        """
        with self._database.read() as connection:
            return read_page(connection, shard, limit, also=also, is_development=is_development)

    def unsettled(self, rows: Collection[int]) -> set[int]:
        """Return of which notifications something is on its way or due, by one statement.

        Of the others everybody was come to: each delivery has ended, or waits for its time.
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
        """Return how many deliveries wait, and when the first falls due (UNIX seconds)."""
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


_DUE: Final = (
    select(
        deliveries.c.notification_id,
        deliveries.c.number,
        deliveries.c.gateway,
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
    )
    .join_from(deliveries, sessions, sessions.c.id == deliveries.c.number, isouter=True)
    .outerjoin(users, users.c.id == sessions.c.user_id)
    .order_by(deliveries.c.notification_id, deliveries.c.number)
)


def _are(connection: Connection, keys: Sequence[tuple[int, int]]) -> ColumnElement[bool]:
    """Return the condition that a delivery is one of these, by notification and number."""
    key = tuple_(deliveries.c.notification_id, deliveries.c.number)
    if connection.dialect.name != "sqlite":
        return key.in_(keys)
    # One value instead of thousands, which would each be bound by the interpreter.
    each = func.json_each(json.dumps(keys)).table_valued("value")
    return key.in_(
        select(func.json_extract(each.c.value, "$[0]"), func.json_extract(each.c.value, "$[1]"))
    )


def _not_of(app_ids: Collection[str], notification: Any) -> list[Any]:
    """Return the condition that a notification is of none of these apps; none for no apps."""
    if not app_ids:
        return []
    its = notifications.alias()
    return [~exists().where(its.c.id == notification, its.c.app.in_(app_ids))]
