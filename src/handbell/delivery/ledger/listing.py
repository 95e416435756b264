"""Lists of notifications and their deliveries: filters and pagination."""

from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Select, exists, func, or_, select, union

from handbell.delivery.delivery import FAILED_STATES, Delivery
from handbell.storage.tables import apps, deliveries, notifications, sessions, shards, users

SEARCHED_AMONG: Final = 100_000
"""The number of newest notifications that a text search covers."""

TEST_MARK: Final = "is_test"
"""The member of a notification's recipients that marks a test send."""

NotificationStatus = Literal["open", "failed", "dead_letter", "cancelled"]
"""The groups to filter by: unfinished, with failed or expired deliveries, with dead letters,
cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationSearch:
    """Which notifications to list, the newest first; None means no filter.

    ``text`` is searched in content and recipients, ignoring case. Instants are UNIX milliseconds,
    ``until`` is exclusive. ``before`` is the last row of the previous page.
    """

    app: str | None = None
    text: str | None = None
    standing: NotificationStatus | None = None
    urgency: int | None = None
    since: int | None = None
    until: int | None = None
    before: int | None = None
    is_test: bool | None = None

    def statement(self, limit: int) -> Select[Any]:
        """Return the statement for one page."""
        table = notifications.c
        asked = (
            None if self.app is None else table.app == self.app,
            None if self.text is None else _says(self.text),
            None if self.standing is None else _stands(self.standing),
            None if self.urgency is None else table.urgency == self.urgency,
            None if self.since is None else table.created_at >= self.since,
            None if self.until is None else table.created_at < self.until,
            None if self.before is None else table.id < self.before,
            None if self.is_test is None else _is_test() if self.is_test else ~_is_test(),
        )
        conditions = [condition for condition in asked if condition is not None]
        newest_first = select(notifications).where(*conditions).order_by(table.id.desc())
        return newest_first.limit(limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverySearch:
    """Which deliveries of a notification to list, in their order; None means no filter.

    ``after`` is the last number of the previous page.
    """

    state: str | None = None
    reason: str | None = None
    mail: str | None = None
    after: int | None = None

    def conditions(self, row: int) -> list[ColumnElement[bool]]:
        """Return the conditions on rows of ``deliveries``."""
        wanted: list[ColumnElement[bool]] = [deliveries.c.notification_id == row]
        if self.state is not None:
            wanted.append(deliveries.c.state == self.state)
        if self.reason is not None:
            wanted.append(deliveries.c.reason == self.reason)
        if self.mail is not None:
            held = (
                select(sessions.c.id)
                .join_from(users, sessions, sessions.c.user_id == users.c.id)
                # By app, so that the index of an app's mails is used.
                .where(users.c.app_id.in_(select(apps.c.id)), users.c.mail == self.mail)
            )
            wanted.append(deliveries.c.number.in_(held))
        if self.after is not None:
            wanted.append(deliveries.c.number > self.after)
        return wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPage:
    """Some deliveries of a notification, and the cursor of the next page."""

    deliveries: tuple[Delivery, ...]
    following: int | None


def is_newest(number: int) -> ColumnElement[bool]:
    """Return the condition that a notification is one of the ``number`` newest."""
    table = notifications.alias()
    older = select(table.c.id).order_by(table.c.id.desc()).offset(number).limit(1)
    return notifications.c.id > func.coalesce(older.scalar_subquery(), 0)


def _is_test() -> ColumnElement[bool]:
    # Appended to what the sender named; no address contains a quotation mark.
    return notifications.c.recipients.endswith(f'"{TEST_MARK}": true}}', autoescape=True)


def _says(text: str) -> ColumnElement[bool]:
    return is_newest(SEARCHED_AMONG) & or_(
        notifications.c.content.icontains(text, autoescape=True),
        notifications.c.recipients.icontains(text, autoescape=True),
    )


def _stands(standing: NotificationStatus) -> ColumnElement[bool]:
    if standing == "cancelled":
        return notifications.c.cancelled_at.is_not(None)
    if standing == "dead_letter":
        # By its own index.
        dead = select(deliveries.c.notification_id).where(deliveries.c.state == standing)
        return notifications.c.id.in_(dead)
    if standing == "failed":
        return exists().where(
            deliveries.c.notification_id == notifications.c.id,
            deliveries.c.state.in_(FAILED_STATES),
        )
    # Starts from the few open ones, each found by its own index.
    unfinished = union(
        select(shards.c.notification_id),
        select(deliveries.c.notification_id).where(deliveries.c.due_at.is_not(None)),
        select(deliveries.c.notification_id).where(deliveries.c.worker_id.is_not(None)),
    )
    return notifications.c.id.in_(unfinished)
