"""What virtual phones say of pushes by their apns-ids, many in one transaction."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from handbell._chunks import chunks
from handbell.delivery.ids import read_apns_id
from handbell.delivery.record.hourly_counts import add_reports
from handbell.storage.tables import deliveries, notifications

from .receipts import MEANT, Event


class DeviceReport(NamedTuple):
    """One thing that happened on a phone, ``at`` an instant in UNIX milliseconds."""

    apns_id: str
    event: Event
    at: int


def note_reports(connection: Connection, reports: Sequence[DeviceReport]) -> set[str]:
    """Write what phones say, and return the apns-ids whose deliveries are here.

    The first report of an event counts: a phone that shows or opens it again changes nothing.
    """
    noted: set[str] = set()
    for chunk in chunks(reports):
        noted |= _note(connection, chunk)
    return noted


def _note(connection: Connection, reports: Sequence[DeviceReport]) -> set[str]:
    named = {report: read_apns_id(report.apns_id) for report in reports}
    found = _find(connection, {one for one in named.values() if one is not None})
    noted, news = set(), {}
    for report, name in named.items():
        row = None if name is None else found.get(name)
        if name is None or row is None:
            continue
        noted.add(report.apns_id)
        for event in MEANT[report.event]:
            if getattr(row, f"{event}_at") is None and (name, event) not in news:
                news[name, event] = report.at
    for event in ("displayed", "opened"):
        told = {found[name]: at for (name, what), at in news.items() if what == event}
        if told:
            _write(connection, event, told)
    return noted


def _find(connection: Connection, names: set[tuple[str, int]]) -> dict[tuple[str, int], Any]:
    statement = _FOUND.where(
        notifications.c.public_id.in_({public_id for public_id, _ in names}),
        deliveries.c.number.in_({number for _, number in names}),
    )
    rows = connection.execute(statement) if names else ()
    return {(row.public_id, row.number): row for row in rows}


def _write(connection: Connection, event: str, told: dict[Any, int]) -> None:
    counted: dict[int, Counter[str]] = {}
    for row in told:
        counted.setdefault(row.notification_id, Counter())[event] += 1
    add_reports(connection, counted, max(told.values()))
    statement = (
        update(deliveries)
        .where(
            deliveries.c.notification_id == bindparam("of"),
            deliveries.c.number == bindparam("to"),
        )
        .values({f"{event}_at": bindparam("at")})
    )
    values = [{"of": row.notification_id, "to": row.number, "at": at} for row, at in told.items()]
    connection.execute(statement, values)


_FOUND: Final = select(
    notifications.c.public_id,
    deliveries.c.notification_id,
    deliveries.c.number,
    deliveries.c.displayed_at,
    deliveries.c.opened_at,
).join_from(deliveries, notifications)
