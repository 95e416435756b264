"""The ledger: accepted notifications and the outcome of each delivery."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from time import time
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    case,
    delete,
    exists,
    func,
    or_,
    select,
    tuple_,
    update,
)

from handbell.apps.app import App
from handbell.creation.recipients import EVERYBODY
from handbell.delivery.addresses import read_stored
from handbell.delivery.delivery import FINAL_STATES, Delivery, State
from handbell.delivery.policy.meanings import MAY_HAVE_ARRIVED
from handbell.delivery.policy.parts import NO_ZONE
from handbell.delivery.queue.shards import SHARDS, count_free, count_waits, shard_for
from handbell.errors import UnknownNotificationError
from handbell.fixes import Action, Fix
from handbell.storage.database import Database
from handbell.storage.signals import Kind
from handbell.storage.tables import deliveries, notifications, sessions, shards, users

from .listing import is_newest

NAMED_AMONG: Final = 10_000
"""The number of newest sends in which a person is searched by name."""
UNSENT: Final = ("held", "failed", "dead_letter", "expired", "cancelled")
"""The states that a response lists one by one: ended without acceptance, or waiting."""

_KEPT_INSIDE: Final = frozenset(
    {"notification_id", "urgency", "worker_id", "is_repeat", "begun_at", "failures"}
)
_TOLD_OTHERWISE: Final = frozenset({"address", "gateway"})
_IS_DEAD_LETTER: Final = deliveries.c.state == "dead_letter"
_RESENT_AT_ONCE: Final = 5000
_WAITING_ANEW: Final[Mapping[str, Any]] = {
    "state": "queued",
    **dict.fromkeys(("reason", "detail", "status", "begun_at", "finished_at")),
    **dict.fromkeys(("attempts", "failures"), 0),
}
_EVERYBODY: Final = json.dumps(EVERYBODY.to_dict())


_IS_OVER: Final = deliveries.c.state.in_(sorted(FINAL_STATES))
# What waits goes where its session lives by then.
_GATEWAY: Final = case(
    (_IS_OVER, deliveries.c.gateway),
    else_=func.coalesce(sessions.c.service, deliveries.c.gateway),
)
_ADDRESS: Final = func.coalesce(
    deliveries.c.address,
    # A session's former address is not kept, and one of another service was not sent to.
    case((~_IS_OVER | (sessions.c.service == deliveries.c.gateway), sessions.c.token)),
    "",
)

DELIVERIES: Final = (
    select(
        *(
            column
            for column in deliveries.columns
            if column.name not in _KEPT_INSIDE | _TOLD_OTHERWISE
        ),
        _GATEWAY.label("gateway"),
        _ADDRESS.label("address"),
        users.c.mail,
        notifications.c.public_id.label("notification_id"),
        notifications.c.created_at,
    )
    .join_from(deliveries, notifications)
    .outerjoin(sessions, sessions.c.id == deliveries.c.number)
    .outerjoin(users, users.c.id == sessions.c.user_id)
)
"""Selects the columns of :class:`Delivery`."""


def delivery_of(row: Mapping[Any, Any]) -> Delivery:
    """Return the delivery of a row of :data:`DELIVERIES`."""
    token, _ = read_stored(row["address"])
    return Delivery(**{**row, "address": token})


class Cancellation(NamedTuple):
    """A cancel in progress: the notification's row and the counts at its beginning.

    ``former`` is how many deliveries earlier cancels caught before they began.
    """

    row: int
    waiting: int
    former: int


class Resent(NamedTuple):
    """Dead letters that wait again: their number, and the rows of their notifications."""

    number: int
    rows: list[int]


class PendingShard(NamedTuple):
    """When a broadcast is due for a time zone (UNIX seconds), and its hold reason."""

    zone: str | None
    reason: str | None
    due_at: float


class ShardWait(NamedTuple):
    """The number of sessions waiting for a reason, the first until ``due_at`` (UNIX ms)."""

    reason: str
    number: int
    due_at: int


def row_of(connection: Connection, notification_id: str) -> int | None:
    """Return the row of a notification, or None.

    Later queries by this row search a single partition, if there are several.
    """
    statement = select(notifications.c.id).where(notifications.c.public_id == notification_id)
    found: int | None = connection.scalar(statement)
    return found


class Ledger:
    """Notifications and deliveries in the database. Every method is one transaction."""

    def __init__(self, database: Database, *, now: Callable[[], float] = time) -> None:
        self._database = database
        self._now = now

    def begin_cancel(self, app: App, notification_id: str) -> Cancellation:
        """Cancel what no worker holds; workers notice and release the rest.

        The number of cancelled deliveries is known when no worker holds any; :meth:`Engine.cancel
        <handbell.delivery.engine.Engine.cancel>` waits for that.

        Raises UnknownNotificationError when the app has no such notification.
        """
        row = self.find(app, notification_id)
        return Cancellation(row.id, self._cancel(row.id), int(row.cancelled))

    def caught(self, cancelling: Cancellation) -> int:
        """Return how many deliveries a cancel has caught so far: nothing was sent to them."""
        now = int(self.row(cancelling.row).cancelled)
        return cancelling.waiting + now - cancelling.former

    def in_hand(self, rows: Collection[int]) -> set[int]:
        """Return the broadcasts among these notifications that a worker holds or will take."""
        statement = select(shards.c.notification_id).distinct()
        with self._database.read() as connection:
            return set(connection.scalars(statement.where(shards.c.notification_id.in_(rows))))

    def _cancel(self, row: int) -> int:
        """Cancel what no worker holds; return how many of the deliveries had rows, and no attempt.

        What was sent without an answer is not sent again, but counts as sent here.
        """
        now = self._milliseconds()
        with self._database.write() as connection:
            mine = shards.c.notification_id == row
            # Nobody takes one now, and who holds one counts what is left of it after us.
            found = connection.execute(SHARDS.where(mine).with_for_update(of=shards)).all()
            caught = count_free(connection, found)
            connection.execute(delete(shards).where(mine, shards.c.worker_id.is_(None)))
            waiting, _ = (
                connection.execute(
                    update(deliveries)
                    .where(
                        deliveries.c.notification_id == row,
                        deliveries.c.state.in_(("queued", "held")),
                        deliveries.c.is_repeat.is_(is_repeat),
                    )
                    .values(
                        state="cancelled",
                        reason="Cancelled",
                        detail=MAY_HAVE_ARRIVED if is_repeat else None,
                        due_at=None,
                        finished_at=now,
                    )
                ).rowcount
                for is_repeat in (False, True)
            )
            connection.execute(
                update(notifications)
                .where(notifications.c.id == row)
                .values(
                    cancelled_at=func.coalesce(notifications.c.cancelled_at, now),
                    cancelled=notifications.c.cancelled + caught,
                )
            )
        return waiting

    def resend(self, app: App, notification_id: str | None = None) -> Resent:
        """Let the dead letters of a notification wait again, or all of an app; each is due now.

        What may have arrived before stays a repeat. Thousands at a time are one transaction. Raises
        UnknownNotificationError when the app has no such notification.
        """
        if notification_id is not None:
            rows = [int(self.find(app, notification_id).id)]
        else:
            with self._database.read() as connection:
                statement = select(deliveries.c.notification_id).distinct().where(_IS_DEAD_LETTER)
                its = select(notifications.c.id).where(notifications.c.app == app.id)
                found = connection.scalars(statement.where(deliveries.c.notification_id.in_(its)))
                rows = list(found)
        return Resent(sum(map(self._resend, rows)), rows)

    def _resend(self, row: int) -> int:
        key = tuple_(deliveries.c.notification_id, deliveries.c.number)
        mine = deliveries.c.notification_id == row
        some = select(*key.clauses).where(mine, _IS_DEAD_LETTER).limit(_RESENT_AT_ONCE)
        again = update(deliveries).where(key.in_(some), _IS_DEAD_LETTER)
        total, changed = 0, _RESENT_AT_ONCE
        while changed == _RESENT_AT_ONCE:
            values = {**_WAITING_ANEW, "due_at": self._milliseconds()}
            with self._database.write() as connection:
                changed = connection.execute(again.values(values)).rowcount
                self._database.signal(Kind.WORK)
            total += changed
        return total

    def find(self, app: App, notification_id: str) -> Row[Any]:
        """Return the row of an app's notification, or raise UnknownNotificationError."""
        statement = select(notifications).where(
            notifications.c.public_id == notification_id, notifications.c.app == app.id
        )
        with self._database.read() as connection:
            found = connection.execute(statement).one_or_none()
        if found is None:
            raise UnknownNotificationError(
                f"{app.id} has no notification {notification_id[:40]!r}",
                fix=Fix(Action.LIST_NOTIFICATIONS, "See"),
            )
        return found

    def row(self, row: int) -> Row[Any]:
        """Return a notification's row."""
        statement = select(notifications).where(notifications.c.id == row)
        with self._database.read() as connection:
            return connection.execute(statement).one()

    def rows(self, rows: Collection[int]) -> list[Row[Any]]:
        """Return rows of notifications; missing ones are left out."""
        statement = select(notifications).where(notifications.c.id.in_(rows))
        with self._database.read() as connection:
            return list(connection.execute(statement))

    def not_cancelled(self, rows: Collection[int]) -> set[int]:
        """Return which of these notifications exist and were not cancelled."""
        statement = select(notifications.c.id).where(
            notifications.c.id.in_(rows), notifications.c.cancelled_at.is_(None)
        )
        with self._database.read() as connection:
            return set(connection.scalars(statement))

    def deliveries_of(self, notification_id: str) -> list[Delivery]:
        """Return every delivery of a notification: sessions first, then bare addresses."""
        return self._deliveries(notification_id)

    def deliveries_after(self, notification_id: str, number: int, limit: int) -> list[Delivery]:
        """Return the next deliveries of a notification behind a number, in their order."""
        return self._deliveries(notification_id, deliveries.c.number > number, limit=limit)

    def unsent(self, notification_id: str, limit: int) -> list[Delivery]:
        """Return the first deliveries of a notification that ended unaccepted, or are held."""
        return self._deliveries(notification_id, deliveries.c.state.in_(UNSENT), limit=limit)

    def _deliveries(
        self, notification_id: str, *conditions: ColumnElement[bool], limit: int | None = None
    ) -> list[Delivery]:
        with self._database.read() as connection:
            mine = deliveries.c.notification_id == row_of(connection, notification_id)
            query = DELIVERIES.where(mine, *conditions).order_by(deliveries.c.number)
            rows = connection.execute(query.limit(limit)).mappings()
            return [delivery_of(row) for row in rows]

    def concerning(
        self, app: App, mail: str, session_ids: Sequence[int], limit: int
    ) -> list[Row[Any]]:
        """Return the newest notifications that went to these sessions, or to their person by name.

        Sends to everybody are included. Of those without a delivery to the sessions, only the last
        :data:`NAMED_AMONG` sends are searched.
        """
        got = (
            select(notifications.c.id)
            .distinct()
            .join_from(deliveries, notifications)
            .where(deliveries.c.number.in_(session_ids), notifications.c.app == app.id)
        )
        name = json.dumps(mail, ensure_ascii=False)
        named = select(notifications.c.id).where(
            notifications.c.app == app.id,
            is_newest(NAMED_AMONG),
            or_(
                notifications.c.recipients == _EVERYBODY,
                notifications.c.recipients.contains(name, autoescape=True),
            ),
        )
        with self._database.read() as connection:
            found = {
                row
                for statement in (got, named)
                for row in connection.scalars(
                    statement.order_by(notifications.c.id.desc()).limit(limit)
                )
            }
            newest_rows = sorted(found, reverse=True)[:limit]
            statement = select(notifications).where(notifications.c.id.in_(newest_rows))
            return list(connection.execute(statement.order_by(notifications.c.id.desc())))

    def deliveries_to(self, session_ids: Sequence[int], row: int) -> list[Delivery]:
        """Return a notification's deliveries to these sessions."""
        query = DELIVERIES.where(
            deliveries.c.notification_id == row, deliveries.c.number.in_(session_ids)
        )
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(deliveries.c.number)).mappings()
            return [delivery_of(row) for row in rows]

    def ahead(self, session_ids: Sequence[int], row: int) -> PendingShard | None:
        """Return when a broadcast is first due for one of these sessions, and its hold reason.

        None if it has passed all of them.
        """
        statement = (
            select(shards, sessions.c.id.label("session"), sessions.c.time_zone)
            .join_from(
                shards,
                sessions,
                and_(sessions.c.id > shards.c.position, sessions.c.id <= shards.c.last),
            )
            .where(
                shards.c.notification_id == row,
                sessions.c.id.in_(session_ids),
                sessions.c.status == "active",
                # Parts may span sessions that another part has reached.
                ~exists().where(
                    deliveries.c.notification_id == row, deliveries.c.number == sessions.c.id
                ),
            )
        )
        spanning: dict[tuple[int, str | None], list[Row[Any]]] = {}
        with self._database.read() as connection:
            for one in connection.execute(statement):
                spanning.setdefault((one.session, one.time_zone), []).append(one)
        found = [
            PendingShard(zone, shard.reason, shard.due_at / 1000)
            for (_, zone), its in spanning.items()
            for shard in [shard_for(its, zone or NO_ZONE)]
        ]
        return min(found, key=lambda one: one.due_at, default=None)

    def waits(self, notification_id: str) -> list[ShardWait]:
        """Return the hold reasons of a broadcast's waiting parts, the most sessions first.

        Parts that are being sent are left out.
        """
        now = self._milliseconds()
        with self._database.read() as connection:
            mine = shards.c.notification_id == row_of(connection, notification_id)
            found = connection.execute(SHARDS.where(mine)).all()
            counted = count_waits(connection, found, now)
        at = {
            reason: min(one.due_at for one in found if one.reason == reason) for reason in counted
        }
        return [ShardWait(*each, at[each[0]]) for each in counted.most_common()]

    def counts(self, notification_id: str) -> dict[tuple[State, str | None], int]:
        """Return the number of deliveries of a notification by state and reason."""
        kind = (deliveries.c.state, deliveries.c.reason)
        with self._database.read() as connection:
            mine = deliveries.c.notification_id == row_of(connection, notification_id)
            query = select(*kind, func.count()).where(mine).group_by(*kind)
            return {(state, reason): n for state, reason, n in connection.execute(query)}

    def _milliseconds(self) -> int:
        return int(self._now() * 1000)
