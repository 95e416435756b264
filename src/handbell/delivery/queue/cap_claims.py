"""Claims under an app's cap: what was sent, and what workers are about to send.

A delivery that a worker lets through has a row only once it has ended. Until then only that worker
knows of it, so if there are other workers, it claims the delivery under a lock of the app.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, and_, bindparam, delete, or_, select, tuple_

from handbell._chunks import chunks
from handbell.storage.bulk import insert_or_change
from handbell.storage.database import Database
from handbell.storage.tables import apps, cap_claims, deliveries, notifications, sessions, workers

Sent = Mapping[int, Collection[int]]
"""For each user the rows of notifications that count."""


class CapQuestion(NamedTuple):
    """The ``users`` of an app, by its row, who are to get a ``notification``.

    Notifications sent ``since`` (UNIX seconds) count.
    """

    app: int
    users: frozenset[int]
    notification: int
    since: float


class CapClaims:
    """The claims of the workers on one database. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def has_others(self, worker: int) -> bool:
        """Return whether another worker is listed."""
        with self._database.read() as connection:
            return connection.scalar(_OTHERS.limit(1), {"worker": worker}) is not None

    def sent_to(self, asked: CapQuestion) -> dict[int, set[int]]:
        """Return the other notifications that were sent to each user, or are about to be.

        Only those that a cap counts, see :func:`~handbell.delivery.policy.quiet_hours.disturbs`.
        One that is about to be sent counts for those that were claimed after it.
        """
        with self._database.read() as connection:
            return _sent_to(connection, asked)

    def claim(
        self,
        worker: int,
        asked: CapQuestion,
        choose: Callable[[Sent], Collection[int]],
        in_flight: Iterable[tuple[int, int]],
    ) -> Collection[int]:
        """Return the users that ``choose`` allows, and claim the notification for them.

        ``choose`` is called with the notifications of each user and the claims of others. The
        worker's notifications ``in_flight``, by user and notification, are claimed as well.
        """
        with self._database.write() as connection:
            connection.execute(_LOCK, {"app": asked.app})
            sent = _sent_to(connection, asked)
            for user, row in _claimed(connection, worker, asked):
                sent.setdefault(user, set()).add(row)
            allowed = choose(sent)
            pairs = {*in_flight, *((user, asked.notification) for user in allowed)}
            # A worker that was removed may claim and send nothing.
            if pairs and connection.scalar(_MYSELF, {"worker": worker}) is not None:
                connection.execute(_CLAIM, [_row(worker, pair) for pair in sorted(pairs)])
        return allowed

    def release(self, worker: int, pairs: Collection[tuple[int, int]]) -> None:
        """Remove a worker's claims, by user and notification: their outcomes are written."""
        key = tuple_(cap_claims.c.user_id, cap_claims.c.notification_id)
        with self._database.write() as connection:
            for chunk in chunks(sorted(pairs)):
                connection.execute(
                    delete(cap_claims).where(cap_claims.c.worker_id == worker, key.in_(chunk))
                )


def _sent_to(connection: Connection, asked: CapQuestion) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for chunk in chunks(sorted(asked.users)):
        values: dict[str, Any] = {
            "users": chunk,
            "since": int(asked.since * 1000),
            "notification": asked.notification,
        }
        for user, row in connection.execute(_SENT, values):
            found.setdefault(user, set()).add(row)
    return found


def _claimed(connection: Connection, worker: int, asked: CapQuestion) -> Iterable[tuple[int, int]]:
    for chunk in chunks(sorted(asked.users)):
        values = {"users": chunk, "notification": asked.notification, "worker": worker}
        yield from map(tuple, connection.execute(_CLAIMED, values))


def _row(worker: int, pair: tuple[int, int]) -> dict[str, int]:
    return {"worker_id": worker, "user_id": pair[0], "notification_id": pair[1]}


_OTHERS: Final = select(workers.c.id).where(workers.c.id != bindparam("worker"))
_MYSELF: Final = (
    select(workers.c.id)
    .where(workers.c.id == bindparam("worker"))
    .with_for_update(read=True, key_share=True)
)
_LOCK: Final = (
    select(apps.c.id).where(apps.c.id == bindparam("app")).with_for_update(key_share=True)
)
_CLAIM: Final = insert_or_change(cap_claims).on_conflict_do_nothing()
_CLAIMED: Final = select(cap_claims.c.user_id, cap_claims.c.notification_id).where(
    cap_claims.c.user_id.in_(bindparam("users", expanding=True)),
    cap_claims.c.notification_id != bindparam("notification"),
    cap_claims.c.worker_id != bindparam("worker"),
)
_SENT: Final = (
    select(sessions.c.user_id, deliveries.c.notification_id)
    .distinct()
    .join_from(sessions, deliveries, deliveries.c.number == sessions.c.id)
    .join(notifications, notifications.c.id == deliveries.c.notification_id)
    .where(
        sessions.c.user_id.in_(bindparam("users", expanding=True)),
        notifications.c.is_loud,
        deliveries.c.notification_id != bindparam("notification"),
        or_(
            deliveries.c.sent_at > bindparam("since"),
            and_(
                deliveries.c.notification_id < bindparam("notification"),
                or_(
                    deliveries.c.state == "sending",
                    and_(deliveries.c.state == "held", deliveries.c.attempts > 0),
                ),
            ),
        ),
    )
)
