"""Due work of the rows, as messages for the broker; and work that lost its message.

What was accepted is published when it is accepted, what waits when it falls due. A row says nothing
about its message. But messages of one app and level are taken in the order of their writing: work
that is due for longer than the oldest of them has no message any more, or never had one.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, Connection, and_, bindparam, func, select, update

from handbell.storage.database import Database
from handbell.storage.lists import each, rows_of
from handbell.storage.statements import Statement
from handbell.storage.tables import deliveries, notifications, shards

from .work_messages import Kind, WorkMessage, messages_of

PATIENCE_SECONDS: Final = 5.0
"""How long work may be due and untaken before its message is looked for."""

LATE_SECONDS: Final = 0.3
"""How long work that waited may be due before it is published: a delayed message comes first."""

MOST_ROWS: Final = 5000


class Overdue(NamedTuple):
    """Work of one app and level that should have been taken: since when the longest is due."""

    kind: Kind
    level: int
    app: str
    since: int

    def has_no_message(self, written_at: int | None) -> bool:
        """Return whether its message is gone, by when the oldest one was written (milliseconds)."""
        return written_at is None or self.since < written_at - PATIENCE_SECONDS * 1000


class Unpublished:
    """Reads due rows and writes them as messages. Every method is one transaction.

    ``now`` gives UNIX seconds, by the clock of the database.
    """

    def __init__(self, database: Database, *, now: Callable[[], float]) -> None:
        self._database = database
        self._now = now

    def of(self, rows: Collection[int]) -> list[WorkMessage]:
        """Return messages for what is due of notifications that were just stored."""
        at = self._milliseconds()
        with self._database.read() as connection:
            due = _DUE_OF.rows(connection, rows=[*rows], now=at)
            parts = _SHARDS_OF.rows(connection, rows=[*rows], now=at)
        return [*_deliveries(due, at), *_shards(parts, at)]

    def fallen_due(self) -> list[WorkMessage]:
        """Return messages for what waited and is due by now, and note that it waits no more."""
        at = self._milliseconds()
        by = at - int(LATE_SECONDS * 1000)
        with self._database.write() as connection:
            waited = deliveries.c.state == "held", deliveries.c.due_at <= by
            due = _take_up(connection, waited, at)
            rested = shards.c.reason.is_not(None), shards.c.due_at <= by
            parts = _take_up_shards(connection, rested, at)
        return [*_deliveries(due, at), *_shards(parts, at)]

    def released(self) -> list[WorkMessage]:
        """Return messages for what dead workers had, once it was released."""
        at = self._milliseconds()
        with self._database.write() as connection:
            repeats = deliveries.c.is_repeat, deliveries.c.due_at <= at
            due = _take_up(connection, repeats, at)
            parts = _take_up_shards(connection, (shards.c.is_resumed, shards.c.due_at <= at), at)
        return [*_deliveries(due, at), *_shards(parts, at)]

    def overdue(self) -> list[Overdue]:
        """Return whose work is due for some time and was not taken."""
        by = self._milliseconds() - int(PATIENCE_SECONDS * 1000)
        with self._database.read() as connection:
            due = connection.execute(
                select(notifications.c.app, deliveries.c.urgency, func.min(deliveries.c.due_at))
                .join_from(deliveries, notifications, _IS_ITS)
                .where(deliveries.c.due_at <= by, deliveries.c.worker_id.is_(None))
                .group_by(notifications.c.app, deliveries.c.urgency)
            ).all()
            parts = connection.execute(
                select(notifications.c.app, shards.c.urgency, func.min(shards.c.due_at))
                .join_from(shards, notifications, _IS_OF)
                .where(shards.c.due_at <= by, shards.c.worker_id.is_(None))
                .group_by(notifications.c.app, shards.c.urgency)
            ).all()
        return [
            *(Overdue("due", level, app, since) for app, level, since in due),
            *(Overdue("shards", level, app, since) for app, level, since in parts),
        ]

    def take_up(self, overdue: Overdue, before: int | None) -> list[WorkMessage]:
        """Return messages for work that has none: all that is due before an instant.

        ``before`` is when the oldest message of its app and level was written, in UNIX
        milliseconds; None where there is none. It counts as due from now on.
        """
        at = self._milliseconds()
        by = at if before is None else before - int(PATIENCE_SECONDS * 1000)
        where = _free_work(overdue, by)
        with self._database.write() as connection:
            if overdue.kind == "due":
                return [*_deliveries(_take_up(connection, where, at), at)]
            return [*_shards(_take_up_shards(connection, where, at), at)]

    def count(self, lost: Iterable[tuple[Overdue, int | None]]) -> tuple[int, int | None]:
        """Return how much work of these has no message, and since when the oldest of it is due.

        Each comes with when its oldest message was written, None where there is none. What fell due
        within the last seconds does not count.
        """
        latest, number, oldest = self._milliseconds(), 0, []
        with self._database.read() as connection:
            for one, written_at in lost:
                before = latest if written_at is None else written_at
                where = _free_work(one, before - int(PATIENCE_SECONDS * 1000))
                at = (deliveries if one.kind == "due" else shards).c.due_at
                found, first = connection.execute(
                    select(func.count(), func.min(at)).where(*where)
                ).one()
                number += found
                oldest += [first] if found else []
        return number, min(oldest, default=None)

    def shards_of(self, worker: int) -> set[int]:
        """Return the shards that a worker has."""
        with self._database.read() as connection:
            return set(connection.scalars(select(shards.c.id).where(shards.c.worker_id == worker)))

    def free_shards(self, rows: Collection[int]) -> set[int]:
        """Return those of some shards that are due and that nobody has."""
        with self._database.read() as connection:
            return set(
                connection.scalars(
                    select(shards.c.id).where(
                        shards.c.id.in_(rows),
                        shards.c.worker_id.is_(None),
                        shards.c.due_at <= self._milliseconds(),
                    )
                )
            )

    def _milliseconds(self) -> int:
        return int(self._now() * 1000)


_IS_ITS: Final = deliveries.c.notification_id == notifications.c.id
_IS_OF: Final = shards.c.notification_id == notifications.c.id
_WANTED: Final = each("rows", BigInteger)
_KEYS: Final = rows_of("keys", notification=BigInteger, number=BigInteger)
_IS_KEY: Final = and_(
    deliveries.c.notification_id == _KEYS.c.notification, deliveries.c.number == _KEYS.c.number
)
_DELIVERY: Final = (
    notifications.c.app,
    deliveries.c.urgency,
    deliveries.c.notification_id,
    deliveries.c.number,
)
_DUE_OF: Final = Statement(
    select(*_DELIVERY)
    .join_from(_WANTED, deliveries, deliveries.c.notification_id == _WANTED.c.value)
    .join(notifications, _IS_ITS)
    .where(deliveries.c.worker_id.is_(None), deliveries.c.due_at <= bindparam("now"))
    .order_by(notifications.c.app, deliveries.c.urgency)
)
_SHARDS_OF: Final = Statement(
    select(notifications.c.app, shards.c.urgency, shards.c.id)
    .join_from(_WANTED, shards, shards.c.notification_id == _WANTED.c.value)
    .join(notifications, _IS_OF)
    .where(shards.c.worker_id.is_(None), shards.c.due_at <= bindparam("now"))
    .order_by(shards.c.id)
)
_KEYS_OF: Final = Statement(
    select(*_DELIVERY)
    .join_from(_KEYS, deliveries, _IS_KEY)
    .join(notifications, _IS_ITS)
    .order_by(notifications.c.app, deliveries.c.urgency)
)
_TAKE_UP: Final = Statement(
    update(deliveries).where(_IS_KEY).values(state="queued", due_at=bindparam("at"))
)


def _free_work(overdue: Overdue, by: int) -> tuple[Any, ...]:
    """Return what holds of an app's work of one kind and level that is due and that nobody has."""
    table = deliveries if overdue.kind == "due" else shards
    return (
        table.c.due_at <= by,
        table.c.urgency == overdue.level,
        table.c.worker_id.is_(None),
        table.c.notification_id.in_(
            select(notifications.c.id).where(notifications.c.app == overdue.app)
        ),
    )


def _take_up(connection: Connection, where: Iterable[Any], at: int) -> Sequence[Any]:
    """Let deliveries that nobody has be due from now on, and return them."""
    found = connection.execute(
        select(deliveries.c.notification_id, deliveries.c.number)
        .where(*where, deliveries.c.worker_id.is_(None))
        .limit(MOST_ROWS)
        .with_for_update(skip_locked=True)
    ).all()
    if not found:
        return []
    keys = [tuple(key) for key in found]
    _TAKE_UP.run(connection, keys=keys, at=at)
    return _KEYS_OF.rows(connection, keys=keys)


def _take_up_shards(connection: Connection, where: Iterable[Any], at: int) -> Sequence[Any]:
    """Let shards that nobody has be due from now on, and return them."""
    found = connection.execute(
        select(notifications.c.app, shards.c.urgency, shards.c.id)
        .join_from(shards, notifications, _IS_OF)
        .where(*where, shards.c.worker_id.is_(None))
        .limit(MOST_ROWS)
        .with_for_update(skip_locked=True, of=shards)
    ).all()
    if found:
        mine = shards.c.id.in_([row.id for row in found])
        connection.execute(update(shards).where(mine).values(due_at=at, reason=None))
    return found


def _deliveries(found: Iterable[Any], at: int) -> Iterator[WorkMessage]:
    """Yield messages for rows of app, level, notification and number, sorted by the first two."""
    for (app, level), rows in groupby(found, key=itemgetter(0, 1)):
        yield from messages_of(app, level, at, [(row[2], row[3]) for row in rows])


def _shards(found: Iterable[Any], at: int) -> Iterator[WorkMessage]:
    for app, level, row in found:
        yield WorkMessage(app=app, level=level, at=at, shard=row)
