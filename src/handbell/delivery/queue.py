"""The work in the database: what is due, who is on it, and what became of it.

Work is taken under the name of a worker, whose heart beats in the table ``workers``. When it stops,
what the worker had taken comes back: a delivery that may have been sent already goes out again
under the same apns-id and with a collapse id, so that the phone shows it once.

A broadcast is no rows but shards, ranges of session ids. A row is written only when a session's
delivery ends or has to wait, so a million sessions cost a million short writes and no reads.
"""

import json
import os
import secrets
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from time import time
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import (
    Connection,
    Row,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from handbell.database import Database
from handbell.tables import (
    ADDRESSED,
    apps,
    deliveries,
    notifications,
    sessions,
    shards,
    users,
    workers,
)

from .delivery import GatewayName
from .pages import Also, Listener, Shard, got, read_page
from .rules import AppRules, Stop
from .tallies import add_batch

URGENT: Final = 9
NORMAL: Final = 5
BULK: Final = 1
LEVELS: Final = (URGENT, NORMAL, BULK)
"""Whose turn it is: work of a higher level goes before all work of a lower one."""

LEASE_SECONDS: Final = 15.0
"""A worker whose heart has not beaten for so long is dead, and what it had taken comes back."""

SHARD_SESSIONS: Final = 50_000
"""How many session ids one shard spans."""

_HURRIED_AT_ONCE: Final = 5000
_WORKER_ID_BITS: Final = 53
_NAMED_AT_ONCE: Final = 10_000

T = TypeVar("T")


class Due(NamedTuple):
    """One delivery that is due, as a worker needs it.

    ``status`` is the session's, ``closed`` for one that is gone; None where no session holds the
    address, or where it was just seen to be active. ``locale`` chooses the language. ``begun_at``
    is from when its retries count, in UNIX milliseconds; None before its first attempt.
    """

    notification: int
    number: int
    gateway: GatewayName
    token: str
    environment: str
    attempts: int
    is_repeat: bool
    mail: str | None
    user_id: int | None
    time_zone: str | None
    status: str | None = None
    locale: str | None = None
    begun_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What a delivery's row is to say from now on. Instants are UNIX milliseconds.

    ``gateway``, ``environment`` and ``urgency`` are for a row that is not there yet.
    """

    notification_id: int
    number: int
    gateway: str
    environment: str
    urgency: int
    state: str
    attempts: int
    reason: str | None = None
    detail: str | None = None
    status: int | None = None
    unique_id: str | None = None
    due_at: int | None = None
    is_repeat: bool = False
    sent_at: int | None = None
    finished_at: int | None = None
    begun_at: int | None = None


@dataclass(slots=True)
class Batch:
    """What is written in one transaction.

    ``sent`` holds, by notification row, environment and urgency, the numbers of a broadcast's first
    attempts that were accepted; they are dated when they are written. Session changes are by
    session id. ``resting_shards`` are given back until an instant (UNIX milliseconds).
    """

    sent: dict[tuple[int, str, int], list[int]] = field(default_factory=dict)
    endings: list[Ending] = field(default_factory=list)
    accepted_sessions: list[int] = field(default_factory=list)
    moved: dict[int, str] = field(default_factory=dict)
    gone: dict[int, tuple[int | None, str]] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    positions: dict[int, int] = field(default_factory=dict)
    resting_shards: dict[int, int] = field(default_factory=dict)
    finished_shards: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in Batch.__dataclass_fields__)


_ENDING_FIELDS: Final = tuple(Ending.__dataclass_fields__)
_KEY_FIELDS: Final = frozenset({"notification_id", "number", "gateway", "environment", "urgency"})
_SENT_COLUMNS: Final = (
    "notification_id",
    "number",
    "gateway",
    "environment",
    "state",
    "status",
    "attempts",
    "urgency",
    "sent_at",
    "finished_at",
)
_INSERT_SENT: Final = f"""
    INSERT INTO deliveries ({", ".join(_SENT_COLUMNS)}, is_repeat)
    SELECT ?1, value, 'apns', ?2, 'sent', 200, 1, ?3, ?4, ?4, false FROM json_each(?5) WHERE true
    ON CONFLICT (notification_id, number) DO UPDATE SET
        environment = excluded.environment, state = 'sent', status = 200, reason = NULL,
        detail = NULL,
        attempts = attempts + 1, due_at = NULL, worker_id = NULL,
        sent_at = excluded.sent_at, finished_at = excluded.finished_at
"""  # noqa: S608 - names of columns only


class Queue:
    """The work in one database. Every method is one transaction; ``now`` gives UNIX seconds."""

    def __init__(self, database: Database, *, now: Callable[[], float] = time) -> None:
        self._database = database
        self._now = now
        self._host = socket.gethostname()
        self._is_sqlite = database.path is not None

    # Workers

    def enlist(self) -> int:
        """Enter a worker of this process and return its id."""
        # Not the next number: one that was taken for dead must not find another under its id.
        values = {
            "id": secrets.randbits(_WORKER_ID_BITS),
            "host": self._host,
            "pid": os.getpid(),
            "beat_at": self._milliseconds(),
        }
        statement = insert(workers).values(values).returning(workers.c.id)
        with self._database.write() as connection:
            return int(connection.execute(statement).scalar_one())

    def beat(self, worker: int) -> bool:
        """Say that the worker lives. False when it was taken for dead and its work given back."""
        statement = update(workers).where(workers.c.id == worker)
        with self._database.write() as connection:
            return bool(connection.execute(statement.values(beat_at=self._milliseconds())).rowcount)

    def retire(self, worker: int) -> None:
        """Give back what the worker still holds, and strike it off."""
        with self._database.write() as connection:
            self._give_back(connection, [worker])

    def reclaim(self) -> int:
        """Give back what dead workers held and return how many workers that were."""
        with self._database.read() as connection:
            if not self._dead(connection):
                return 0
        with self._database.write() as connection:
            dead = self._dead(connection)
            self._give_back(connection, dead)
        return len(dead)

    def _dead(self, connection: Connection) -> list[int]:
        """Return the workers that are dead, and those that hold work and are not even listed."""
        listed = connection.execute(select(workers)).all()
        known = select(workers.c.id)
        strays = select(deliveries.c.worker_id).where(
            deliveries.c.worker_id.is_not(None), deliveries.c.worker_id.not_in(known)
        )
        more = select(shards.c.worker_id).where(
            shards.c.worker_id.is_not(None), shards.c.worker_id.not_in(known)
        )
        dead = {row.id for row in listed if self._is_dead(row)}
        return [*dead, *connection.scalars(strays.union(more))]

    def live_workers(self) -> int:
        """Return how many workers take work now, of all processes."""
        with self._database.read() as connection:
            return sum(not self._is_dead(row) for row in connection.execute(select(workers)))

    def _is_dead(self, row: Row[Any]) -> bool:
        if row.beat_at < self._milliseconds() - LEASE_SECONDS * 1000:
            return True
        return row.host == self._host and not _is_running(row.pid)

    def _give_back(self, connection: Connection, dead: Sequence[int]) -> None:
        connection.execute(
            update(deliveries)
            .where(deliveries.c.worker_id.in_(dead))
            .values(state="queued", worker_id=None, is_repeat=True, due_at=self._milliseconds())
        )
        connection.execute(
            update(shards)
            .where(shards.c.worker_id.in_(dead))
            .values(worker_id=None, is_resumed=True)
        )
        connection.execute(delete(workers).where(workers.c.id.in_(dead)))

    # What is due

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
            taken = tuple_(deliveries.c.notification_id, deliveries.c.number).in_(
                [tuple(key) for key in keys]
            )
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
                select(shards, apps.c.id.label("app_row"))
                .join_from(shards, notifications, shards.c.notification_id == notifications.c.id)
                .join(apps, apps.c.team_id + "." + apps.c.bundle_id == notifications.c.app)
                .where(
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
        """Return the next sessions of a shard; see :func:`~handbell.delivery.pages.read_page`."""
        with self._database.read() as connection:
            return read_page(connection, shard, limit, also=also, is_development=is_development)

    def is_settled(self, notification: int) -> bool:
        """Return whether everybody was come to: each delivery has ended, or waits for its time."""
        mine = deliveries.c.notification_id == notification
        now = self._milliseconds()
        with self._database.read() as connection:
            return not any(
                connection.scalar(select(exists().where(waiting)))
                for waiting in (
                    (shards.c.notification_id == notification) & (shards.c.due_at <= now),
                    mine & deliveries.c.worker_id.is_not(None),
                    mine & (deliveries.c.due_at <= now) & (deliveries.c.state == "queued"),
                )
            )

    # What it belongs to

    def notifications(self, rows: Collection[int]) -> list[Row[Any]]:
        """Return rows of the table of notifications; those that are gone are left out."""
        statement = select(notifications).where(notifications.c.id.in_(rows))
        with self._database.read() as connection:
            return list(connection.execute(statement))

    def not_cancelled(self, rows: Collection[int]) -> set[int]:
        """Return which of these notifications are there and were not cancelled."""
        statement = select(notifications.c.id).where(
            notifications.c.id.in_(rows), notifications.c.cancelled_at.is_(None)
        )
        with self._database.read() as connection:
            return set(connection.scalars(statement))

    def app_rules(self, app_id: str) -> AppRules:
        """Return the rules of an app; those of an app that is not in the registry are empty."""
        statement = select(apps).where(apps.c.team_id + "." + apps.c.bundle_id == app_id)
        with self._database.read() as connection:
            row = connection.execute(statement).one_or_none()
        return AppRules(is_registered=False) if row is None else AppRules.read(row)

    def write_stop(self, app_id: str, stop: Stop | None) -> None:
        """Note that an app's circuit is open, or closed again."""
        values: dict[str, Any] = {
            "stopped_reason": None,
            "stopped_detail": None,
            "stopped_at": None,
            "probe_at": None,
            "probes": 0,
        }
        if stop is not None:
            values = {
                "stopped_reason": stop.reason,
                "stopped_detail": stop.detail,
                "stopped_at": int(stop.since * 1000),
                "probe_at": int(stop.probe_at * 1000),
                "probes": stop.probes,
            }
        statement = update(apps).where(apps.c.team_id + "." + apps.c.bundle_id == app_id)
        with self._database.write() as connection:
            connection.execute(statement.values(values))

    def hurry(self, app_id: str, reasons: Collection[str], at: float) -> int:
        """Let what waits for one of these reasons fall due at ``at`` (UNIX seconds) at the latest.

        Returns how many deliveries of the app that are. Thousands at a time are one transaction.
        """
        return sum(self._hurry(app_id, reasons, int(at * 1000), level) for level in LEVELS)

    def _hurry(self, app_id: str, reasons: Collection[str], at: int, level: int) -> int:
        waiting = (
            select(deliveries.c.notification_id, deliveries.c.number)
            .join_from(deliveries, notifications)
            .where(
                notifications.c.app == app_id,
                deliveries.c.urgency == level,
                deliveries.c.due_at > at,
                deliveries.c.state == "held",
                deliveries.c.reason.in_(reasons),
            )
            .limit(_HURRIED_AT_ONCE)
        )
        key = tuple_(deliveries.c.notification_id, deliveries.c.number)
        statement = update(deliveries).where(key.in_(waiting)).values(due_at=at)
        total, changed = 0, _HURRIED_AT_ONCE
        while changed == _HURRIED_AT_ONCE:
            with self._database.write() as connection:
                changed = connection.execute(statement).rowcount
            total += changed
        return total

    def hurry_broadcasts(self, app_id: str, at: float) -> int:
        """Let an app's broadcasts that rest go on at ``at`` (UNIX seconds) at the latest.

        Returns how many parts of them that are. What is for a later time stays.
        """
        unscheduled = select(notifications.c.id).where(
            notifications.c.app == app_id, notifications.c.send_at.is_(None)
        )
        resting = shards.c.worker_id.is_(None) & (shards.c.due_at > int(at * 1000))
        statement = update(shards).where(resting, shards.c.notification_id.in_(unscheduled))
        with self._database.write() as connection:
            return connection.execute(statement.values(due_at=int(at * 1000))).rowcount

    def notifications_by_user(
        self, user_ids: Iterable[int], since: float, apart_from: int
    ) -> dict[int, set[int]]:
        """Return which other notifications each user was sent since then (UNIX seconds).

        Only what a cap counts, see :func:`~handbell.delivery.timing.disturbs`. One that is about to
        be sent counts as well, for those that came after it.
        """
        statement = (
            select(sessions.c.user_id, deliveries.c.notification_id)
            .distinct()
            .join_from(sessions, deliveries, deliveries.c.number == sessions.c.id)
            .join(notifications, notifications.c.id == deliveries.c.notification_id)
            .where(
                sessions.c.user_id.in_(bindparam("user_ids", expanding=True)),
                notifications.c.is_loud,
                deliveries.c.notification_id != apart_from,
                or_(
                    deliveries.c.sent_at > int(since * 1000),
                    and_(
                        deliveries.c.notification_id < apart_from,
                        or_(
                            deliveries.c.state == "sending",
                            and_(deliveries.c.state == "held", deliveries.c.attempts > 0),
                        ),
                    ),
                ),
            )
        )
        found: dict[int, set[int]] = {}
        with self._database.read() as connection:
            for chunk in _chunks(list(set(user_ids))):
                for user_id, row in connection.execute(statement, {"user_ids": chunk}):
                    found.setdefault(user_id, set()).add(row)
        return found

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

    # What became of it

    def record(self, batch: Batch) -> None:
        """Write a batch, all of it or nothing."""
        with self._database.write() as connection:
            for (notification, environment, urgency), sent in batch.sent.items():
                self._insert_sent(connection, notification, environment, urgency, sent)
            if batch.endings:
                self._upsert(connection, batch.endings)
            add_batch(connection, batch, self._milliseconds())
            self._change_sessions(connection, batch)
            for shard, position in batch.positions.items():
                connection.execute(_MOVE_SHARD, {"shard": shard, "to": position})
            for shard, due_at in batch.resting_shards.items():
                rest = update(shards).where(shards.c.id == shard)
                connection.execute(rest.values(due_at=due_at, worker_id=None))
            if batch.finished_shards:
                self._count_cancelled(connection, batch.finished_shards)
                connection.execute(delete(shards).where(shards.c.id.in_(batch.finished_shards)))

    def _count_cancelled(self, connection: Connection, finished: Sequence[int]) -> None:
        """Count whom cancelled broadcasts did not come to, now that nothing of it is on its way."""
        for shard in connection.execute(
            SHARDS.where(shards.c.id.in_(finished), notifications.c.cancelled_at.is_not(None))
        ).all():
            caught = count_uncome(connection, shard)
            statement = update(notifications).where(notifications.c.id == shard.notification_id)
            connection.execute(statement.values(cancelled=notifications.c.cancelled + caught))

    def _insert_sent(
        self,
        connection: Connection,
        notification: int,
        environment: str,
        urgency: int,
        sent: list[int],
    ) -> None:
        at = self._milliseconds()
        if self._is_sqlite:
            # One statement steps without the interpreter; thousands would take turns with the loop.
            values = (notification, environment, urgency, at, json.dumps(sent))
            connection.exec_driver_sql(_INSERT_SENT, values)
            return
        endings = [
            Ending(
                notification_id=notification,
                number=number,
                gateway="apns",
                environment=environment,
                urgency=urgency,
                state="sent",
                attempts=1,
                status=200,
                sent_at=at,
                finished_at=at,
            )
            for number in sent
        ]
        self._upsert(connection, endings)

    def _upsert(self, connection: Connection, endings: Sequence[Ending]) -> None:
        rows = [{name: getattr(ending, name) for name in _ENDING_FIELDS} for ending in endings]
        add = sqlite_insert if self._is_sqlite else postgresql_insert
        statement: Any = add(deliveries)
        changed = {
            name: statement.excluded[name] for name in _ENDING_FIELDS if name not in _KEY_FIELDS
        }
        changed["environment"] = statement.excluded.environment
        changed["worker_id"] = None
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["notification_id", "number"], set_=changed
            ),
            rows,
        )

    def _change_sessions(self, connection: Connection, batch: Batch) -> None:
        now = self._milliseconds()
        for chunk in _chunks(batch.accepted_sessions):
            connection.execute(
                update(sessions).where(sessions.c.id.in_(chunk)).values(accepted_at=now)
            )
        for session, environment in batch.moved.items():
            connection.execute(
                update(sessions).where(sessions.c.id == session).values(environment=environment)
            )
        for session, (since, reason) in batch.gone.items():
            is_gone = sessions.c.status != "closed"
            if since is not None:
                is_gone &= sessions.c.registered_at < since
            connection.execute(
                update(sessions)
                .where(sessions.c.id == session, is_gone)
                .values(status="closed", reason=reason, closed_at=now)
            )
        for session, reason in batch.refused.items():
            connection.execute(
                update(sessions)
                .where(sessions.c.id == session, sessions.c.status == "active")
                .values(status="quarantined", reason=reason)
            )

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
    )
    .join_from(deliveries, sessions, sessions.c.id == deliveries.c.number, isouter=True)
    .outerjoin(users, users.c.id == sessions.c.user_id)
    .order_by(deliveries.c.notification_id, deliveries.c.number)
)


_MOVE_SHARD: Final = (
    update(shards).where(shards.c.id == bindparam("shard")).values(position=bindparam("to"))
)

SHARDS: Final = (
    select(shards, apps.c.id.label("app_row"))
    .join_from(shards, notifications, shards.c.notification_id == notifications.c.id)
    .join(apps, apps.c.team_id + "." + apps.c.bundle_id == notifications.c.app)
)
"""Shards with the row of the app whose sessions they span."""


def _chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield so many values at a time as one statement may name."""
    for start in range(0, len(values), _NAMED_AT_ONCE):
        yield values[start : start + _NAMED_AT_ONCE]


def count_uncome(connection: Connection, shard: Row[Any]) -> int:
    """Return how many sessions of a shard, a row of :data:`SHARDS`, have no delivery yet."""
    there = deliveries.alias()
    statement = select(func.count()).where(
        sessions.c.app_id == shard.app_row,
        sessions.c.status == "active",
        sessions.c.id > shard.position,
        sessions.c.id <= shard.last,
        ~exists().where(
            there.c.notification_id == shard.notification_id, there.c.number == sessions.c.id
        ),
    )
    if shard.source_id is not None:
        statement = statement.where(got(shard.source_id))
    return connection.scalar(statement) or 0


def _not_of(app_ids: Collection[str], notification: Any) -> list[Any]:
    """Return the condition that a notification is of none of these apps; none for no apps."""
    if not app_ids:
        return []
    its = notifications.alias()
    return [~exists().where(its.c.id == notification, its.c.app.in_(app_ids))]


def session_id(number: int) -> int | None:
    """Return the session that a delivery number names, or None for a bare address."""
    return number if number < ADDRESSED else None


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
