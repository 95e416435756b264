"""How sends are stored: many in one transaction, each with its own outcome."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, repeat
from typing import Any, Final, NamedTuple

from pydantic_core import to_json
from sqlalchemy import Connection, and_, bindparam, func, insert, literal, select

from handbell.apps.app import App
from handbell.creation.notification import Notification, shared_dict
from handbell.delivery.addresses import stored_form
from handbell.delivery.delivery import Target
from handbell.delivery.ids import new_notification_id
from handbell.delivery.ledger.listing import TEST_MARK
from handbell.delivery.policy.parts import SCHEDULED, ShardPart
from handbell.delivery.policy.schedule import Instant, SendAt, due_at
from handbell.delivery.policy.zones import DEFAULT_ZONE
from handbell.delivery.queue.due import Due
from handbell.delivery.queue.session_pages import may_have_arrived
from handbell.delivery.queue.shards import spanned
from handbell.delivery.urgency import NORMAL
from handbell.errors import IdempotencyError
from handbell.storage.bulk import Columns, insert_new, insert_numbered, insert_rows
from handbell.storage.connections import Quick
from handbell.storage.lists import each, look_up
from handbell.storage.statements import Statement
from handbell.storage.tables import (
    ADDRESSED,
    deliveries,
    idempotency,
    notifications,
    sessions,
    shards,
)

_KEY_COLUMNS: Final = ("app", "key", "fingerprint", "notification_id", "created_at")
_STATE_COLUMNS: Final = ("urgency", "state", "reason", "worker_id", "due_at")
_KEYS: Final = each("keys")
ASK_KEYS: Final = Statement(
    select(idempotency.c.key, idempotency.c.fingerprint, idempotency.c.notification_id).select_from(
        look_up(
            _KEYS,
            idempotency,
            and_(idempotency.c.app == bindparam("app"), idempotency.c.key == _KEYS.c.value),
        )
    )
)
_PUBLIC_IDS: Final = each("public_ids")
_ASK_ROWS: Final = Statement(
    select(notifications.c.public_id, notifications.c.id).select_from(
        look_up(_PUBLIC_IDS, notifications, notifications.c.public_id == _PUBLIC_IDS.c.value)
    )
)
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
    _text: str | None = None

    @property
    def text(self) -> str:
        """The content as the ledger keeps it: JSON, made when it is first asked for."""
        if self._text is None:
            self._text = to_json(shared_dict(self.content)).decode()
        return self._text

    @property
    def fingerprint(self) -> str:
        """What two sends with one idempotency key have to have in common."""
        return fingerprint(
            self.app.id,
            shared_dict(self.content),
            self.recipients,
            send_at=self.send_at,
            urgency=self.urgency,
        )


@dataclass(slots=True, kw_only=True)
class Draft:
    """A send that is to be stored.

    ``targets`` is None for everybody, or for those who got the order's source. With a ``worker``
    what is due at once is taken for it in the same step. ``parts`` are those of everybody by time
    zone, where they do not fall due together. ``default_zone`` is that of recipients without one.
    """

    order: Order
    targets: Sequence[Target] | None
    worker: int | None = None
    parts: Sequence[ShardPart] = ()
    default_zone: str | None = None


class Acceptance(NamedTuple):
    """A stored send: its row, its public id, and the deliveries that were taken along at once.

    ``is_former`` says that the idempotency key was known and nothing new was stored. ``warnings``
    name who will not be reached.
    """

    row: int
    id: str
    taken: tuple[Due, ...] = ()
    is_former: bool = False
    warnings: tuple[str, ...] = ()

    def warning(self, warnings: Sequence[str]) -> "Acceptance":
        """Return it with these warnings."""
        return self._replace(warnings=tuple(warnings)) if warnings else self


_encode_spaced: Final = json.JSONEncoder(ensure_ascii=False).encode
_COMPARED: Final = frozenset({"everybody", TEST_MARK})

Former = Acceptance | IdempotencyError | None
"""What an idempotency key says: the first answer, that it was another send's, or nothing."""

Key = tuple[str, str]
"""An idempotency key: the app's id, and what the sender named."""


class _Known(NamedTuple):
    """What is stored of an idempotency key."""

    key: str
    fingerprint: str
    notification_id: str


def read_former(connection: Quick, orders: Sequence[Order]) -> list[Former]:
    """Return for each order what its idempotency key says."""
    known = _read_keys(connection, orders)
    named = {one.notification_id for one in known.values()}
    rows = dict(_ASK_ROWS.rows(connection, public_ids=sorted(named))) if named else {}
    return [_former(order, known.get(_key(order)), rows) for order in orders]


def _former(order: Order, known: _Known | None, rows: Mapping[str, int]) -> Former:
    if known is None:
        return None
    if known.fingerprint != order.fingerprint or known.notification_id not in rows:
        return IdempotencyError(
            f"The idempotency key {order.idempotency_key!r} was used for another notification",
            fix="Use a new key for each notification, and the same one only to repeat it",
        )
    public_id = known.notification_id
    return Acceptance(row=rows[public_id], id=public_id, is_former=True)


def needs_core(drafts: Iterable[Draft]) -> bool:
    """Return whether storing these takes a connection of SQLAlchemy's."""
    return any(one.targets is None for one in drafts)


def leaves_work(draft: Draft, now: int) -> bool:
    """Return whether storing a send leaves something that is due, and that nobody has taken."""
    send_at = draft.order.send_at
    is_later = isinstance(send_at, Instant) and send_at.seconds * 1000 > now
    return not is_later and (draft.targets is None or _worker_of(draft) is None)


def store_drafts(
    connection: Quick, drafts: Sequence[Draft], *, now: int
) -> list[Acceptance | IdempotencyError]:
    """Store sends within a transaction; of those with one idempotency key, the first one.

    ``now`` is in UNIX milliseconds. Where :func:`needs_core` says so, the connection is
    SQLAlchemy's.
    """
    are_fresh = _claim_keys(connection, [draft.order for draft in drafts], now)
    if all(are_fresh):
        return [*_insert(connection, drafts, now)]
    fresh = [draft for draft, is_fresh in zip(drafts, are_fresh, strict=True) if is_fresh]
    stored = iter(_insert(connection, fresh, now) if fresh else [])
    former = read_former(connection, [draft.order for draft in drafts])
    outcomes: list[Acceptance | IdempotencyError] = []
    for is_fresh, known in zip(are_fresh, former, strict=True):
        mine = next(stored) if is_fresh else known
        assert mine is not None  # noqa: S101 - a key that is not free is known
        outcomes.append(mine)
    return outcomes


def _claim_keys(connection: Quick, orders: Sequence[Order], now: int) -> list[bool]:
    """Enter the idempotency keys, and say of each order whether its key is its own, or none.

    Where several processes write at once, the one that comes second waits here for the first.
    """
    keyed = {_key(order): order for order in reversed(orders) if order.idempotency_key is not None}
    if not keyed:
        return [True] * len(orders)
    # In one order everywhere, so that two processes never wait for each other.
    rows = [
        (app, key, order.fingerprint, order.public_id, now)
        for (app, key), order in sorted(keyed.items())
    ]
    columns = dict(zip(_KEY_COLUMNS, zip(*rows, strict=True), strict=True))
    free = set(insert_new(connection, idempotency, columns, returned=("app", "key")))
    return [order.idempotency_key is None or _take(free, _key(order)) for order in orders]


def _take(free: set[Key], key: Key) -> bool:
    """Take a key for the first that asks for it."""
    if key not in free:
        return False
    free.remove(key)
    return True


def _key(order: Order) -> Key:
    return order.app.id, order.idempotency_key or ""


def _read_keys(connection: Quick, orders: Sequence[Order]) -> dict[Key, _Known]:
    by_app: dict[str, list[str]] = {}
    for order in orders:
        if order.idempotency_key is not None:
            by_app.setdefault(order.app.id, []).append(order.idempotency_key)
    return {
        (app, known.key): known
        for app, keys in by_app.items()
        for known in _keys(connection, app, keys)
    }


def _keys(connection: Quick, app: str, keys: Sequence[str]) -> Iterator[_Known]:
    return map(_Known._make, ASK_KEYS.rows(connection, app=app, keys=keys))


def _insert(connection: Quick, drafts: Sequence[Draft], now: int) -> list[Acceptance]:
    """Insert sends that are new, and return what was stored, in their order."""
    orders = [draft.order for draft in drafts]
    columns = _notification_columns(orders, now)
    rows = insert_numbered(connection, notifications, columns, by="public_id")
    insert_rows(connection, deliveries, _delivery_columns(drafts, rows, now))
    stored: list[Acceptance] = []
    spans: list[dict[str, Any]] = []
    for draft, row in zip(drafts, rows, strict=True):
        taken: tuple[Due, ...] = ()
        if draft.targets is None:
            assert isinstance(connection, Connection)  # noqa: S101 - needs_core() said so
            spans += _shard_rows(connection, draft, row, now)
        elif _worker_of(draft) is not None:
            taken = _due(row, draft.targets)
        stored.append(Acceptance(row=row, id=draft.order.public_id, taken=taken))
    if spans:
        assert isinstance(connection, Connection)  # noqa: S101 - needs_core() said so
        connection.execute(insert(shards), spans)
    return stored


def _notification_columns(orders: Sequence[Order], now: int) -> Columns:
    return {
        "public_id": [one.public_id for one in orders],
        "app": [one.app.id for one in orders],
        "content": [one.text for one in orders],
        "recipients": [_text_of(one.recipients) for one in orders],
        "created_at": [now if one.created_at is None else one.created_at for one in orders],
        "urgency": [one.urgency for one in orders],
        "send_at": [None if one.send_at is None else str(one.send_at) for one in orders],
        "is_development": [one.is_development for one in orders],
        "is_loud": [one.is_loud for one in orders],
        "sealed_key": [one.sealed_key for one in orders],
        "replaces": [one.replaces for one in orders],
    }


def _text_of(recipients: Mapping[str, Any]) -> str:
    """Return recipients as the ledger keeps them; those that it compares as texts have spaces."""
    if _COMPARED.isdisjoint(recipients):
        return to_json(recipients).decode()
    return _encode_spaced(recipients)


def _worker_of(draft: Draft) -> int | None:
    """Return who has taken a send; nobody takes what has a time of its own."""
    return draft.worker if draft.order.send_at is None else None


def _delivery_columns(drafts: Sequence[Draft], rows: Sequence[int], now: int) -> Columns:
    ids: list[int] = []
    numbers: list[int] = []
    targets: list[Target] = []
    states: list[tuple[object, ...]] = []
    for draft, row in zip(drafts, rows, strict=True):
        mine = draft.targets or ()
        targets += mine
        numbers += _numbers(mine)
        ids += [row] * len(mine)
        states += _delivery_states(draft, mine, now)
    of_all = zip(*states, strict=True) if states else repeat(())
    return {
        "notification_id": ids,
        "number": numbers,
        "gateway": [one.gateway for one in targets],
        "address": [
            stored_form(one.address, one.details) if one.session_id is None else None
            for one in targets
        ],
        "environment": [one.environment for one in targets],
        **{name: list(column) for name, column in zip(_STATE_COLUMNS, of_all, strict=False)},
    }


_DeliveryState = tuple[int, str, str | None, int | None, int | None]
"""The urgency, state, reason, worker and time of a delivery."""


def _delivery_states(draft: Draft, targets: Sequence[Target], now: int) -> list[_DeliveryState]:
    """Return how each of a send's deliveries begins: taken, due, or waiting for its time."""
    order, worker = draft.order, _worker_of(draft)
    if worker is not None:
        return [(order.urgency, "sending", None, worker, None)] * len(targets)
    send_at = order.send_at
    if send_at is None:
        return [_waiting(order, now, now)] * len(targets)
    default = draft.default_zone or DEFAULT_ZONE
    of_zone = {
        zone: _waiting(order, int(due_at(send_at, zone, default) * 1000), now)
        for zone in {target.time_zone for target in targets}
    }
    return [of_zone[target.time_zone] for target in targets]


def _waiting(order: Order, due: int, now: int) -> _DeliveryState:
    state, reason = ("queued", None) if due <= now else ("held", SCHEDULED)
    return order.urgency, state, reason, None, max(due, now)


def _shard_rows(connection: Connection, draft: Draft, row: int, now: int) -> list[dict[str, Any]]:
    """Return the shards of a send to everybody; what has no session becomes rows at once."""
    order = draft.order
    if order.source is not None:
        _insert_addressed(connection, order, row, now)
    first, last = connection.execute(_BOUNDS, {"app": order.app.row}).one()
    if first is None:
        return []
    due = order.send_at.seconds if isinstance(order.send_at, Instant) else 0
    parts = draft.parts or [ShardPart(due, SCHEDULED if due * 1000 > now else None, None)]
    span = spanned(first, last) * min(len(parts), _MOST_SPANS)
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
        may_have_arrived(deliveries),
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
            details=target.details,
        )
        for number, target in zip(_numbers(targets), targets, strict=True)
    )


def _numbers(targets: Sequence[Target]) -> list[int]:
    """Return the delivery number of each target: its session's id, or a count of addresses."""
    addressed = count(ADDRESSED)
    return [
        next(addressed) if target.session_id is None else target.session_id for target in targets
    ]
