"""Partitions of the ledger on PostgreSQL, so that old rows are removed by dropping tables.

``notifications`` and ``deliveries`` are partitioned by the same ids, which have their time in the
high bits. Each has a partition for every span of days, created ahead; ``before`` for ids without a
time, and ``default`` for all others, so that a notification is stored even if its partition is
missing. docs/decisions/0028-keys-partitions-services.md has the reasons.
"""

import math
import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, TextClause, text

from .dialects import is_sqlite

EPOCH: Final = 1_577_836_800
"""The instant at which the time in an id is zero: the first of January 2020, in UNIX seconds."""

NUMBER_BITS: Final = 20
"""The number of low bits that distinguish ids of one second; an id stays below 2**53."""

DAY: Final = 24 * 3600
FIRST_DAYS: Final = 7
"""The span in days of the partitions that a migration creates."""

AHEAD_DAYS: Final = 7
"""The minimum number of days ahead for which there are partitions."""

KEY_OF: Final = {"notifications": "id", "deliveries": "notification_id"}
"""The partitioned tables, and the partition column of each."""

BEFORE: Final = "before"
DEFAULT: Final = "default"

_MOST_KEPT: Final = 13
_LOCK: Final = 0x68616E6462656C6D
_LOCK_MILLISECONDS: Final = 200
_RANGE: Final = re.compile(r"FROM \((MINVALUE|'-?\d+')\) TO \('(-?\d+)'\)")
_FOUND: Final = text("""
    SELECT child.relname AS name, pg_get_expr(child.relpartbound, child.oid) AS bounds
    FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
    WHERE inhparent = to_regclass('notifications')
""")
_NOW: Final = text("SELECT floor(extract(epoch FROM now()))::bigint")
# What is being stored while somebody looks has been given its id already.
_SLACK_SECONDS: Final = 3600
_STRAY: Final = f"""
    SELECT min(notification_id) FROM deliveries_{DEFAULT}
    WHERE due_at IS NOT NULL OR worker_id IS NOT NULL
"""  # noqa: S608 - a name of ours
_OLDEST: Final = f"""
    SELECT min(row) FROM (
        {{}} UNION ALL SELECT min(notification_id) FROM shards
        UNION ALL SELECT (CAST(:recent AS bigint) - {EPOCH}) << {NUMBER_BITS}
    ) AS found (row)
"""  # noqa: S608 - numbers of ours


class Partition(NamedTuple):
    """One span of both tables: the ids from ``first`` up to, but not including, ``end``.

    ``name`` is the suffix of the table's name. ``first`` is None for ``before``.
    """

    name: str
    first: int | None
    end: int

    def table(self, name: str) -> str:
        """Return the name of this partition of a table."""
        return f"{name}_{self.name}"


def id_at(seconds: float) -> int:
    """Return the lowest id of notifications from an instant (UNIX seconds) on."""
    return (math.floor(seconds) - EPOCH) << NUMBER_BITS


def instant_of(row: int) -> int:
    """Return when an id was assigned, in UNIX seconds."""
    return (row >> NUMBER_BITS) + EPOCH


def day_of(seconds: float) -> int:
    """Return the start of an instant's day (UTC), both in UNIX seconds."""
    return math.floor(seconds) // DAY * DAY


def span_days(keep_days: float) -> int:
    """Return the span of one partition in days for a retention of so many days.

    A query without a time reads every partition, so their number is kept small.
    """
    return max(1, math.ceil(keep_days / _MOST_KEPT))


def spans(first: int, until: int, days: int) -> list[tuple[int, int]]:
    """Return bounds of ids from ``first`` to at least ``until``.

    Every bound except the first is the start of a day.
    """
    found: list[tuple[int, int]] = []
    while first < until:
        end = id_at(day_of(instant_of(first)) + days * DAY)
        found.append((first, end))
        first = end
    return found


def is_partitioned(connection: Connection) -> bool:
    """Return whether the ledger of this database is partitioned."""
    return not is_sqlite(connection)


def read_partitions(connection: Connection) -> list[Partition]:
    """Return the partitions in id order, without ``default``."""
    found = []
    for name, bounds in connection.execute(_FOUND):
        if (read := _RANGE.search(bounds)) is not None:
            first, end = read.groups()
            lowest = None if first == "MINVALUE" else int(first.strip("'"))
            found.append(Partition(name.partition("_")[2], lowest, int(end)))
    return sorted(found, key=lambda one: one.end)


def make_ahead(connection: Connection, days: int) -> list[Partition]:
    """Create the partitions for the days ahead, each of so many days; return those created.

    Safe on several machines at once. Raises :class:`~handbell.errors.DatabaseLockedError` if
    the tables are locked: try again later.
    """
    if not _missing(connection, days):
        return []
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    wait_little(connection)
    return [_make(connection, *bounds) for bounds in _missing(connection, days)]


def keep_partitions(connection: Connection) -> None:
    """Let no partition be dropped until the transaction ends; to be called first in it."""
    connection.execute(text("LOCK TABLE ONLY deliveries IN ACCESS SHARE MODE"))


def oldest_open(connection: Connection) -> int:
    """Return an id below which no delivery is open, nor will be.

    A delivery becomes open with its notification, or while a broadcast of it runs. Whoever looks
    for open ones looks in few partitions by it, instead of in all of them.
    """
    keep_partitions(connection)
    values = {"recent": connection.execute(_NOW).scalar_one() - _SLACK_SECONDS}
    asked = [_STRAY, *map(_ask_open, read_partitions(connection))]
    found = connection.execute(text(_OLDEST.format(" UNION ALL ".join(asked))), values)
    return int(found.scalar_one())


def _ask_open(partition: Partition) -> str:
    table = partition.table("deliveries")
    return (
        f"SELECT {partition.first or 0} "  # noqa: S608 - names and numbers of ours
        f"WHERE EXISTS (SELECT FROM {table} WHERE due_at IS NOT NULL) "
        f"OR EXISTS (SELECT FROM {table} WHERE worker_id IS NOT NULL)"
    )


def lock_tables(connection: Connection) -> None:
    """Lock the ledger exclusively until the end of the transaction, which must come soon.

    Other statements queue behind a waiting lock, so the wait is short; then
    :class:`~handbell.errors.DatabaseLockedError` is raised.
    """
    wait_little(connection)
    connection.execute(text("LOCK TABLE ONLY deliveries, ONLY notifications"))


def drop(connection: Connection, partition: Partition) -> None:
    """Drop a partition of both tables; call :func:`lock_tables` first."""
    names = ", ".join(partition.table(table) for table in KEY_OF)
    connection.execute(text(f"DROP TABLE {names}"))


def wait_little(connection: Connection) -> None:
    """Set a short lock time-out for this transaction, as other statements queue behind a lock."""
    connection.execute(text(f"SET LOCAL lock_timeout = {_LOCK_MILLISECONDS}"))


def _missing(connection: Connection, days: int) -> list[tuple[int, int]]:
    now: int = connection.execute(_NOW).scalar_one()
    until = id_at(now + AHEAD_DAYS * DAY)
    end = max(one.end for one in read_partitions(connection))
    if end >= until:
        return []
    # Rows that were inserted while their partition was missing stay in the default one.
    strays = (connection.execute(_last_in_default(table)).scalar() for table in KEY_OF)
    behind = [id_at(day_of(instant_of(row)) + DAY) for row in strays if row is not None]
    return spans(max([end, *behind]), until, days)


def _last_in_default(table: str) -> TextClause:
    return text(f"SELECT max({KEY_OF[table]}) FROM {table}_{DEFAULT}")  # noqa: S608 - names


def _make(connection: Connection, first: int, end: int) -> Partition:
    made = Partition(f"{datetime.fromtimestamp(instant_of(first), UTC):%Y%m%d}", first, end)
    for table in KEY_OF:
        name = made.table(table)
        add_table(connection, table, name)
        # Unlike creating it as a partition, this does not lock out other users.
        attach = f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({first}) TO ({end})"
        connection.execute(text(attach))
    return made


def add_table(connection: Connection, table: str, name: str) -> None:
    """Create a table to be attached as a partition; its indexes are created by that."""
    alike = f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
    connection.execute(text(alike))
    if table == "notifications":
        # The partition column is not part of it, so it is unique per partition only.
        unique = f"CREATE UNIQUE INDEX {name}_public_id ON {name} (public_id)"
        connection.execute(text(unique))
