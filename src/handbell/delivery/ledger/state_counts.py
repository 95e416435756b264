"""Count a notification's deliveries by state; large counts are cached briefly."""

from collections.abc import Callable
from time import monotonic
from typing import Final, NamedTuple

from sqlalchemy import Connection, and_, case, func, select, true

from handbell.delivery.delivery import FAILED_STATES
from handbell.services.table import SERVICES
from handbell.storage.tables import deliveries

LARGE: Final = 20_000
"""The number of deliveries from which a count is cached."""

DELIVERIES_PER_SECOND: Final = 100_000
"""A count is cached for one second per so many deliveries: ten seconds for a million."""

_KEPT_AT_MOST: Final = 1000


class Counted(NamedTuple):
    """The deliveries in one state for one reason, and how many were displayed and opened.

    ``gateway`` is what gave the reason; None for those that were sent, which have none.
    """

    state: str
    reason: str | None
    number: int
    displayed: int
    opened: int
    gateway: str | None = None


class ServiceCount(NamedTuple):
    """The deliveries of a notification by one push service: all with a row, and how they ended."""

    service: str
    number: int
    sent: int
    failed: int
    displayed: int
    opened: int


class CountCache:
    """A cache of counts for lists that many pages poll.

    A count takes about a fifth of a second per million deliveries and is cached for fifty times as
    long, so a page that refreshes constantly costs a fiftieth of a core per large notification.
    ``monotonic`` returns seconds.
    """

    def __init__(self, *, monotonic: Callable[[], float] = monotonic) -> None:
        self._monotonic = monotonic
        self._kept: dict[int, tuple[float, list[Counted]]] = {}

    def count(self, connection: Connection, row: int) -> list[Counted]:
        """Return the counts of a notification by state and reason, at most slightly stale."""
        until, kept = self._kept.get(row, (0.0, []))
        now = self._monotonic()
        if now < until:
            return kept
        counted = count_deliveries(connection, row)
        total = sum(item.number for item in counted)
        if total >= LARGE:
            if len(self._kept) >= _KEPT_AT_MOST:
                self._kept = {}
            self._kept[row] = (now + total / DELIVERIES_PER_SECOND, counted)
        return counted


def count_services(connection: Connection, row: int) -> list[ServiceCount]:
    """Return the deliveries of a notification by push service, of those that have any.

    One pass counts all: grouping would sort the rows. Xcode's Simulator counts as Apple's.
    """
    kinds = {
        "number": true(),
        "sent": deliveries.c.state == "sent",
        "failed": deliveries.c.state.in_(FAILED_STATES),
        "displayed": deliveries.c.displayed_at.is_not(None),
        "opened": deliveries.c.opened_at.is_not(None),
    }
    others = [name for name in SERVICES if name != "apns"]
    of_service = {
        "apns": deliveries.c.gateway.not_in(others),
        **{name: deliveries.c.gateway == name for name in others},
    }
    columns = [
        func.count(case((and_(is_its, is_so), 1)))
        for is_its in of_service.values()
        for is_so in kinds.values()
    ]
    mine = deliveries.c.notification_id == row
    found = connection.execute(select(*columns).where(mine)).one()
    counted = [
        ServiceCount(name, *found[place * len(kinds) : (place + 1) * len(kinds)])
        for place, name in enumerate(of_service)
    ]
    return [one for one in counted if one.number]


def count_deliveries(connection: Connection, row: int) -> list[Counted]:
    """Return the deliveries of a notification by state and reason.

    Most deliveries of a broadcast are sent; counting those without sorting is four times as fast.
    """
    mine, state, reason, gateway = (
        deliveries.c.notification_id == row,
        deliveries.c.state,
        deliveries.c.reason,
        deliveries.c.gateway,
    )
    numbers = (
        func.count(),
        func.count(deliveries.c.displayed_at),
        func.count(deliveries.c.opened_at),
    )
    sent = connection.execute(select(*numbers).where(mine, state == "sent")).one()
    others = connection.execute(
        select(state, reason, *numbers, gateway)
        .where(mine, state != "sent")
        .group_by(state, reason, gateway)
    )
    found = [Counted("sent", None, *sent)] if sent[0] else []
    return [*found, *(Counted(*other) for other in others)]
