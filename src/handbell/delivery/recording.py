"""How the ends of deliveries are written: a batch of them in one transaction."""

import json
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from handbell.tables import deliveries, notifications, sessions, shards

from .batch import Batch, Ending
from .chunks import chunks
from .shards import SHARDS, count_uncome
from .tallies import add_batch

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


_MOVE_SHARD: Final = (
    update(shards).where(shards.c.id == bindparam("shard")).values(position=bindparam("to"))
)


def write_batch(connection: Connection, batch: Batch, *, now: int) -> None:
    """Write a batch; what it says of first attempts is dated ``now`` (UNIX milliseconds)."""
    for key, numbers in batch.sent.items():
        _insert_sent(connection, key, numbers, now)
    if batch.endings:
        _upsert(connection, batch.endings)
    add_batch(connection, batch, now)
    _change_sessions(connection, batch, now)
    for shard, position in batch.positions.items():
        connection.execute(_MOVE_SHARD, {"shard": shard, "to": position})
    for shard, due_at in batch.resting_shards.items():
        rest = update(shards).where(shards.c.id == shard)
        connection.execute(rest.values(due_at=due_at, worker_id=None))
    if batch.finished_shards:
        _count_cancelled(connection, batch.finished_shards)
        connection.execute(delete(shards).where(shards.c.id.in_(batch.finished_shards)))


def _insert_sent(
    connection: Connection, key: tuple[int, str, int], numbers: Sequence[int], now: int
) -> None:
    notification, environment, urgency = key
    if _is_sqlite(connection):
        # One statement steps without the interpreter; thousands would take turns with the loop.
        values = (notification, environment, urgency, now, json.dumps(numbers))
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
            sent_at=now,
            finished_at=now,
        )
        for number in numbers
    ]
    _upsert(connection, endings)


def _upsert(connection: Connection, endings: Sequence[Ending]) -> None:
    rows = [{name: getattr(ending, name) for name in _ENDING_FIELDS} for ending in endings]
    add = sqlite_insert if _is_sqlite(connection) else postgresql_insert
    statement: Any = add(deliveries)
    changed = {name: statement.excluded[name] for name in _ENDING_FIELDS if name not in _KEY_FIELDS}
    changed["environment"] = statement.excluded.environment
    changed["worker_id"] = None
    connection.execute(
        statement.on_conflict_do_update(index_elements=["notification_id", "number"], set_=changed),
        rows,
    )


def _change_sessions(connection: Connection, batch: Batch, now: int) -> None:
    for chunk in chunks(batch.accepted_sessions):
        connection.execute(update(sessions).where(sessions.c.id.in_(chunk)).values(accepted_at=now))
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


def _count_cancelled(connection: Connection, finished: Sequence[int]) -> None:
    """Count whom cancelled broadcasts did not come to, now that nothing of it is on its way."""
    for shard in connection.execute(
        SHARDS.where(shards.c.id.in_(finished), notifications.c.cancelled_at.is_not(None))
    ).all():
        caught = count_uncome(connection, shard)
        statement = update(notifications).where(notifications.c.id == shard.notification_id)
        connection.execute(statement.values(cancelled=notifications.c.cancelled + caught))


def _is_sqlite(connection: Connection) -> bool:
    return connection.dialect.name == "sqlite"
