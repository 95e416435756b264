"""The ledger: what was accepted, and what became of each delivery."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from time import monotonic, sleep, time
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, exists, func, insert, or_, select, update

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.creation.recipients import EVERYBODY
from handbell.database import Database
from handbell.errors import IdempotencyError, RegistryError
from handbell.tables import (
    ADDRESSED,
    deliveries,
    idempotency,
    notifications,
    sessions,
    shards,
    users,
)

from .delivery import Delivery, Target
from .ids import new_notification_id, read_apns_id
from .queue import NORMAL, SHARD_SESSIONS, SHARDS, Due, count_uncome, session_id
from .timing import Instant, SendAt

NAMED_AMONG: Final = 10_000
"""Among how many of the last sends a person is looked for by name."""
_EVERYBODY: Final = json.dumps(EVERYBODY.to_dict())


CANCEL_SECONDS: Final = 10.0
"""How long a cancel waits for workers to let go of a broadcast."""

_LOOK_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Everything that is needed to finish a send, whatever happens to the sender.

    ``recipients`` is kept as it was named, for whoever asks later. ``sealed_key`` is the
    credential of an app that is not in the registry. ``source`` is the row of the notification
    whose recipients this one goes to.
    """

    app: App
    content: Notification
    recipients: dict[str, Any]
    urgency: int = NORMAL
    send_at: SendAt | None = None
    is_development: bool = False
    sealed_key: bytes | None = None
    idempotency_key: str | None = None
    source: int | None = None
    replaces: str | None = None

    @property
    def fingerprint(self) -> str:
        """What two sends with one idempotency key have to have in common."""
        whole = [
            self.app.id,
            self.content.to_dict(),
            self.recipients,
            None if self.send_at is None else str(self.send_at),
            self.urgency,
        ]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """A stored send: its row, its public id, and the deliveries that were taken along at once.

    ``is_former`` says that the idempotency key was known and nothing new was stored.
    """

    row: int
    id: str
    taken: tuple[Due, ...] = ()
    is_former: bool = False


_DELIVERY: Final = (
    select(
        *(
            column
            for column in deliveries.columns
            if column.name
            not in {"notification_id", "address", "urgency", "worker_id", "is_repeat"}
        ),
        func.coalesce(deliveries.c.address, sessions.c.token).label("address"),
        users.c.mail,
        notifications.c.public_id.label("notification_id"),
        notifications.c.created_at,
    )
    .join_from(deliveries, notifications)
    .outerjoin(sessions, sessions.c.id == deliveries.c.number)
    .outerjoin(users, users.c.id == sessions.c.user_id)
)


class Ledger:
    """Notifications and deliveries in the database. Every method is one transaction."""

    def __init__(self, database: Database, *, now: Callable[[], float] = time) -> None:
        self._database = database
        self._now = now

    def accept(
        self, order: Order, targets: Sequence[Target] | None, *, worker: int | None = None
    ) -> Acceptance:
        """Store a send; once this returns, nothing of it is lost.

        ``targets`` is None for everybody. With a ``worker`` what is due at once is taken for it in
        the same step. Raises IdempotencyError when the key was used for something else.
        """
        with self._database.write() as connection:
            former = self._former(connection, order)
            if former is not None:
                return former
            public_id = new_notification_id()
            row = self._insert(connection, order, public_id)
            if targets is None:
                self._insert_shards(connection, order, row)
                return Acceptance(row=row, id=public_id)
            is_now = worker is not None and order.send_at is None
            taken = self._insert_targets(
                connection, order, row, targets, worker if is_now else None
            )
            return Acceptance(row=row, id=public_id, taken=taken if is_now else ())

    def _former(self, connection: Connection, order: Order) -> Acceptance | None:
        if order.idempotency_key is None:
            return None
        row = connection.execute(
            select(idempotency.c.fingerprint, idempotency.c.notification_id, notifications.c.id)
            .join_from(
                idempotency,
                notifications,
                notifications.c.public_id == idempotency.c.notification_id,
            )
            .where(idempotency.c.app == order.app.id, idempotency.c.key == order.idempotency_key)
        ).one_or_none()
        if row is None:
            return None
        if row.fingerprint != order.fingerprint:
            raise IdempotencyError(
                f"The idempotency key {order.idempotency_key!r} was used for another notification",
                fix="Use a new key for each notification, and the same one only to repeat it",
            )
        return Acceptance(row=row.id, id=row.notification_id, is_former=True)

    def _insert(self, connection: Connection, order: Order, public_id: str) -> int:
        now = self._milliseconds()
        statement = insert(notifications).values(
            public_id=public_id,
            app=order.app.id,
            content=json.dumps(order.content.to_dict(), ensure_ascii=False),
            recipients=json.dumps(order.recipients, ensure_ascii=False),
            created_at=now,
            urgency=order.urgency,
            send_at=None if order.send_at is None else str(order.send_at),
            is_development=order.is_development,
            sealed_key=order.sealed_key,
            replaces=order.replaces,
        )
        row = connection.execute(statement.returning(notifications.c.id)).scalar_one()
        if order.idempotency_key is not None:
            connection.execute(
                insert(idempotency).values(
                    app=order.app.id,
                    key=order.idempotency_key,
                    fingerprint=order.fingerprint,
                    notification_id=public_id,
                    created_at=now,
                )
            )
        return int(row)

    def _insert_shards(self, connection: Connection, order: Order, row: int) -> None:
        first, last = connection.execute(
            select(func.min(sessions.c.id), func.max(sessions.c.id)).where(
                sessions.c.app_id == order.app.row, sessions.c.status == "active"
            )
        ).one()
        if first is None:
            return
        now = self._milliseconds()
        due_at = order.send_at.seconds * 1000 if isinstance(order.send_at, Instant) else now
        rows = [
            {
                "notification_id": row,
                "source_id": order.source,
                "urgency": order.urgency,
                "position": start - 1,
                "last": min(start + SHARD_SESSIONS - 1, last),
                "due_at": max(due_at, now),
            }
            for start in range(first, last + 1, SHARD_SESSIONS)
        ]
        connection.execute(insert(shards), rows)

    def _insert_targets(
        self,
        connection: Connection,
        order: Order,
        row: int,
        targets: Sequence[Target],
        worker: int | None,
    ) -> tuple[Due, ...]:
        addressed = count(ADDRESSED)
        due = tuple(
            Due(
                notification=row,
                number=next(addressed) if target.session_id is None else target.session_id,
                gateway=target.gateway,
                token=target.address,
                environment=target.environment,
                attempts=0,
                is_repeat=False,
                mail=target.mail,
                user_id=target.user_id,
                time_zone=target.time_zone,
            )
            for target in targets
        )
        now = self._milliseconds()
        due_at = order.send_at.seconds * 1000 if isinstance(order.send_at, Instant) else now
        state, reason = ("queued", None) if due_at <= now else ("held", "Scheduled")
        rows = [
            {
                "notification_id": row,
                "number": one.number,
                "gateway": one.gateway,
                "address": one.token if session_id(one.number) is None else None,
                "environment": one.environment,
                "urgency": order.urgency,
                "state": state if worker is None else "sending",
                "reason": reason,
                "worker_id": worker,
                "due_at": max(due_at, now) if worker is None else None,
            }
            for one in due
        ]
        if rows:
            connection.execute(insert(deliveries), rows)
        return due

    def cancel(self, app: App, notification_id: str) -> int:
        """Cancel what of a notification is not on its way yet, and return how many that caught.

        Waits for workers that are about a broadcast to let go of it, so that the number is right;
        but not longer than :data:`CANCEL_SECONDS` for answers that are slow, which it then leaves
        out. Raises RegistryError when the app has no such notification.
        """
        row = self.find(app, notification_id)
        waiting = self._cancel(row.id)
        deadline = monotonic() + CANCEL_SECONDS
        while self._is_in_hand(row.id) and monotonic() < deadline:
            sleep(_LOOK_SECONDS)
        return waiting + int(self.row(row.id).cancelled) - int(row.cancelled)

    def _is_in_hand(self, row: int) -> bool:
        with self._database.read() as connection:
            return bool(connection.scalar(select(exists().where(shards.c.notification_id == row))))

    def _cancel(self, row: int) -> int:
        """Cancel what nobody works on, and return how many deliveries of these had begun."""
        now = self._milliseconds()
        with self._database.write() as connection:
            caught = 0
            mine = shards.c.notification_id == row
            for shard in connection.execute(SHARDS.where(mine, shards.c.worker_id.is_(None))).all():
                caught += count_uncome(connection, shard)
                connection.execute(delete(shards).where(shards.c.id == shard.id))
            waiting = connection.execute(
                update(deliveries)
                .where(
                    deliveries.c.notification_id == row, deliveries.c.state.in_(("queued", "held"))
                )
                .values(state="cancelled", reason="Cancelled", due_at=None, finished_at=now)
            ).rowcount
            connection.execute(
                update(notifications)
                .where(notifications.c.id == row)
                .values(
                    cancelled_at=func.coalesce(notifications.c.cancelled_at, now),
                    cancelled=notifications.c.cancelled + caught,
                )
            )
        return waiting

    def find(self, app: App, notification_id: str) -> Row[Any]:
        """Return the row of an app's notification; raises RegistryError when there is none."""
        statement = select(notifications).where(
            notifications.c.public_id == notification_id, notifications.c.app == app.id
        )
        with self._database.read() as connection:
            found = connection.execute(statement).one_or_none()
        if found is None:
            raise RegistryError(
                f"{app.id} has no notification {notification_id!r}",
                fix="See: handbell notification list",
            )
        return found

    def row(self, row: int) -> Row[Any]:
        """Return a notification's row of the table."""
        statement = select(notifications).where(notifications.c.id == row)
        with self._database.read() as connection:
            return connection.execute(statement).one()

    def deliveries_of(self, notification_id: str) -> list[Delivery]:
        """Return every delivery of a notification: sessions first, then bare addresses."""
        query = _DELIVERY.where(notifications.c.public_id == notification_id)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(deliveries.c.number)).mappings()
            return [Delivery(**row) for row in rows]

    def unsent(self, notification_id: str, limit: int) -> list[Delivery]:
        """Return the first deliveries of a notification that were not accepted, ended or held."""
        query = _DELIVERY.where(
            notifications.c.public_id == notification_id, deliveries.c.state != "sent"
        )
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(deliveries.c.number).limit(limit)).mappings()
            return [Delivery(**row) for row in rows]

    def concerning(
        self, app: App, mail: str, session_ids: Sequence[int], limit: int
    ) -> list[Row[Any]]:
        """Return the newest notifications that went to these sessions, or named their person.

        Sends to everybody are among them. Of those without a delivery to the sessions, only the
        last :data:`NAMED_AMONG` sends are looked at.
        """
        told = (
            select(notifications.c.id)
            .distinct()
            .join_from(deliveries, notifications)
            .where(deliveries.c.number.in_(session_ids), notifications.c.app == app.id)
        )
        name = json.dumps(mail, ensure_ascii=False)
        newest = select(func.max(notifications.c.id)).scalar_subquery()
        named = select(notifications.c.id).where(
            notifications.c.app == app.id,
            notifications.c.id > newest - NAMED_AMONG,
            or_(
                notifications.c.recipients == _EVERYBODY,
                notifications.c.recipients.contains(name, autoescape=True),
            ),
        )
        with self._database.read() as connection:
            found = {
                row
                for statement in (told, named)
                for row in connection.scalars(
                    statement.order_by(notifications.c.id.desc()).limit(limit)
                )
            }
            newest_rows = sorted(found, reverse=True)[:limit]
            statement = select(notifications).where(notifications.c.id.in_(newest_rows))
            return list(connection.execute(statement.order_by(notifications.c.id.desc())))

    def deliveries_to(self, session_ids: Sequence[int], row: int) -> list[Delivery]:
        """Return a notification's deliveries to these sessions."""
        query = _DELIVERY.where(
            deliveries.c.notification_id == row, deliveries.c.number.in_(session_ids)
        )
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(deliveries.c.number)).mappings()
            return [Delivery(**one) for one in rows]

    def is_ahead(self, session_ids: Sequence[int], row: int) -> bool:
        """Return whether a broadcast has yet to come to one of these sessions."""
        statement = select(
            exists().where(
                shards.c.notification_id == row,
                sessions.c.id.in_(session_ids),
                sessions.c.id > shards.c.position,
                sessions.c.id <= shards.c.last,
            )
        )
        with self._database.read() as connection:
            return bool(connection.scalar(statement))

    def counts(self, notification_id: str) -> dict[tuple[str, str | None], int]:
        """Return the number of deliveries of a notification by state and reason."""
        query = (
            select(deliveries.c.state, deliveries.c.reason, func.count())
            .join_from(deliveries, notifications)
            .where(notifications.c.public_id == notification_id)
            .group_by(deliveries.c.state, deliveries.c.reason)
        )
        with self._database.read() as connection:
            return {(state, reason): n for state, reason, n in connection.execute(query)}

    def note_displayed(self, apns_id: str) -> bool:
        """Note that the phone shows it. Returns False when the apns-id is not one of ours."""
        return self._note(apns_id, "displayed_at")

    def note_opened(self, apns_id: str) -> bool:
        """Note that the person opened it. Returns False when the apns-id is not one of ours."""
        return self._note(apns_id, "opened_at")

    def _note(self, apns_id: str, column: str) -> bool:
        named = read_apns_id(apns_id)
        if named is None:
            return False
        notification_id, number = named
        owner = select(notifications.c.id).where(notifications.c.public_id == notification_id)
        # The first report counts: a phone that shows or opens it again changes nothing.
        change = (
            update(deliveries)
            .where(
                deliveries.c.notification_id == owner.scalar_subquery(),
                deliveries.c.number == number,
            )
            .values({column: func.coalesce(deliveries.c[column], self._milliseconds())})
        )
        with self._database.write() as connection:
            return bool(connection.execute(change).rowcount)

    def _milliseconds(self) -> int:
        return int(self._now() * 1000)
