"""What a device says of notifications that it got: displayed, opened."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import time
from typing import Any, Final, Literal

from sqlalchemy import Connection, select, update

from handbell.apps.app import App
from handbell.delivery.ids import is_notification_id, read_apns_id
from handbell.delivery.record.hourly_counts import add_report
from handbell.errors import RegistryError
from handbell.storage.database import Database
from handbell.storage.tables import deliveries, notifications

ReceiptKind = Literal["displayed", "opened"]

MEANT: Final[dict[str, tuple[ReceiptKind, ...]]] = {
    "displayed": ("displayed",),
    "opened": ("displayed", "opened"),
}
"""What each event says: what was opened was there to be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """One report of a device. ``number`` is the session that it says got the notification.

    ``at`` is when it happened, in UNIX milliseconds, or None for now.
    """

    notification_id: str
    number: int | None
    event: ReceiptKind
    at: int | None = None

    @classmethod
    def read(
        cls,
        *,
        event: ReceiptKind,
        apns_id: str | None = None,
        notification_id: str | None = None,
        at: int | None = None,
    ) -> "Receipt":
        """Return a receipt for what one of the two ids names.

        An id that is not one of ours makes a receipt that fits no notification. Raises
        :class:`~handbell.errors.RegistryError` when neither is given, or both are.
        """
        if (apns_id is None) == (notification_id is None):
            raise RegistryError(
                "A receipt names its notification by one id",
                fix="Name apns_id or notification_id, and not both",
            )
        if notification_id is not None:
            named = notification_id if is_notification_id(notification_id) else ""
            return cls(notification_id=named, number=None, event=event, at=at)
        found = read_apns_id(apns_id or "") or ("", -1)
        return cls(notification_id=found[0], number=found[1], event=event, at=at)


class ReceiptBook:
    """Writes receipts into the ledger. ``now`` returns UNIX seconds."""

    def __init__(self, database: Database, *, now: Callable[[], float] = time) -> None:
        self._database = database
        self._now = now

    def note(self, app: App, session_id: int, receipts: Sequence[Receipt]) -> list[bool]:
        """Write what a session says, and return for each receipt whether the session got that.

        The first report of an event counts; a repeat changes nothing. An instant before the send
        or after now is put right.
        """
        with self._database.write() as connection:
            return [self._note(connection, app, session_id, receipt) for receipt in receipts]

    def may_follow(self, app: App, session_id: int, receipts: Sequence[Receipt]) -> bool:
        """Return whether any receipt names a notification of the app that is there.

        A phone can be faster than the ledger, which writes the ends of a broadcast in batches.
        """
        names = {
            receipt.notification_id
            for receipt in receipts
            if receipt.number in (None, session_id) and receipt.notification_id
        }
        statement = select(notifications.c.id).where(
            notifications.c.public_id.in_(names),
            notifications.c.app == app.id,
        )
        with self._database.read() as connection:
            return bool(names) and connection.scalar(statement.limit(1)) is not None

    def _note(self, connection: Connection, app: App, session_id: int, receipt: Receipt) -> bool:
        if receipt.number not in (None, session_id):
            return False
        row = connection.execute(
            _GOT.where(
                notifications.c.public_id == receipt.notification_id,
                notifications.c.app == app.id,
                deliveries.c.number == session_id,
            )
        ).one_or_none()
        if row is None:
            return False
        at = self._instant(row, receipt.at)
        values: dict[str, Any] = {}
        for event in MEANT[receipt.event]:
            if getattr(row, f"{event}_at") is None:
                values[f"{event}_at"] = at
                add_report(connection, row.notification_id, event, at)
        if values:
            mine = (
                deliveries.c.notification_id == row.notification_id,
                deliveries.c.number == session_id,
            )
            connection.execute(update(deliveries).where(*mine).values(values))
        return True

    def _instant(self, row: Any, said: int | None) -> int:
        now = int(self._now() * 1000)
        return now if said is None else min(now, max(said, row.sent_at or row.created_at))


_GOT: Final = select(
    deliveries.c.notification_id,
    deliveries.c.sent_at,
    deliveries.c.displayed_at,
    deliveries.c.opened_at,
    notifications.c.created_at,
).join_from(deliveries, notifications)
