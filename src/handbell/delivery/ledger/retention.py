"""Retention: prune the ledger in small transactions that block nobody.

A delivery is pruned when it ended long enough ago, a notification when it is that old and has no
deliveries left. Unfinished deliveries are never pruned. An idempotency key is kept as long as its
notification, and at least :data:`KEYS_DAYS`, and its notification with it, because the answer to a
repeated call is read from it.

On PostgreSQL whole partitions are dropped, so rows stay until their partition is old. Single rows
are removed only from partitions that are kept for unfinished or recent rows.
"""

import asyncio
import logging
from collections.abc import Callable
from time import time
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, or_, select, tuple_

from handbell._background import forever
from handbell._thread_pool import in_thread
from handbell.delivery.delivery import FINAL_STATES
from handbell.storage.database import Database
from handbell.storage.tables import (
    apps,
    circuits,
    deliveries,
    idempotency,
    notifications,
    shards,
    tallies,
)

from .old_partitions import drop_partitions, make_partitions, steps_among

KEYS_DAYS: Final = 30
"""The minimum number of days for which a repeated call returns the first answer."""
FIRST_AFTER_SECONDS: Final = 300
EVERY_SECONDS: Final = 3600
STEP_ROWS: Final = 500
"""The maximum number of rows that one transaction removes."""
_PAUSE_SECONDS: Final = 0.05
_DAY: Final = 24 * 3600

_log = logging.getLogger(__name__)


class Pruner:
    """Prunes what ended more than ``keep_days`` ago. ``now`` returns UNIX seconds.

    Several may run on one database. :meth:`run` prunes ``first_after`` seconds after its start,
    then every ``every`` seconds.
    """

    first_after: float = FIRST_AFTER_SECONDS
    every: float = EVERY_SECONDS

    def __init__(
        self, database: Database, *, keep_days: float, now: Callable[[], float] = time
    ) -> None:
        self._database = database
        self._keep_days = keep_days
        self._now = now

    def step(self, limit: int = STEP_ROWS) -> int:
        """Prune up to ``limit`` rows in one transaction; return how many, 0 when done."""
        before, keys_before = self._before(), self._keys_before()
        is_old: ColumnElement[bool] = notifications.c.created_at < before
        if keys_before < before:
            keyed = select(idempotency.c.notification_id)
            is_old &= notifications.c.public_id.not_in(keyed)
        with self._database.write() as connection:
            is_among = steps_among(connection, before)
            is_old &= is_among(notifications.c.id)
            is_among_them = is_among(deliveries.c.notification_id)
            # Keys go first: one without its notification could be neither answered nor reused.
            removed = _remove_keys(connection, keys_before, limit)
            ended = is_old & is_among_them & (deliveries.c.finished_at < before)
            removed += _remove_deliveries(connection, ended, limit - removed)
            removed += _remove_notifications(connection, is_old, is_among_them, limit - removed)
            removed += _remove_tallies(connection, before, limit - removed)
            removed += _remove_circuits(connection, self._ago(1), limit - removed)
        return removed

    def remove_keys(self, limit: int = STEP_ROWS) -> int:
        """Prune up to ``limit`` idempotency keys in one transaction; return how many."""
        with self._database.write() as connection:
            return _remove_keys(connection, self._keys_before(), limit)

    def make_partitions(self) -> None:
        """Create the partitions for the days ahead, if the database has partitions."""
        make_partitions(self._database, self._keep_days)

    def drop_partitions(self) -> int:
        """Drop the partitions in which everything is old; return how many."""
        return drop_partitions(self._database, self._before())

    def _before(self) -> int:
        """Return the instant before which ended rows are old, in UNIX milliseconds."""
        return self._ago(self._keep_days)

    def _keys_before(self) -> int:
        return min(self._before(), self._ago(KEYS_DAYS))

    def _ago(self, days: float) -> int:
        return int((self._now() - days * _DAY) * 1000)

    async def prune(self) -> int:
        """Prune everything that is due, with pauses; return the number of single rows."""
        # Keys go first: one that is no longer valid would keep its partition.
        removed = await _repeat(self.remove_keys)
        await in_thread(self.drop_partitions)
        return removed + await _repeat(self.step)

    async def run(self) -> None:
        """Prune after some minutes, which short-lived processes do not reach, then every hour.

        Partitions are created at once.
        """
        self._is_first_turn = True
        await forever(self._turn, name="Pruning", pause=self.every)

    async def _turn(self) -> float:
        await in_thread(self.make_partitions)
        if self._is_first_turn:
            self._is_first_turn = False
            return self.first_after
        _log.info("Pruned old rows: rows=%d", await self.prune())
        return self.every


async def _repeat(step: Callable[[], int]) -> int:
    removed = 0
    while done := await in_thread(step):
        removed += done
        await asyncio.sleep(_PAUSE_SECONDS)
    return removed


def _remove_keys(connection: Connection, before: int, limit: int) -> int:
    old = (
        select(idempotency.c.app, idempotency.c.key)
        .where(idempotency.c.created_at < before)
        .order_by(idempotency.c.created_at)
        .limit(limit)
    )
    key = tuple_(idempotency.c.app, idempotency.c.key)
    return connection.execute(delete(idempotency).where(key.in_(old))).rowcount


def _remove_deliveries(connection: Connection, is_old: ColumnElement[bool], limit: int) -> int:
    old = (
        select(deliveries.c.notification_id, deliveries.c.number)
        .join_from(notifications, deliveries)
        .where(
            is_old,
            ~_has_shards(),
            deliveries.c.state.in_(FINAL_STATES),
        )
        .limit(limit)
    )
    key = tuple_(deliveries.c.notification_id, deliveries.c.number)
    return connection.execute(delete(deliveries).where(key.in_(old))).rowcount


def _has_shards() -> ColumnElement[bool]:
    """Return the condition that a notification has an unfinished broadcast, or is named by one."""
    row = notifications.c.id
    return exists().where(or_(shards.c.notification_id == row, shards.c.source_id == row))


def _remove_notifications(
    connection: Connection, is_old: ColumnElement[bool], is_among: ColumnElement[bool], limit: int
) -> int:
    mine = deliveries.c.notification_id == notifications.c.id
    old = (
        select(notifications.c.id)
        .where(
            is_old,
            ~exists().where(mine, is_among),
            ~_has_shards(),
        )
        .limit(limit)
    )
    return connection.execute(delete(notifications).where(notifications.c.id.in_(old))).rowcount


def _remove_circuits(connection: Connection, before: int, limit: int) -> int:
    """Prune circuits of removed apps, and outages that were not probed for long.

    An unregistered app brings its key with each notification, sealed.
    """
    its = notifications.c.app == circuits.c.app
    is_gone = and_(
        circuits.c.app != "",
        circuits.c.app.not_in(select(apps.c.public_id)),
        ~exists().where(its, notifications.c.sealed_key.is_not(None)).correlate(circuits),
    )
    is_left = and_(circuits.c.app == "", circuits.c.probe_at < before)
    key = (circuits.c.app, circuits.c.environment, circuits.c.credential, circuits.c.topic)
    old = select(*key).where(or_(is_gone, is_left)).limit(limit)
    return connection.execute(delete(circuits).where(tuple_(*key).in_(old))).rowcount


def _remove_tallies(connection: Connection, before: int, limit: int) -> int:
    old = select(tallies.c.app, tallies.c.hour).where(tallies.c.hour < before).limit(limit)
    key = tuple_(tallies.c.app, tallies.c.hour)
    return connection.execute(delete(tallies).where(key.in_(old))).rowcount
