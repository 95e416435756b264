"""A database that was restored from a backup: what was sent since is not written in it."""

from dataclasses import dataclass

from sqlalchemy import Connection, Table, false, or_, update

from handbell.delivery.policy.parts import SCHEDULED
from handbell.storage.database import Database
from handbell.storage.tables import deliveries, shards


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """How many deliveries and shards may have been sent since the backup, at an instant."""

    deliveries: int
    shards: int


def mark_restored(database: Database, *, now: float) -> Restored:
    """Have all that is open sent as what may have arrived already.

    It goes out under the id that it had before, and with a collapse id where the push service has
    one, so that a device that got it shows it once. What is sent at a time of its own that has not
    come by ``now`` (UNIX seconds) goes out as ever. It may be repeated.
    """
    at = int(now * 1000)
    with database.write() as connection:
        return Restored(
            deliveries=_mark(connection, deliveries, "is_repeat", at),
            shards=_mark(connection, shards, "is_resumed", at),
        )


def _mark(connection: Connection, table: Table, mark: str, at: int) -> int:
    is_open = table.c.due_at.is_not(None), table.c[mark].is_(false())
    # What a rule or an outage held may have been let go early; what has a time of its own was not.
    may_be_sent = or_(table.c.reason.is_distinct_from(SCHEDULED), table.c.due_at <= at)
    statement = update(table).where(*is_open, may_be_sent).values({mark: True})
    return connection.execute(statement).rowcount
