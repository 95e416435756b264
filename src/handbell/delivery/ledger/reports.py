"""Counts over notifications: for lists, for the funnel of one, for its progress."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import time
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Connection, Row, exists, func, select

from handbell._text import count, short_token
from handbell.apps.app import App
from handbell.delivery.delivery import STATES
from handbell.delivery.policy.meanings import meaning, reaction_to
from handbell.delivery.queue.shards import SHARDS, count_ahead, count_waits
from handbell.delivery.record.hourly_counts import HOUR, HourCount, read_buckets, services_counted
from handbell.delivery.urgency import NAMES
from handbell.errors import UnknownNotificationError
from handbell.fixes import Action, Fix, with_app
from handbell.services.table import service_of
from handbell.storage.database import Database
from handbell.storage.tables import deliveries, notifications, shards

from .listing import TEST_MARK, DeliveryPage, DeliverySearch, NotificationSearch
from .state_counts import CountCache, Counted, ServiceCount, count_deliveries, count_services
from .store import DELIVERIES, delivery_of

_TITLE_LENGTH: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """A notification with its delivery counts. Instants are UNIX milliseconds.

    ``title`` is the beginning of its text, ``recipients`` describes the recipients.
    ``states`` counts deliveries by state, in the order of
    :data:`~handbell.delivery.delivery.STATES`; ``ahead`` is how many sessions a broadcast has not
    reached yet. ``is_running`` means that some delivery is due or in flight. ``displayed`` and
    ``opened`` are reported by phones. ``row`` is its place in the list. ``is_test`` marks a test
    send, ``send_at`` is the requested time.
    """

    id: str
    app: str
    title: str
    recipients: str
    created_at: int
    cancelled_at: int | None
    states: Mapping[str, int]
    ahead: int
    is_running: bool
    displayed: int = 0
    opened: int = 0
    row: int = 0
    is_test: bool = False
    send_at: str | None = None

    @property
    def total(self) -> int:
        """Return how many deliveries were accepted with it."""
        return sum(self.states.values()) + self.ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonCount:
    """The number of deliveries in one state for one reason: explained, with the fix.

    ``service`` is the push service whose reason it is; None for one of ours.
    """

    state: str
    reason: str
    number: int
    meaning: str
    fix: str
    service: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Funnel:
    """The funnel of one notification: accepted, sent, displayed, opened, and the reasons of losses.

    ``sent`` were accepted by the push service; ``displayed`` and ``opened`` are reported by
    phones, which only those with Handbell's client code do. ``next_due_at`` is when the next
    waiting delivery is due (UNIX milliseconds). ``content`` and ``named`` are as the sender gave
    them. ``services`` has the counts of each push service by which deliveries went or will go; a
    broadcast's are known once it has come to them.
    """

    overview: Overview
    content: Mapping[str, Any]
    named: Mapping[str, Any]
    urgency: str
    send_at: str | None
    replaces: str | None
    displayed: int
    opened: int
    next_due_at: int | None
    reasons: tuple[ReasonCount, ...]
    services: tuple[ServiceCount, ...] = ()

    @property
    def accepted(self) -> int:
        """Return how many deliveries were accepted with it."""
        return self.overview.total

    @property
    def sent(self) -> int:
        """Return how many the push service accepted."""
        return self.overview.states.get("sent", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a notification: ``settled`` of ``total`` have ended or are held."""

    settled: int
    total: int
    is_running: bool


class Reports:
    """Counts over the ledger. Every method reads one snapshot of the database."""

    def __init__(self, database: Database, *, now: Callable[[], float] = time) -> None:
        self._database = database
        self._now = now
        self._counting = CountCache()

    def newest(self, app: App | None = None, *, limit: int = 20) -> list[Overview]:
        """Return the newest notifications, of all apps unless one is named."""
        search = NotificationSearch(app=None if app is None else app.id)
        return self.page(search, limit=limit)

    def page(self, search: NotificationSearch, *, limit: int) -> list[Overview]:
        """Return the newest notifications that match; ``before`` continues after a page.

        Counts of large ones may be some seconds old, see
        :class:`~handbell.delivery.ledger.state_counts.CountCache`.
        """
        with self._database.read() as connection:
            rows = connection.execute(search.statement(limit)).all()
            return [self._overview(connection, row, self._counting.count) for row in rows]

    def deliveries(
        self, notification_id: str, search: DeliverySearch, *, limit: int
    ) -> DeliveryPage:
        """Return some deliveries of a notification. Raises UnknownNotificationError."""
        with self._database.read() as connection:
            row = _find(connection, notification_id)
            wanted = DELIVERIES.where(*search.conditions(row.id)).order_by(deliveries.c.number)
            rows = connection.execute(wanted.limit(limit + 1)).mappings()
            found = [delivery_of(row) for row in rows]
        more = len(found) > limit
        page = tuple(found[:limit])
        return DeliveryPage(deliveries=page, following=page[-1].number if more else None)

    def funnel(self, notification_id: str) -> Funnel:
        """Return the funnel of a notification. Raises UnknownNotificationError."""
        with self._database.read() as connection:
            row = _find(connection, notification_id)
            counted = count_deliveries(connection, row.id)
            overview = self._overview(connection, row, lambda *_: counted)
            now = int(self._now() * 1000)
            waits = count_waits(connection, _shards_of(connection, row.id), now)
            return Funnel(
                overview=overview,
                content=json.loads(row.content),
                named=named_by(row.recipients),
                urgency=NAMES.get(row.urgency, str(row.urgency)),
                send_at=row.send_at,
                replaces=row.replaces,
                displayed=overview.displayed,
                opened=overview.opened,
                next_due_at=_next_due_at(connection, row.id),
                reasons=_reasons(row, counted, waits),
                services=tuple(count_services(connection, row.id)),
            )

    def progress(self, notification_id: str) -> Progress:
        """Return the progress of a notification. Raises UnknownNotificationError."""
        with self._database.read() as connection:
            overview = self._overview(connection, _find(connection, notification_id))
        left = overview.ahead + sum(overview.states.get(name, 0) for name in ("queued", "sending"))
        return Progress(
            settled=overview.total - left, total=overview.total, is_running=overview.is_running
        )

    def _overview(
        self,
        connection: Connection,
        row: Row[Any],
        count_ended: Callable[[Connection, int], list[Counted]] = count_deliveries,
    ) -> Overview:
        is_running = _is_running(connection, row.id, int(self._now() * 1000))
        # While it runs, both counts must come from one snapshot.
        counted = (count_deliveries if is_running else count_ended)(connection, row.id)
        counts: Counter[str] = Counter()
        for item in counted:
            counts[item.state] += item.number
        if row.cancelled:
            counts["cancelled"] += row.cancelled
        named = json.loads(row.recipients)
        return Overview(
            id=row.public_id,
            app=row.app,
            title=describe(json.loads(row.content)),
            recipients=describe_recipients(named),
            created_at=row.created_at,
            cancelled_at=row.cancelled_at,
            states=MappingProxyType({name: counts[name] for name in STATES if counts.get(name)}),
            ahead=count_ahead(connection, _shards_of(connection, row.id)),
            is_running=is_running,
            displayed=sum(entry.displayed for entry in counted),
            opened=sum(entry.opened for entry in counted),
            row=row.id,
            is_test=bool(named.get(TEST_MARK)),
            send_at=row.send_at,
        )

    def trend(
        self, app: App | None, *, hours: int, buckets: int, service: str | None = None
    ) -> list[HourCount]:
        """Return the counts of the last ``buckets`` of ``hours`` hours each.

        For all apps and all push services unless one is given; the oldest first, the last one
        incomplete. Buckets begin at whole hours, and days at midnight (UTC).
        """
        since, until = self._span(hours, buckets)
        named = None if app is None else app.id
        with self._database.read() as connection:
            return read_buckets(
                connection, named, since=since, until=until, hours=hours, service=service
            )

    def services_in_trend(self, app: App, *, hours: int, buckets: int) -> list[str]:
        """Return the push services that have a share in an app's :meth:`trend`, in their order."""
        since, _ = self._span(hours, buckets)
        with self._database.read() as connection:
            return services_counted(connection, app.id, since=since)

    def _span(self, hours: int, buckets: int) -> tuple[int, int]:
        width = hours * HOUR
        until = (int(self._now() * 1000) // width + 1) * width
        return until - buckets * width, until

    def app_id_of(self, notification_id: str) -> str:
        """Return the id of the app it was sent to. Raises UnknownNotificationError."""
        with self._database.read() as connection:
            return str(_find(connection, notification_id).app)


def describe(content: Mapping[str, Any]) -> str:
    """Return the beginning of a notification's text, shortened."""
    for name in ("title", "body", "title_loc_key", "loc_key"):
        if text := content.get(name):
            line = " ".join(str(text).split())
            return line if len(line) <= _TITLE_LENGTH else line[: _TITLE_LENGTH - 1] + "…"
    if content.get("silent"):
        return "(silent)"
    return f"({content.get('push_type') or 'no text'})"


def named_by(recipients: str) -> dict[str, Any]:
    """Return the recipients in a stored row."""
    named: dict[str, Any] = json.loads(recipients)
    return {kind: texts for kind, texts in named.items() if kind != TEST_MARK}


def describe_recipients(named: Mapping[str, Any]) -> str:
    """Describe the recipients in words."""
    if named.get("everybody"):
        return "everybody"
    if former := named.get("replaces"):
        return f"who got {former}"
    texts = [
        short_token(str(text)) if kind == "device_tokens" else str(text)
        for kind, listed in named.items()
        if isinstance(listed, list)
        for text in listed
    ]
    if not texts:
        return "nobody"
    more = f" and {count(len(texts) - 1, 'other')}" if len(texts) > 1 else ""
    return f"{texts[0]}{more}"


def _find(connection: Connection, notification_id: str) -> Row[Any]:
    statement = select(notifications).where(notifications.c.public_id == notification_id)
    found = connection.execute(statement).one_or_none()
    if found is None:
        raise UnknownNotificationError(
            f"There is no notification {notification_id[:40]!r}",
            fix=Fix(Action.LIST_NOTIFICATIONS, "See"),
        )
    return found


def _is_running(connection: Connection, row: int, now: int) -> bool:
    shard, delivery = shards.c.notification_id == row, deliveries.c.notification_id == row
    moving = (
        shard & (shards.c.worker_id.is_not(None) | (shards.c.due_at <= now)),
        delivery & deliveries.c.worker_id.is_not(None),
        delivery & (deliveries.c.due_at <= now),
    )
    return any(connection.scalar(select(exists().where(each))) for each in moving)


def _next_due_at(connection: Connection, row: int) -> int | None:
    tables = (shards, deliveries)
    found = (
        connection.scalar(select(func.min(table.c.due_at)).where(table.c.notification_id == row))
        for table in tables
    )
    return min((moment for moment in found if moment is not None), default=None)


def _shards_of(connection: Connection, row: int) -> list[Row[Any]]:
    """Return the shards of a broadcast that were not reached yet."""
    return list(connection.execute(SHARDS.where(shards.c.notification_id == row)))


def _reasons(
    row: Row[Any], counted: Iterable[Counted], waits: Mapping[str, int]
) -> tuple[ReasonCount, ...]:
    """Return the reasons of deliveries that were not sent, the most frequent first.

    ``waits`` are the numbers of sessions that wait in shards, by reason.
    """
    numbers: Counter[tuple[str, str, str | None]] = Counter()
    for entry in counted:
        if entry.state not in ("sent", "queued", "sending"):
            reason = entry.reason or entry.state.capitalize()
            numbers[entry.state, reason, _service(reason, entry.gateway)] += entry.number
    numbers["cancelled", "Cancelled", None] += row.cancelled
    for waiting, number in waits.items():
        numbers["held", waiting, None] += number
    return tuple(_reason(row, *kind, number) for kind, number in (+numbers).most_common())


def _service(reason: str, gateway: str | None) -> str | None:
    """Return the push service that gives such a reason; None for one of ours."""
    is_theirs = gateway is not None and reaction_to(reason, gateway) is not None
    return service_of(gateway or "").name if is_theirs else None


def _reason(
    row: Row[Any], state: str, reason: str, service: str | None, number: int
) -> ReasonCount:
    words, fix = meaning(reason, gateway=service or "")
    return ReasonCount(
        state=state,
        reason=reason,
        number=number,
        meaning=words,
        fix=with_app(fix, row.app, row.public_id),
        service=service,
    )
