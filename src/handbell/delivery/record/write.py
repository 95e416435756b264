"""Write a batch of outcomes in one transaction."""

from collections.abc import Callable, Collection, Mapping, Sequence
from time import time
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, bindparam, delete, func, select, update

from handbell._chunks import chunks
from handbell.delivery.events import Event, SessionClosed, SessionQuarantined
from handbell.delivery.policy.retry import SERVICE_DOWN
from handbell.delivery.queue.shards import SHARDS, count_uncome
from handbell.delivery.webhooks.store import store_calls
from handbell.services.table import SERVICES
from handbell.storage.bulk import Columns, upsert_rows
from handbell.storage.database import Database
from handbell.storage.lists import each, in_list
from handbell.storage.signals import Kind
from handbell.storage.statements import Statement
from handbell.storage.tables import deliveries, notifications, sessions, shards

from .hourly_counts import add_batch
from .outcome_batch import Batch, Ending, SentKey

Sent = Mapping[SentKey, Sequence[int]]
"""See :class:`~handbell.delivery.record.outcome_batch.Batch`."""

_KEY: Final = ("notification_id", "number")
_ENDING_FIELDS: Final = Ending._fields
_KEY_FIELDS: Final = frozenset({*_KEY, "urgency"})
# A delivery that may have been sent before stays a repeat.
_REPLACED: Final = tuple(
    name for name in _ENDING_FIELDS if name not in _KEY_FIELDS and name != "is_repeat"
)
_CHANGED: Final = {
    "is_repeat": "deliveries.is_repeat OR excluded.is_repeat",
    "worker_id": "NULL",
}
_SENT: Final = {
    "state": "sent",
    "attempts": 1,
    "is_repeat": False,
}
_SENT_KEY: Final = ("notification_id", "gateway", "environment", "urgency")
_SENT_REPLACED: Final = ("status", "gateway", "environment", "sent_at", "finished_at")
_SENT_CHANGED: Final = {
    "state": "'sent'",
    **dict.fromkeys(("reason", "detail", "begun_at", "due_at", "worker_id"), "NULL"),
    "attempts": "deliveries.attempts + 1",
}
_OK: Final = 200
_FEW: Final = 20
"""Up to so many pushes of a notification are written in one statement with those of others."""

_NUMBERS: Final = each("numbers", BigInteger)
_ACCEPTED: Final = Statement(
    update(sessions)
    .where(sessions.c.id.in_(select(_NUMBERS.c.value)))
    .values(accepted_at=bindparam("now"))
)
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
    update(shards)
    .where(shards.c.id == bindparam("shard"))
    .values(position=bindparam("to"), failures=0)
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
    """Write a batch; plain successes are dated ``now`` (UNIX milliseconds).

    Returns the sessions that are unchanged, although an answer would have closed or quarantined
    them: they were registered again meanwhile, or are closed already. No event reports them.
    """
    _lock_shards(connection, {*batch.positions, *batch.resting_shards, *batch.finished_shards})
    _write_sent(connection, batch.sent, now)
    if batch.endings:
        columns = dict(zip(_ENDING_FIELDS, zip(*batch.endings, strict=True), strict=True))
        upsert_rows(connection, deliveries, columns, key=_KEY, replaced=_REPLACED, changed=_CHANGED)
    if batch.adopted:
        keys = [{"row": row, "one": number} for row, number in batch.adopted]
        connection.execute(_ADOPT, keys)
    add_batch(connection, batch, now)
    kept = _change_sessions(connection, batch, now)
    for shard, position in batch.positions.items():
        connection.execute(_MOVE_SHARD, {"shard": shard, "to": position})
    for shard, resting in batch.resting_shards.items():
        rest = update(shards).where(shards.c.id == shard)
        connection.execute(rest.values(**resting._asdict(), worker_id=None))
    if batch.finished_shards:
        _count_cancelled(connection, batch.finished_shards)
        connection.execute(delete(shards).where(shards.c.id.in_(batch.finished_shards)))
    told = [event for event in batch.webhook_events if is_true(event, kept)]
    if told:
        store_calls(connection, told, now=now / 1000)
    return kept


def is_true(event: Event, kept: Collection[int]) -> bool:
    """Return whether an event still holds if these sessions are unchanged."""
    if isinstance(event, SessionClosed | SessionQuarantined):
        return event.session_id not in kept
    return True


def _write_sent(connection: Connection, sent: Sent, now: int) -> None:
    few: list[tuple[int, str, str, int, int, int]] = []
    for key, numbers in sent.items():
        if len(numbers) > _FEW:
            same = dict(zip(_SENT_KEY, key, strict=True)) | {"status": _accepted_status(key)}
            _upsert_sent(connection, {"number": numbers}, same, now)
        else:
            few += [(*key, _accepted_status(key), number) for number in numbers]
    if few:
        names = (*_SENT_KEY, "status", "number")
        _upsert_sent(connection, dict(zip(names, zip(*few, strict=True), strict=True)), {}, now)


def _accepted_status(key: SentKey) -> int:
    service = SERVICES.get(key[1])
    return _OK if service is None else service.accepted_status


def _upsert_sent(
    connection: Connection, columns: Columns, same: Mapping[str, Any], now: int
) -> None:
    upsert_rows(
        connection,
        deliveries,
        columns,
        key=_KEY,
        same={**same, **_SENT, "sent_at": now, "finished_at": now},
        replaced=_SENT_REPLACED,
        changed=_SENT_CHANGED,
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
    """Lock sessions until the end of the transaction, and return their rows."""
    columns = (sessions.c.id, sessions.c.status, sessions.c.registered_at)
    statement = (
        select(*columns)
        .where(sessions.c.id.in_(session_ids))
        .order_by(sessions.c.id)
        .with_for_update()
    )
    return connection.execute(statement).all()


def _is_gone(session: Any | None, since: int | None) -> bool:
    """Return whether to close a session whose device is gone ``since`` (UNIX milliseconds).

    Without a timestamp of the service it is unknown whether the device registered after it.
    """
    # A claim that was never proven must not be reopened by its secret.
    if session is None or session.status not in ("active", "quarantined"):
        return False
    return since is None or session.registered_at < since


def _note_accepted(connection: Connection, numbers: Sequence[int], now: int) -> None:
    if numbers:
        _ACCEPTED.run(connection, numbers=sorted(numbers), now=now)


def _lock_shards(connection: Connection, mine: Collection[int]) -> None:
    """Lock shards before deliveries, as a cancel does, which is seen then once it is committed."""
    if mine:
        locked = select(shards.c.id).where(in_list(shards.c.id, mine)).order_by(shards.c.id)
        connection.execute(locked.with_for_update())


def _count_cancelled(connection: Connection, finished: Sequence[int]) -> None:
    """Count the sessions that cancelled broadcasts did not reach, once nothing is in flight."""
    for shard in connection.execute(
        SHARDS.where(shards.c.id.in_(finished), notifications.c.cancelled_at.is_not(None))
    ).all():
        caught = count_uncome(connection, [shard])
        statement = update(notifications).where(notifications.c.id == shard.notification_id)
        connection.execute(statement.values(cancelled=notifications.c.cancelled + caught))
