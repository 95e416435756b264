"""Token buckets in the database: one for all processes and machines that use it.

A row says when its bucket is full; a full one needs no row. Instants are those of a clock that all
users of the database share, so that their own clocks do not matter.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, delete, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert

from handbell._chunks import chunks
from handbell._token_bucket import TokenBucket
from handbell.clocks import MachineClock

from .database import Database
from .server_clock import shared_seconds
from .tables import shared_buckets

_MICROSECONDS: Final = 1_000_000
_KEPT_SECONDS: Final = 3600
_TAKES_BETWEEN: Final = 1000
_PRUNED_AT_ONCE: Final = 2 * _TAKES_BETWEEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request to the bucket ``name``, which holds ``size`` tokens and gains ``rate`` a second.

    Up to ``wanted`` whole tokens are given, or none if fewer than ``least`` are there. ``back`` are
    unused tokens of an earlier request.
    """

    name: str
    size: float
    rate: float
    wanted: int
    least: int = 1
    back: float = 0.0


class Given(NamedTuple):
    """The number of tokens given, and the seconds until ``least`` are there; 0 if any were."""

    granted: int
    wait_seconds: float


class SharedBuckets:
    """The token buckets in one database. Every method is one transaction.

    Over any span, all processes together get at most what a bucket holds and gains. With SQLite
    the clock is that of the ``machine``, else the database server's. Rows of buckets that have
    been full for an hour are removed now and then.
    """

    def __init__(self, database: Database, machine: MachineClock | None = None) -> None:
        self._database = database
        self._machine = machine or MachineClock.here()
        self._until_pruned = _TAKES_BETWEEN

    def take(self, asks: Sequence[Ask]) -> list[Given]:
        """Return the tokens given for each request, in order; each bucket is named once."""
        # After a crash of the machine the tokens of a moment may be given twice.
        with self._database.write(is_lasting=False) as connection:
            full_at = _locked(connection, sorted(ask.name for ask in asks))
            now = shared_seconds(connection, self._machine)
            given = [_take(ask, full_at, now) for ask in asks]
            _write(connection, full_at)
        self._until_pruned -= 1
        if self._until_pruned <= 0:
            self._until_pruned = _TAKES_BETWEEN
            self.prune()
        return given

    def forget(self, names: Iterable[str]) -> None:
        """Fill buckets."""
        with self._database.write() as connection:
            connection.execute(
                delete(shared_buckets).where(shared_buckets.c.name.in_(sorted(names)))
            )

    def prune(self, limit: int = _PRUNED_AT_ONCE) -> int:
        """Remove rows of buckets that have been full for an hour; return their number."""
        with self._database.write() as connection:
            now = shared_seconds(connection, self._machine)
            old = (
                select(shared_buckets.c.name)
                .where(shared_buckets.c.full_at < int((now - _KEPT_SECONDS) * _MICROSECONDS))
                .limit(limit)
            )
            return connection.execute(
                delete(shared_buckets).where(shared_buckets.c.name.in_(old))
            ).rowcount


def _locked(connection: Connection, names: Sequence[str]) -> dict[str, int]:
    """Return the rows of buckets, locked in the order of their names; missing ones are created."""
    found: dict[str, int] = {}
    for chunk in chunks(names):
        mine = (
            select(shared_buckets.c.name, shared_buckets.c.full_at)
            .where(shared_buckets.c.name.in_(chunk))
            .order_by(shared_buckets.c.name)
            .with_for_update()
        )
        rows = connection.execute(mine).all()
        if len(rows) < len(chunk):
            new = [{"name": name, "full_at": 0} for name in chunk]
            connection.execute(postgresql_insert(shared_buckets).on_conflict_do_nothing(), new)
            rows = connection.execute(mine).all()
        found.update((row.name, row.full_at) for row in rows)
    return found


def _take(ask: Ask, full_at: dict[str, int], now: float) -> Given:
    # After a new rate, or a clock set back, a bucket is empty at most.
    missing = min(max(full_at[ask.name] / _MICROSECONDS - now, 0.0), ask.size / ask.rate)
    bucket = TokenBucket(ask.size, ask.rate, ask.size - missing * ask.rate, now).without(-ask.back)
    granted, left, _ = bucket.take(ask.wanted, now)
    if granted < min(ask.least, ask.wanted):
        granted, left = 0, bucket
    wait = 0.0 if granted or not ask.wanted else bucket.take(ask.least, now).wait_seconds
    full_at[ask.name] = int((now + left.wait_for(ask.size)) * _MICROSECONDS)
    return Given(granted, wait)


def _write(connection: Connection, full_at: Mapping[str, int]) -> None:
    rows = [{"its_name": name, "at": at} for name, at in sorted(full_at.items())]
    if rows:
        connection.execute(_FULL_AT, rows)


_FULL_AT: Final = (
    update(shared_buckets)
    .where(shared_buckets.c.name == bindparam("its_name"))
    .values(full_at=bindparam("at"))
)
