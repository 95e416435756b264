"""Receipts of devices: displayed, opened."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import time
from typing import Any, Final, Literal

from sqlalchemy import Connection, Row, Select, bindparam, select, update

from handbell._chunks import chunks
from handbell.apps.app import App
from handbell.delivery.ids import is_notification_id, read_apns_id
from handbell.delivery.record.hourly_counts import add_reports
from handbell.errors import RegistryError
from handbell.storage.database import Database
from handbell.storage.tables import deliveries, notifications

ReceiptKind = Literal["displayed", "opened"]
_Name = tuple[str, int]

MEANT: Final[dict[str, tuple[ReceiptKind, ...]]] = {
    "displayed": ("displayed",),
    "opened": ("displayed", "opened"),
}
"""The columns each event sets: what was opened was displayed too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """One report of a device. ``number`` is the session that received the notification.

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
        delivery_id: str | None = None,
        notification_id: str | None = None,
        at: int | None = None,
    ) -> "Receipt":
        """Return a receipt for the notification that one of the two ids names.

        An invalid id makes a receipt that matches no notification. Raises
        :class:`~handbell.errors.RegistryError` when neither is given, or both are.
        """
        if (delivery_id is None) == (notification_id is None):
            raise RegistryError(
                "A receipt names its notification by one id",
                fix="Name id or notification_id, and not both",
            )
        if notification_id is not None:
            named = notification_id if is_notification_id(notification_id) else ""
            return cls(notification_id=named, number=None, event=event, at=at)
        found = read_apns_id(delivery_id or "") or ("", -1)
        return cls(notification_id=found[0], number=found[1], event=event, at=at)

    def delivery(self, session_id: int | None) -> _Name | None:
        """Return the notification and session of the delivery; None if the id is invalid.

        With a ``session_id``, only a delivery to that session matches.
        """
        number = session_id if self.number is None else self.number
        if not self.notification_id or number is None or session_id not in (None, number):
            return None
        return self.notification_id, number


class ReceiptBook:
    """Writes receipts into the ledger, all of them in one transaction.

    ``now`` returns UNIX seconds.
    """

    def __init__(self, database: Database, *, now: Callable[[], float] = time) -> None:
        self._database = database
        self._now = now

    def note(
        self, receipts: Sequence[Receipt], app: App | None = None, session_id: int | None = None
    ) -> list[bool]:
        """Write receipts, and return for each whether its delivery was found.

        With an app and a session, only deliveries to that session match. The first report of an
        event counts; a repeat changes nothing. An instant before the send or in the future is
        corrected.
        """
        names = [receipt.delivery(session_id) for receipt in receipts]
        with self._database.write() as connection:
            return [
                is_noted
                for some in chunks(zip(receipts, names, strict=True))
                for is_noted in self._note(connection, some, app)
            ]

    def may_follow(
        self, receipts: Sequence[Receipt], app: App | None = None, session_id: int | None = None
    ) -> bool:
        """Return whether any receipt names a known notification.

        A phone can be faster than the ledger, which writes the outcomes of a broadcast in batches.
        """
        names = {name[0] for each in receipts if (name := each.delivery(session_id)) is not None}
        statement = select(notifications.c.id).where(notifications.c.public_id.in_(names))
        if app is not None:
            statement = statement.where(notifications.c.app == app.id)
        with self._database.read() as connection:
            return bool(names) and connection.scalar(statement.limit(1)) is not None

    def _note(
        self, connection: Connection, receipts: list[tuple[Receipt, _Name | None]], app: App | None
    ) -> list[bool]:
        found = _find(connection, {name for _, name in receipts if name is not None}, app)
        news: dict[tuple[_Name, ReceiptKind], int] = {}
        noted: list[bool] = []
        for receipt, name in receipts:
            row = None if name is None else found.get(name)
            noted.append(row is not None)
            if name is None or row is None:
                continue
            for event in MEANT[receipt.event]:
                if getattr(row, f"{event}_at") is None:
                    news.setdefault((name, event), self._instant(row, receipt.at))
        _write(connection, [(found[name], event, at) for (name, event), at in news.items()])
        return noted

    def _instant(self, row: Row[Any], reported_at: int | None) -> int:
        now = int(self._now() * 1000)
        earliest = row.sent_at or row.created_at
        return now if reported_at is None else min(now, max(reported_at, earliest))


def _find(connection: Connection, names: set[_Name], app: App | None) -> dict[_Name, Row[Any]]:
    if not names:
        return {}
    named = notifications.c.public_id.in_({public_id for public_id, _ in names})
    statement = select(notifications.c.id).where(named)
    if app is not None:
        statement = statement.where(notifications.c.app == app.id)
    # First the rows, by which the rest is found in few partitions.
    statement = _GOT.where(
        deliveries.c.notification_id.in_(connection.scalars(statement).all()),
        deliveries.c.number.in_({number for _, number in names}),
    )
    return {(row.public_id, row.number): row for row in connection.execute(statement)}


def _write(connection: Connection, news: list[tuple[Row[Any], ReceiptKind, int]]) -> None:
    add_reports(
        connection, [(row.notification_id, row.gateway, event, at) for row, event, at in news]
    )
    for event, statement in _UPDATES.items():
        values = [
            {"of": row.notification_id, "to": row.number, "at": at}
            for row, what, at in news
            if what == event
        ]
        if values:
            connection.execute(statement, values)


_GOT: Final[Select[Any]] = (
    select(
        notifications.c.public_id,
        notifications.c.created_at,
        deliveries.c.notification_id,
        deliveries.c.number,
        deliveries.c.gateway,
        deliveries.c.sent_at,
        deliveries.c.displayed_at,
        deliveries.c.opened_at,
    )
    .join_from(deliveries, notifications)
    # Locked in a fixed order where rows can be, so that one of two concurrent reports counts.
    .order_by(deliveries.c.notification_id, deliveries.c.number)
    .with_for_update(of=deliveries)
)
_UPDATES: Final = {
    event: update(deliveries)
    .where(deliveries.c.notification_id == bindparam("of"), deliveries.c.number == bindparam("to"))
    .values({f"{event}_at": bindparam("at")})
    for event in ("displayed", "opened")
}
