"""The ledger: what was accepted, and what became of each delivery."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from time import time
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, insert, select, update

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.database import Database
from handbell.tables import ADDRESSED, deliveries, notifications, sessions, users

from .delivery import Delivery, Target
from .ids import new_notification_id, read_apns_id
from .outcome import State


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredNotification:
    """An accepted notification: its row, its public id, and what was written."""

    row: int
    id: str
    app: str
    content: Notification
    recipients: dict[str, Any]
    created_at: int
    expires_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What one attempt makes of a delivery; ``environment`` is where the last answer came from."""

    number: int
    state: State
    environment: str
    attempts: int
    reason: str | None = None
    status: int | None = None
    unique_id: str | None = None
    sent_at: int | None = None
    finished_at: int | None = None


_DELIVERY: Final = (
    select(
        *(
            column
            for column in deliveries.columns
            if column.name not in {"notification_id", "address"}
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

_ENDED: Final = tuple(name for name in Ending.__dataclass_fields__ if name != "number")
_UPDATE_ENDING: Final = (
    update(deliveries)
    .where(
        deliveries.c.notification_id == bindparam("of_notification"),
        deliveries.c.number == bindparam("of_number"),
    )
    .values({name: bindparam(name) for name in _ENDED})
)


class Ledger:
    """Notifications and deliveries in the database. Every method is one transaction."""

    def __init__(self, database: Database, *, now: Callable[[], float] = time) -> None:
        self._database = database
        self._now = now

    def accept(
        self, app: App, content: Notification, recipients: dict[str, Any], targets: Sequence[Target]
    ) -> tuple[StoredNotification, list[Delivery]]:
        """Store a notification and its first deliveries; once this returns, nothing of it is lost.

        ``recipients`` is kept as it was named, for whoever asks later.
        """
        public_id, created_at = new_notification_id(), self._milliseconds()
        statement = insert(notifications).values(
            public_id=public_id,
            app=app.id,
            content=json.dumps(content.to_dict(), ensure_ascii=False),
            recipients=json.dumps(recipients, ensure_ascii=False),
            created_at=created_at,
        )
        with self._database.write() as connection:
            row = connection.execute(statement.returning(notifications.c.id)).scalar_one()
            notification = StoredNotification(
                row=row,
                id=public_id,
                app=app.id,
                content=content,
                recipients=recipients,
                created_at=created_at,
            )
            return notification, self._add(connection, notification, targets)

    def add(self, notification: StoredNotification, targets: Sequence[Target]) -> list[Delivery]:
        """Store further deliveries of a notification, as a broadcast goes through its pages."""
        with self._database.write() as connection:
            return self._add(connection, notification, targets)

    def record(
        self,
        notification: StoredNotification,
        endings: Sequence[Ending],
        *,
        also: Callable[[Connection], None] | None = None,
    ) -> None:
        """Write what became of deliveries; ``also`` writes what belongs to the same transaction."""
        if not endings:
            return
        rows = [
            {
                "of_notification": notification.row,
                "of_number": ending.number,
                **{name: getattr(ending, name) for name in _ENDED},
            }
            for ending in endings
        ]
        with self._database.write() as connection:
            connection.execute(_UPDATE_ENDING, rows)
            if also is not None:
                also(connection)

    def deliveries_of(self, notification_id: str) -> list[Delivery]:
        """Return every delivery of a notification: sessions first, then bare addresses."""
        query = _DELIVERY.where(notifications.c.public_id == notification_id)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(deliveries.c.number)).mappings()
            return [Delivery(**row) for row in rows]

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

    def _add(
        self, connection: Connection, notification: StoredNotification, targets: Sequence[Target]
    ) -> list[Delivery]:
        addressed = count(ADDRESSED)
        added = [
            Delivery(
                number=next(addressed) if target.session_id is None else target.session_id,
                notification_id=notification.id,
                gateway=target.gateway,
                address=target.address,
                environment=target.environment,
                mail=target.mail,
                state="queued",
                created_at=notification.created_at,
            )
            for target in targets
        ]
        if added:
            rows = [_row(delivery, notification) for delivery in added]
            connection.execute(insert(deliveries), rows)
        return added

    def _milliseconds(self) -> int:
        return int(self._now() * 1000)


def _row(delivery: Delivery, notification: StoredNotification) -> dict[str, Any]:
    return {
        "notification_id": notification.row,
        "number": delivery.number,
        "gateway": delivery.gateway,
        "address": delivery.address if delivery.session_id is None else None,
        "environment": delivery.environment,
        "state": delivery.state,
    }
