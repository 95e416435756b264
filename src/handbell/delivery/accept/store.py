"""How sends are stored: many in one transaction, each with its own outcome."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Final

from pydantic_core import to_json
from sqlalchemy import Connection, Row, bindparam, func, insert, literal, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.delivery.delivery import Target
from handbell.delivery.ids import new_notification_id
from handbell.delivery.policy.parts import SCHEDULED, Part
from handbell.delivery.policy.schedule import Instant, SendAt
from handbell.delivery.queue.due import Due
from handbell.delivery.queue.shards import SHARD_SESSIONS
from handbell.delivery.urgency import NORMAL
from handbell.errors import IdempotencyError
from handbell.storage.tables import (
    ADDRESSED,
    deliveries,
    idempotency,
    notifications,
    sessions,
    shards,
)

from .bulk_insert import insert_deliveries, insert_notifications

_NAMED_AT_ONCE: Final = 1000
_MOST_SPANS: Final = 8
_BOUNDS: Final = select(func.min(sessions.c.id), func.max(sessions.c.id)).where(
    sessions.c.app_id == bindparam("app"), sessions.c.status == "active"
)


_encode_sorted: Final = json.JSONEncoder(sort_keys=True).encode


def fingerprint(
    app_id: str,
    content: Mapping[str, Any],
    recipients: Mapping[str, Any],
    *,
    send_at: SendAt | None = None,
    urgency: int = NORMAL,
) -> str:
    """Return what two sends with one idempotency key have to have in common."""
    whole = [app_id, content, recipients, None if send_at is None else str(send_at), urgency]
    return hashlib.sha256(_encode_sorted(whole).encode()).hexdigest()


@dataclass(slots=True, kw_only=True)
class Order:
    """Everything that is needed to finish a send, whatever happens to the sender.

    ``recipients`` is kept as it was named, for whoever asks later. ``sealed_key`` is the
    credential of an app that is not in the registry. ``source`` is the row of the notification
    whose recipients this one goes to. ``is_loud`` says that a cap counts it. ``created_at`` is in
    UNIX milliseconds; None is when it is stored.
    """

    app: App
    content: Notification
    recipients: dict[str, Any]
    public_id: str = field(default_factory=new_notification_id)
    created_at: int | None = None
    urgency: int = NORMAL
    send_at: SendAt | None = None
    is_development: bool = False
    is_loud: bool = True
    sealed_key: bytes | None = None
    idempotency_key: str | None = None
    source: int | None = None
    replaces: str | None = None

    @property
    def fingerprint(self) -> str:
        """What two sends with one idempotency key have to have in common."""
        return fingerprint(
            self.app.id,
            self.content.to_dict(),
            self.recipients,
            send_at=self.send_at,
            urgency=self.urgency,
        )


@dataclass(slots=True, kw_only=True)
class Draft:
    """A send that is to be stored.

    ``targets`` is None for everybody, or for those who got the order's source. With a ``worker``
    what is due at once is taken for it in the same step. ``parts`` are those of everybody by time
    zone, where they do not fall due together.
    """

    order: Order
    targets: Sequence[Target] | None
    worker: int | None = None
    parts: Sequence[Part] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """A stored send: its row, its public id, and the deliveries that were taken along at once.

    ``is_former`` says that the idempotency key was known and nothing new was stored. ``warnings``
    name who will not be reached.
    """

    row: int
    id: str
    taken: tuple[Due, ...] = ()
    is_former: bool = False
    warnings: tuple[str, ...] = ()

    def warning(self, warnings: Iterable[str]) -> "Acceptance":
        """Return it with these warnings."""
        told = tuple(warnings)
        return replace(self, warnings=told) if told else self


_encode: Final = json.JSONEncoder(ensure_ascii=False).encode

Former = Acceptance | IdempotencyError | None
"""What an idempotency key says: the first answer, that it was another send's, or nothing."""


def read_former(connection: Connection, orders: Sequence[Order]) -> list[Former]:
    """Return for each order what its idempotency key says."""
    known = _read_keys(connection, orders)
    named = {row.notification_id for row in known.values()}
    rows = _rows_of(connection, sorted(named))
    return [_former(order, known.get(_key(order)), rows) for order in orders]


def _former(order: Order, known: Row[Any] | None, rows: Mapping[str, int]) -> Former:
    if known is None:
        return None
    if known.fingerprint != order.fingerprint or known.notification_id not in rows:
        return IdempotencyError(
            f"The idempotency key {order.idempotency_key!r} was used for another notification",
            fix="Use a new key for each notification, and the same one only to repeat it",
        )
    public_id = known.notification_id
    return Acceptance(row=rows[public_id], id=public_id, is_former=True)


def store_drafts(
    connection: Connection, drafts: Sequence[Draft], *, now: int
) -> list[Acceptance | IdempotencyError]:
    """Store sends within a transaction; of those with one idempotency key, the first one.

    ``now`` is in UNIX milliseconds.
    """
    are_fresh = _claim_keys(connection, [draft.order for draft in drafts], now)
    fresh = [draft for draft, is_fresh in zip(drafts, are_fresh, strict=True) if is_fresh]
    stored = _insert(connection, fresh, now)
    if len(fresh) == len(drafts):
        return [stored[draft.order.public_id] for draft in drafts]
    former = read_former(connection, [draft.order for draft in drafts])
    return [
        known if known is not None and not is_fresh else stored[draft.order.public_id]
        for draft, is_fresh, known in zip(drafts, are_fresh, former, strict=True)
    ]


def _claim_keys(connection: Connection, orders: Sequence[Order], now: int) -> list[bool]:
    """Enter the idempotency keys, and say of each order whether its key is its own, or none.

    Where several processes write at once, the one that comes second waits here for the first.
    """
    keyed = {_key(order): order for order in reversed(orders) if order.idempotency_key is not None}
    if not keyed:
        return [True] * len(orders)
    add: Any = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    statement = add(idempotency).on_conflict_do_nothing()
    # In one order everywhere, so that two processes never wait for each other.
    rows = [
        {
            "app": app,
            "key": key,
            "fingerprint": order.fingerprint,
            "notification_id": order.public_id,
            "created_at": now,
        }
        for (app, key), order in sorted(keyed.items())
    ]
    entered = connection.execute(statement.returning(idempotency.c.app, idempotency.c.key), rows)
    free = {(app, key) for app, key in entered}
    return [order.idempotency_key is None or _take(free, _key(order)) for order in orders]


def _take(free: set[tuple[str, str]], key: tuple[str, str]) -> bool:
    """Take a key for the first that asks for it."""
    if key not in free:
        return False
    free.remove(key)
    return True


def _key(order: Order) -> tuple[str, str]:
    return order.app.id, order.idempotency_key or ""


def _read_keys(connection: Connection, orders: Sequence[Order]) -> dict[tuple[str, str], Row[Any]]:
    by_app: dict[str, list[str]] = {}
    for order in orders:
        if order.idempotency_key is not None:
            by_app.setdefault(order.app.id, []).append(order.idempotency_key)
    return {
        (app, row.key): row
        for app, keys in by_app.items()
        for chunk in _chunks(keys)
        for row in connection.execute(
            select(idempotency).where(idempotency.c.app == app, idempotency.c.key.in_(chunk))
        )
    }


def _rows_of(connection: Connection, public_ids: Sequence[str]) -> dict[str, int]:
    return {
        row.public_id: row.id
        for chunk in _chunks(public_ids)
        for row in connection.execute(
            select(notifications.c.public_id, notifications.c.id).where(
                notifications.c.public_id.in_(chunk)
            )
        )
    }


def _insert(connection: Connection, drafts: Sequence[Draft], now: int) -> dict[str, Acceptance]:
    """Insert sends that are new, and return what was stored, by public id."""
    if not drafts:
        return {}
    values = [_notification_values(draft.order, now) for draft in drafts]
    ids = insert_notifications(connection, values)
    stored: dict[str, Acceptance] = {}
    rows: list[dict[str, Any]] = []
    spans: list[dict[str, Any]] = []
    for draft, row in zip(drafts, ids, strict=True):
        order = draft.order
        if draft.targets is None:
            spans += _shard_rows(connection, draft, row, now)
            taken: tuple[Due, ...] = ()
        else:
            worker = draft.worker if order.send_at is None else None
            rows += _delivery_rows(order, row, draft.targets, worker, now)
            taken = () if worker is None else _due(row, draft.targets)
        stored[order.public_id] = Acceptance(row=row, id=order.public_id, taken=taken)
    insert_deliveries(connection, rows)
    if spans:
        connection.execute(insert(shards), spans)
    return stored


def _notification_values(order: Order, now: int) -> dict[str, Any]:
    return {
        "public_id": order.public_id,
        "app": order.app.id,
        "content": to_json(order.content.to_dict()).decode(),
        "recipients": _encode(order.recipients),
        "created_at": now if order.created_at is None else order.created_at,
        "urgency": order.urgency,
        "send_at": None if order.send_at is None else str(order.send_at),
        "is_development": order.is_development,
        "is_loud": order.is_loud,
        "sealed_key": order.sealed_key,
        "replaces": order.replaces,
    }


def _shard_rows(connection: Connection, draft: Draft, row: int, now: int) -> list[dict[str, Any]]:
    """Return the shards of a send to everybody; what has no session becomes rows at once."""
    order = draft.order
    if order.source is not None:
        _insert_addressed(connection, order, row, now)
    first, last = connection.execute(_BOUNDS, {"app": order.app.row}).one()
    if first is None:
        return []
    due_at = order.send_at.seconds if isinstance(order.send_at, Instant) else 0
    parts = draft.parts or [Part(due_at, SCHEDULED if due_at * 1000 > now else None, None)]
    span = SHARD_SESSIONS * min(len(parts), _MOST_SPANS)
    return [
        {
            "notification_id": row,
            "source_id": order.source,
            "urgency": order.urgency,
            "position": start - 1,
            "last": min(start + span - 1, last),
            "due_at": max(int(part.due_at * 1000), now),
            "reason": part.reason,
            "zones": part.zones,
            "is_split": len(parts) > 1,
        }
        for part in parts
        for start in range(first, last + 1, span)
    ]


def _insert_addressed(connection: Connection, order: Order, row: int, now: int) -> None:
    """Insert deliveries to the addresses without a session that got the order's source."""
    kept = ("number", "gateway", "address", "environment")
    got = select(
        literal(row),
        literal("queued"),
        literal(order.urgency),
        literal(now),
        *(deliveries.c[name] for name in kept),
    ).where(
        deliveries.c.notification_id == order.source,
        deliveries.c.number >= ADDRESSED,
        deliveries.c.state == "sent",
    )
    columns = ["notification_id", "state", "urgency", "due_at", *kept]
    connection.execute(insert(deliveries).from_select(columns, got))


def _due(row: int, targets: Sequence[Target]) -> tuple[Due, ...]:
    return tuple(
        Due(
            notification=row,
            number=number,
            gateway=target.gateway,
            token=target.address,
            environment=target.environment,
            attempts=0,
            is_repeat=False,
            mail=target.mail,
            user_id=target.user_id,
            time_zone=target.time_zone,
            locale=target.locale,
        )
        for number, target in _numbered(targets)
    )


def _numbered(targets: Sequence[Target]) -> Iterator[tuple[int, Target]]:
    """Yield the delivery number of each target: its session's id, or a count of addresses."""
    addressed = count(ADDRESSED)
    for target in targets:
        yield next(addressed) if target.session_id is None else target.session_id, target


def _delivery_rows(
    order: Order, row: int, targets: Sequence[Target], worker: int | None, now: int
) -> list[dict[str, Any]]:
    due_at = order.send_at.seconds * 1000 if isinstance(order.send_at, Instant) else now
    state, reason = ("queued", None) if due_at <= now else ("held", "Scheduled")
    return [
        {
            "notification_id": row,
            "number": number,
            "gateway": target.gateway,
            "address": target.address if target.session_id is None else None,
            "environment": target.environment,
            "urgency": order.urgency,
            "state": state if worker is None else "sending",
            "reason": reason,
            "worker_id": worker,
            "due_at": max(due_at, now) if worker is None else None,
        }
        for number, target in _numbered(targets)
    ]


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), _NAMED_AT_ONCE):
        yield names[start : start + _NAMED_AT_ONCE]
