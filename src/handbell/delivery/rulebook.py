"""The rules of apps in the database: what they are, what a cap counts, and who waits for them."""

from collections.abc import Collection, Iterable
from typing import Any, Final

from sqlalchemy import and_, bindparam, or_, select, tuple_, update

from handbell.database import Database
from handbell.tables import apps, deliveries, notifications, sessions, shards

from .chunks import chunks
from .due import LEVELS
from .rules import AppRules, Stop

_HURRIED_AT_ONCE: Final = 5000


class RuleBook:
    """The rules of every app in one database, as the workers go by them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def rules_of(self, app_id: str) -> AppRules:
        """Return the rules of an app; those of an app that is not in the registry are empty."""
        statement = select(apps).where(apps.c.team_id + "." + apps.c.bundle_id == app_id)
        with self._database.read() as connection:
            row = connection.execute(statement).one_or_none()
        return AppRules(is_registered=False) if row is None else AppRules.read(row)

    def write_stop(self, app_id: str, stop: Stop | None) -> None:
        """Note that an app's circuit is open, or closed again."""
        values: dict[str, Any] = {
            "stopped_reason": None,
            "stopped_detail": None,
            "stopped_at": None,
            "probe_at": None,
            "probes": 0,
        }
        if stop is not None:
            values = {
                "stopped_reason": stop.reason,
                "stopped_detail": stop.detail,
                "stopped_at": int(stop.since * 1000),
                "probe_at": int(stop.probe_at * 1000),
                "probes": stop.probes,
            }
        statement = update(apps).where(apps.c.team_id + "." + apps.c.bundle_id == app_id)
        with self._database.write() as connection:
            connection.execute(statement.values(values))

    def hurry(self, app_id: str, reasons: Collection[str], at: float) -> int:
        """Let what waits for one of these reasons fall due at ``at`` (UNIX seconds) at the latest.

        Returns how many deliveries of the app that are. Thousands at a time are one transaction.
        """
        return sum(self._hurry(app_id, reasons, int(at * 1000), level) for level in LEVELS)

    def _hurry(self, app_id: str, reasons: Collection[str], at: int, level: int) -> int:
        waiting = (
            select(deliveries.c.notification_id, deliveries.c.number)
            .join_from(deliveries, notifications)
            .where(
                notifications.c.app == app_id,
                deliveries.c.urgency == level,
                deliveries.c.due_at > at,
                deliveries.c.state == "held",
                deliveries.c.reason.in_(reasons),
            )
            .limit(_HURRIED_AT_ONCE)
        )
        key = tuple_(deliveries.c.notification_id, deliveries.c.number)
        statement = update(deliveries).where(key.in_(waiting)).values(due_at=at)
        total, changed = 0, _HURRIED_AT_ONCE
        while changed == _HURRIED_AT_ONCE:
            with self._database.write() as connection:
                changed = connection.execute(statement).rowcount
            total += changed
        return total

    def hurry_broadcasts(self, app_id: str, at: float) -> int:
        """Let an app's broadcasts that rest go on at ``at`` (UNIX seconds) at the latest.

        Returns how many parts of them that are. What is for a later time stays.
        """
        unscheduled = select(notifications.c.id).where(
            notifications.c.app == app_id, notifications.c.send_at.is_(None)
        )
        resting = shards.c.worker_id.is_(None) & (shards.c.due_at > int(at * 1000))
        statement = update(shards).where(resting, shards.c.notification_id.in_(unscheduled))
        with self._database.write() as connection:
            return connection.execute(statement.values(due_at=int(at * 1000))).rowcount

    def notifications_by_user(
        self, user_ids: Iterable[int], since: float, apart_from: int
    ) -> dict[int, set[int]]:
        """Return which other notifications each user was sent since then (UNIX seconds).

        Only what a cap counts, see :func:`~handbell.delivery.timing.disturbs`. One that is about to
        be sent counts as well, for those that came after it.
        """
        statement = (
            select(sessions.c.user_id, deliveries.c.notification_id)
            .distinct()
            .join_from(sessions, deliveries, deliveries.c.number == sessions.c.id)
            .join(notifications, notifications.c.id == deliveries.c.notification_id)
            .where(
                sessions.c.user_id.in_(bindparam("user_ids", expanding=True)),
                notifications.c.is_loud,
                deliveries.c.notification_id != apart_from,
                or_(
                    deliveries.c.sent_at > int(since * 1000),
                    and_(
                        deliveries.c.notification_id < apart_from,
                        or_(
                            deliveries.c.state == "sending",
                            and_(deliveries.c.state == "held", deliveries.c.attempts > 0),
                        ),
                    ),
                ),
            )
        )
        found: dict[int, set[int]] = {}
        with self._database.read() as connection:
            for chunk in chunks(list(set(user_ids))):
                for user_id, row in connection.execute(statement, {"user_ids": chunk}):
                    found.setdefault(user_id, set()).add(row)
        return found
