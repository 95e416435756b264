"""Old partitions of the ledger on PostgreSQL, dropped once everything in them has ended.

A partition is first checked without a lock, which may take long. The one thing that can change
meanwhile, a broadcast to the recipients of a notification in it, is checked again under the lock.
"""

import logging
from collections.abc import Callable
from typing import Final

from sqlalchemy import ColumnElement, Connection, or_, text, true

from handbell.delivery.delivery import FINAL_STATES
from handbell.errors import StorageError
from handbell.storage.database import Database
from handbell.storage.partitions import (
    DAY,
    KEY_OF,
    Partition,
    drop,
    instant_of,
    is_partitioned,
    keep_partitions,
    lock_tables,
    make_ahead,
    read_partitions,
    span_days,
)

_FINAL: Final = ", ".join(f"'{state}'" for state in sorted(FINAL_STATES))
_IS_OPEN: Final = """
    SELECT EXISTS (SELECT FROM {deliveries} WHERE due_at IS NOT NULL)
        OR EXISTS (SELECT FROM {deliveries} WHERE worker_id IS NOT NULL)
        OR EXISTS (SELECT FROM shards WHERE notification_id >= :first AND notification_id < :end)
        OR EXISTS (SELECT FROM shards WHERE source_id >= :first AND source_id < :end)
"""
_IS_NEEDED: Final = f"""
    SELECT EXISTS (SELECT FROM {{notifications}} WHERE created_at >= :before)
        OR EXISTS (SELECT FROM idempotency JOIN {{notifications}} answer
                   ON answer.public_id = idempotency.notification_id
                   WHERE idempotency.created_at < :keyed_until)
        OR EXISTS (SELECT FROM {{deliveries}} WHERE finished_at IS NULL OR finished_at >= :before
                   OR state NOT IN ({_FINAL}))
"""  # noqa: S608 - names of states only

_log = logging.getLogger(__name__)


def make_partitions(database: Database, keep_days: float) -> None:
    """Create the partitions for the days ahead, if the database has partitions.

    If the tables are locked, or this user lacks the right, the next run does it.
    """
    if database.path is not None:
        return
    try:
        with database.write() as connection:
            for made in make_ahead(connection, span_days(keep_days)):
                _log.info("Made partition of the ledger: partition=%s", made.name)
    except StorageError as error:
        _log.warning("Could not make partitions of the ledger; trying again later: %s", error)


def drop_partitions(database: Database, before: int) -> int:
    """Drop the partitions whose rows all ended before an instant (UNIX ms); return how many.

    If the tables are locked, or this user lacks the right, the next run does the rest.
    """
    if database.path is not None:
        return 0
    with database.read() as connection:
        keep_partitions(connection)
        old = [one for one in _past(connection, before) if not _is_needed(connection, one, before)]
    dropped = 0
    for partition in old:
        try:
            dropped += _drop_unless_open(database, partition)
        except StorageError as error:
            told = "Could not drop a partition of the ledger; trying again later: partition=%s: %s"
            _log.info(told, partition.name, error)
            break
    return dropped


def steps_among(
    connection: Connection, before: int
) -> Callable[[ColumnElement[int]], ColumnElement[bool]]:
    """Return what makes the condition that a notification's row is in no partition to be dropped.

    It is to be said of each table that is searched, so that those partitions are passed over.
    ``before`` is in UNIX milliseconds. Where there are no partitions, it always holds.
    """
    later = (
        [one for one in _with_time(connection) if not _is_past(one, before)]
        if is_partitioned(connection)
        else []
    )
    if not later:
        return lambda _row: true()
    return lambda row: or_(row < later[0].first, row >= later[-1].end)


def _drop_unless_open(database: Database, partition: Partition) -> bool:
    with database.write() as connection:
        lock_tables(connection)
        # Another machine may have dropped it meanwhile.
        if partition not in read_partitions(connection) or _is_open(connection, partition):
            return False
        drop(connection, partition)
    _log.info("Dropped partition of the ledger: partition=%s", partition.name)
    return True


def _past(connection: Connection, before: int) -> list[Partition]:
    return [one for one in _with_time(connection) if _is_past(one, before)]


def _with_time(connection: Connection) -> list[Partition]:
    return [one for one in read_partitions(connection) if one.first is not None]


def _is_past(partition: Partition, before: int) -> bool:
    return instant_of(partition.end) * 1000 <= before


def _is_open(connection: Connection, partition: Partition) -> bool:
    return _ask(connection, _IS_OPEN, partition, first=partition.first, end=partition.end)


def _is_needed(connection: Connection, partition: Partition, before: int) -> bool:
    """Return whether a partition has open or recent rows, or answers to repeated calls."""
    # A key is as old as its notification, up to the difference of two clocks.
    until = (instant_of(partition.end) + DAY) * 1000
    return _is_open(connection, partition) or _ask(
        connection, _IS_NEEDED, partition, before=before, keyed_until=until
    )


def _ask(connection: Connection, question: str, partition: Partition, **values: object) -> bool:
    named = question.format(**{table: partition.table(table) for table in KEY_OF})
    return bool(connection.execute(text(named), values).scalar_one())
