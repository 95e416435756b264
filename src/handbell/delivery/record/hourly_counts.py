"""Hourly counts: one small row per app, push service and hour, next to the ledger.

A chart over a month must not count millions of deliveries at each view. So each outcome is added
to its hour in the transaction that writes it: ledger and counts always agree.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, func, select

from handbell.delivery.delivery import FAILED_STATES
from handbell.services.table import SERVICES, service_of
from handbell.storage.bulk import upsert_rows
from handbell.storage.lists import each
from handbell.storage.statements import Statement
from handbell.storage.tables import notifications, tallies

from .outcome_batch import Batch

_Counted = dict[tuple[int, str], Counter[str]]
"""Counts by the row of a notification and the gateway."""

HOUR: Final = 3_600_000
"""An hour in milliseconds, as instants in the database are."""

COUNTED: Final = ("sent", "failed", "displayed", "opened")
"""What is counted: ``failed`` are also the expired and dead letters; each in its hour."""

_COUNTED_AS: Final = {"sent": "sent", **dict.fromkeys(FAILED_STATES, "failed")}


@dataclass(frozen=True, slots=True, kw_only=True)
class HourCount:
    """The counts from ``start`` (UNIX milliseconds) on, for ``hours`` hours."""

    start: int
    hours: int
    sent: int = 0
    failed: int = 0
    displayed: int = 0
    opened: int = 0


def add_batch(connection: Connection, batch: Batch, at: int) -> None:
    """Count the outcomes of a batch in the hour of ``at`` (UNIX milliseconds)."""
    by_row: _Counted = {}
    for (row, gateway, _, _), sent in batch.sent.items():
        by_row.setdefault((row, gateway), Counter())["sent"] += len(sent)
    for ending in batch.endings:
        if name := _COUNTED_AS.get(ending.state):
            by_row.setdefault((ending.notification_id, ending.gateway), Counter())[name] += 1
    if by_row:
        _add_rows(connection, by_row, at)


def add_reports(connection: Connection, reports: Iterable[tuple[int, str, str, int]]) -> None:
    """Count ``displayed`` and ``opened``, each in its hour.

    A report is the row of its notification, the gateway of the delivery, its name, and when it was
    (UNIX milliseconds).
    """
    by_hour: dict[int, _Counted] = {}
    for row, gateway, name, at in reports:
        by_hour.setdefault(at // HOUR, {}).setdefault((row, gateway), Counter())[name] += 1
    for hour, by_row in sorted(by_hour.items()):
        _add_rows(connection, by_row, hour * HOUR)


def read_buckets(
    connection: Connection,
    app: str | None,
    *,
    since: int,
    until: int,
    hours: int,
    service: str | None = None,
) -> list[HourCount]:
    """Return the buckets of ``hours`` hours between two instants, empty ones included.

    ``app`` is an app id, or None for all apps; ``service`` one push service, or None for all.
    ``since`` is the start of the first bucket.
    """
    width = hours * HOUR
    place = (tallies.c.hour - since) // width
    statement = (
        select(place.label("place"), *(func.sum(tallies.c[name]).label(name) for name in COUNTED))
        .where(tallies.c.hour >= since, tallies.c.hour < until)
        .group_by(place)
    )
    if app is not None:
        statement = statement.where(tallies.c.app == app)
    if service is not None:
        statement = statement.where(tallies.c.service == service)
    found = {row.place: row for row in connection.execute(statement)}
    return [
        _bucket(since + number * width, hours, found.get(number))
        for number in range(-((since - until) // width))
    ]


def services_counted(connection: Connection, app: str, *, since: int) -> list[str]:
    """Return the push services by which an app sent or lost something since an instant."""
    mine = (tallies.c.app == app, tallies.c.hour >= since)
    statement = select(tallies.c.service).where(*mine).distinct()
    found = set(connection.scalars(statement))
    return [name for name in SERVICES if name in found]


def _bucket(start: int, hours: int, row: Any) -> HourCount:
    counts = {} if row is None else {name: int(getattr(row, name)) for name in COUNTED}
    return HourCount(start=start, hours=hours, **counts)


def _add_rows(connection: Connection, by_row: _Counted, at: int) -> None:
    by_app: dict[tuple[str, str], Counter[str]] = {}
    app_of = dict(_APPS.rows(connection, numbers=list({row for row, _ in by_row})))
    for (row, gateway), counts in by_row.items():
        if row in app_of:
            # What a Mac's Simulator got counts with Apple's.
            service = service_of(gateway).name
            by_app.setdefault((app_of[row], service), Counter()).update(counts)
    # In one order everywhere, so that two writers never wait for each other.
    counted = sorted(by_app.items())
    columns: dict[str, list[Any]] = {
        "app": [app for (app, _), _ in counted],
        "service": [service for (_, service), _ in counted],
        "hour": [at // HOUR * HOUR] * len(counted),
        **{name: [counts[name] for _, counts in counted] for name in COUNTED},
    }
    sums = {name: f"tallies.{name} + excluded.{name}" for name in COUNTED}
    upsert_rows(connection, tallies, columns, key=_KEY, changed=sums)


_KEY: Final = ("hour", "service", "app")
_NUMBERS: Final = each("numbers", BigInteger)
_APPS: Final = Statement(
    select(notifications.c.id, notifications.c.app)
    .select_from(_NUMBERS)
    .join(notifications, notifications.c.id == _NUMBERS.c.value)
)
