"""Write a batch of outcomes in one transaction."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from time import time
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert

from handbell._chunks import chunks
from handbell.delivery.events import Event, SessionClosed, SessionQuarantined
from handbell.delivery.policy.retry import SERVICE_DOWN
from handbell.delivery.queue.shards import SHARDS, count_uncome
from handbell.delivery.webhooks.store import store_calls
from handbell.storage.bulk import insert_columns, sort_out
from handbell.storage.database import Database, driver_of
from handbell.storage.signals import Kind
from handbell.storage.tables import deliveries, notifications, sessions, shards

from .hourly_counts import add_batch
from .outcome_batch import Batch, Ending

Sent = Mapping[tuple[int, str, int], Sequence[int]]
"""See :class:`~handbell.delivery.record.outcome_batch.Batch`."""

_ENDING_FIELDS: Final = Ending._fields
_KEY_FIELDS: Final = frozenset({"notification_id", "number", "gateway", "environment", "urgency"})
# What may have been sent before stays a repeat.
_CHANGED: Final = tuple(
    name for name in _ENDING_FIELDS if name not in _KEY_FIELDS and name != "is_repeat"
)
_REPLACE: Final = (
    "ON CONFLICT (notification_id, number) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in (*_CHANGED, "environment"))
    + ", is_repeat = deliveries.is_repeat OR excluded.is_repeat, worker_id = NULL"
)
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

_INSERT: Final = f"""
    INSERT INTO deliveries ({", ".join(_SENT_COLUMNS)}, is_repeat)
    SELECT {{row}}, {{number}}, 'apns', ?1, 'sent', 200, 1, ?2, ?3, ?3, false
    FROM json_each(?4) WHERE true
    ON CONFLICT (notification_id, number) DO UPDATE SET
        environment = excluded.environment, state = 'sent', status = 200, reason = NULL,
        detail = NULL, begun_at = NULL,
        attempts = attempts + 1, due_at = NULL, worker_id = NULL,
        sent_at = excluded.sent_at, finished_at = excluded.finished_at
"""  # noqa: S608 - names of columns only
_INSERT_SENT: Final = _INSERT.format(row="?5", number="value")
_INSERT_SENT_SINGLY: Final = _INSERT.format(
    row="json_extract(value, '$[0]')", number="json_extract(value, '$[1]')"
)
_FEW: Final = 20
"""Of so many pushes a notification's are written with those of others, by one statement."""
_ACCEPTED: Final = """
    UPDATE sessions SET accepted_at = ?1 WHERE id IN (SELECT value FROM json_each(?2))
"""

_SESSION: Final = sessions.c.id == bindparam("session")
_MOVE: Final = update(sessions).where(_SESSION).values(environment=bindparam("to"))
_CLOSE: Final = (
    update(sessions)
    .where(_SESSION)
    .values(status="closed", reason=bindparam("why"), closed_at=bindparam("at"))
)
_QUARANTINE: Final = (
    update(sessions).where(_SESSION).values(status="quarantined", reason=bindparam("why"))
)
_ADOPT: Final = (
    update(deliveries)
    .where(
        deliveries.c.notification_id == bindparam("row"),
        deliveries.c.number == bindparam("one"),
        deliveries.c.state == "held",
    )
    .values(
        reason=SERVICE_DOWN,
        detail=deliveries.c.reason + ": " + func.coalesce(deliveries.c.detail, ""),
    )
)
_MOVE_SHARD: Final = (
    update(shards).where(shards.c.id == bindparam("shard")).values(position=bindparam("to"))
)


class Recorder:
    """Writes outcomes of deliveries. ``now`` returns UNIX seconds."""

    def __init__(self, database: Database, *, now: Callable[[], float] = time) -> None:
        self._database = database
        self._now = now

    def record(self, batch: Batch) -> set[int]:
        """Write a batch, all or nothing; return what :func:`write_batch` does."""
        with self._database.write() as connection:
            if batch.awaited:
                self._database.signal(Kind.ENDED, batch.awaited)
            if batch.finished_shards or batch.resting_shards:
                self._database.signal(Kind.ENDED)
            return write_batch(connection, batch, now=int(self._now() * 1000))


def write_batch(connection: Connection, batch: Batch, *, now: int) -> set[int]:
    """Write a batch; what was plainly accepted is dated ``now`` (UNIX milliseconds).

    Returns the sessions that stay as they are, although an answer would have closed or quarantined
    them: they were registered again meanwhile, or are closed already. No event tells of them.
    """
    if _is_sqlite(connection):
        _insert_sent(connection, batch.sent, now)
    elif batch.sent:
        _upsert_sent(connection, batch.sent, now)
    if batch.endings:
        _upsert(connection, batch.endings)
    if batch.adopted:
        keys = [{"row": row, "one": number} for row, number in batch.adopted]
        connection.execute(_ADOPT, keys)
    add_batch(connection, batch, now)
    kept = _change_sessions(connection, batch, now)
    for shard, position in batch.positions.items():
        connection.execute(_MOVE_SHARD, {"shard": shard, "to": position})
    for shard, (due_at, reason) in batch.resting_shards.items():
        rest = update(shards).where(shards.c.id == shard)
        connection.execute(rest.values(due_at=due_at, reason=reason, worker_id=None))
    if batch.finished_shards:
        _count_cancelled(connection, batch.finished_shards)
        connection.execute(delete(shards).where(shards.c.id.in_(batch.finished_shards)))
    told = [event for event in batch.webhook_events if is_true(event, kept)]
    if told:
        store_calls(connection, told, now=now / 1000)
    return kept


def is_true(event: Event, kept: Collection[int]) -> bool:
    """Return whether an event holds where these sessions stay as they are."""
    if isinstance(event, SessionClosed | SessionQuarantined):
        return event.session_id not in kept
    return True


def _insert_sent(connection: Connection, sent: Sent, now: int) -> None:
    # One statement runs without the interpreter; thousands would contend with the event loop.
    singles: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for (row, environment, urgency), numbers in sent.items():
        if len(numbers) > _FEW:
            values = (environment, urgency, now, json.dumps(numbers), row)
            connection.exec_driver_sql(_INSERT_SENT, values)
        else:
            pairs = singles.setdefault((environment, urgency), [])
            pairs += [(row, number) for number in numbers]
    for (environment, urgency), pairs in singles.items():
        single = (environment, urgency, now, json.dumps(pairs))
        connection.exec_driver_sql(_INSERT_SENT_SINGLY, single)


def _upsert_sent(connection: Connection, sent: Sent, now: int) -> None:
    statement: Any = postgresql_insert(deliveries)
    there = {
        **dict.fromkeys(("reason", "detail", "begun_at", "due_at", "worker_id")),
        **{name: statement.excluded[name] for name in ("environment", "state", "status")},
        **{name: statement.excluded[name] for name in ("sent_at", "finished_at")},
        "attempts": deliveries.c.attempts + 1,
    }
    rows = [
        {
            "notification_id": row,
            "number": number,
            "gateway": "apns",
            "environment": environment,
            "state": "sent",
            "status": 200,
            "attempts": 1,
            "urgency": urgency,
            "sent_at": now,
            "finished_at": now,
        }
        for (row, environment, urgency), numbers in sent.items()
        for number in numbers
    ]
    key = ["notification_id", "number"]
    connection.execute(statement.on_conflict_do_update(index_elements=key, set_=there), rows)


def _upsert(connection: Connection, endings: Sequence[Ending]) -> None:
    driver = driver_of(connection)
    if driver is not None:
        columns = dict(zip(_ENDING_FIELDS, zip(*endings, strict=True), strict=True))
        same, varying = sort_out(columns, "number")
        insert_columns(driver, deliveries, varying, same, _REPLACE)
        return
    statement: Any = postgresql_insert(deliveries)
    changed = {name: statement.excluded[name] for name in (*_CHANGED, "environment")}
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["notification_id", "number"],
            set_={
                **changed,
                "is_repeat": deliveries.c.is_repeat | statement.excluded.is_repeat,
                "worker_id": None,
            },
        ),
        [one._asdict() for one in endings],
    )


def _change_sessions(connection: Connection, batch: Batch, now: int) -> set[int]:
    _note_accepted(connection, batch.accepted_sessions, now)
    moved = [{"session": one, "to": to} for one, to in batch.moved.items()]
    if moved:
        connection.execute(_MOVE, moved)
    judged = [*batch.gone, *batch.refused]
    if not judged:
        return set()
    found = {row.id: row for chunk in chunks(judged) for row in _lock(connection, chunk)}
    gone = [one for one, (since, _) in batch.gone.items() if _is_gone(found.get(one), since)]
    refused = [one for one in batch.refused if one in found and found[one].status == "active"]
    if gone:
        values = [{"session": one, "why": batch.gone[one][1], "at": now} for one in gone]
        connection.execute(_CLOSE, values)
    if refused:
        reasons = [{"session": one, "why": batch.refused[one]} for one in refused]
        connection.execute(_QUARANTINE, reasons)
    return set(judged).difference(gone, refused)


def _lock(connection: Connection, session_ids: Sequence[int]) -> Sequence[Any]:
    """Return how sessions stand; nobody else changes them before the transaction ends."""
    columns = (sessions.c.id, sessions.c.status, sessions.c.registered_at)
    statement = select(*columns).where(sessions.c.id.in_(session_ids)).with_for_update()
    return connection.execute(statement).all()


def _is_gone(session: Any | None, since: int | None) -> bool:
    """Return whether a session is closed whose device is gone ``since`` (UNIX milliseconds).

    Without the service's instant it is unknown whether the device registered after it.
    """
    # A claim that was never proven must not be reopened by its secret.
    if session is None or session.status not in ("active", "quarantined"):
        return False
    return since is None or session.registered_at < since


def _note_accepted(connection: Connection, numbers: Sequence[int], now: int) -> None:
    if numbers and _is_sqlite(connection):
        connection.exec_driver_sql(_ACCEPTED, (now, json.dumps(numbers)))
        return
    for chunk in chunks(numbers):
        connection.execute(update(sessions).where(sessions.c.id.in_(chunk)).values(accepted_at=now))


def _count_cancelled(connection: Connection, finished: Sequence[int]) -> None:
    """Count the sessions that cancelled broadcasts did not reach, once none of it is in flight."""
    for shard in connection.execute(
        SHARDS.where(shards.c.id.in_(finished), notifications.c.cancelled_at.is_not(None))
    ).all():
        caught = count_uncome(connection, [shard])
        statement = update(notifications).where(notifications.c.id == shard.notification_id)
        connection.execute(statement.values(cancelled=notifications.c.cancelled + caught))


def _is_sqlite(connection: Connection) -> bool:
    return connection.dialect.name == "sqlite"
