"""What may go now: the app's switch, times, quiet hours and the cap, looked at before each send."""

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from handbell.delivery.delivery import State  # noqa: TC001 - not worth a block
from handbell.delivery.policy.app_rules import AppRules
from handbell.delivery.policy.cap import Cap
from handbell.delivery.policy.parts import QUIET, SCHEDULED, HoldReason
from handbell.delivery.policy.quiet_hours import held_until
from handbell.delivery.policy.rules_store import RulesStore
from handbell.delivery.queue.due import Due
from handbell.delivery.record.settle import Settlement
from handbell.delivery.work.composed import Composed
from handbell.delivery.work.in_flight import Ticket
from handbell.delivery.work.push_batch import Item, Portion

from .sender import WITHOUT_SESSION

DISABLED_SECONDS: Final = 15 * 60
"""After how long the deliveries of an app that is switched off are looked at again."""

_log = logging.getLogger(__name__)


class Read(Protocol):
    """Calls something of the stores in a thread until the database takes it."""

    def __call__(self, what: Callable[..., Any], /, *arguments: Any) -> Awaitable[Any]:
        """Return what it returned."""


class Admission:
    """Lets deliveries through, or gives them a row that says why not; belongs to one worker.

    Within one process a cap is exact, also for pushes that are on their way. Across processes the
    pushes of a broadcast have no rows until they end: a person may get one more than the cap for
    each broadcast that another process has in hand for them in that moment.
    """

    def __init__(
        self, book: Settlement, rules_store: RulesStore, *, read: Read, now: Callable[[], float]
    ) -> None:
        self._book = book
        self._rules_store = rules_store
        self._read = read
        self._now = now

    async def admit(
        self, ticket: Ticket, composed: Composed, items: Sequence[Item], rules: AppRules
    ) -> list[Any]:
        """Return what may go now; the others get a row that says why not, or until when."""
        try:
            return await self._sort(ticket, composed, items, rules)
        except Exception as error:  # noqa: BLE001 - nothing may be left without an end
            self.refuse(ticket, composed, items, error)
            return []

    def refuse(
        self, ticket: Ticket, composed: Composed, items: Sequence[Item], error: Exception
    ) -> None:
        """Hold all of it, since the app's rules cannot be followed."""
        _log.error("Could not apply rules: app=%s", composed.app_state.app.id, exc_info=error)
        until = self._now() + DISABLED_SECONDS
        self._book.hold_all(ticket, composed, items, "Interrupted", until)

    def with_session(self, ticket: Ticket, portion: Portion) -> Portion:
        """Return the deliveries whose session still takes something; the others are over."""
        composed, items = portion
        reasons = [
            WITHOUT_SESSION.get(item.status) if isinstance(item, Due) else None for item in items
        ]
        if not any(reasons):
            return portion
        for item, reason in zip(items, reasons, strict=True):
            if reason is not None:
                self._book.end(ticket, composed, item, "cancelled", reason)
        kept = [item for item, reason in zip(items, reasons, strict=True) if reason is None]
        return Portion(composed, kept)

    async def _sort(
        self, ticket: Ticket, composed: Composed, items: Sequence[Item], rules: AppRules
    ) -> list[Any]:
        now = self._now()
        if not rules.is_enabled:
            self._book.hold_all(ticket, composed, items, "AppDisabled", now + DISABLED_SECONDS)
            return []
        if composed.is_cancelled or composed.is_expired(now):
            state: State = "cancelled" if composed.is_cancelled else "expired"
            for item in items:
                self._book.end(ticket, composed, item, state, state.capitalize())
            return []
        cap = rules.cap if composed.is_loud else None
        if (
            composed.send_at is None
            and cap is None
            and (rules.quiet is None or not composed.is_loud)
        ):
            return list(items)
        # All that may fail comes first: what has its row must not get another.
        by_zone = waits_of(composed, {item.time_zone for item in items}, rules, now)
        waits = [by_zone.get(item.time_zone) for item in items]
        ready = [item for item, wait in zip(items, waits, strict=True) if wait is None]
        capped: list[Item] = []
        if cap is not None:
            ready, capped = await self._cap(ticket, composed, ready, cap)
        for wait in dict.fromkeys(by_zone.values()):
            held = [item for item, its in zip(items, waits, strict=True) if its == wait]
            self._book.hold_all(ticket, composed, held, *wait)
        for item in capped:
            self._book.end(ticket, composed, item, "cancelled", "Capped")
        return ready

    async def _cap(
        self, ticket: Ticket, composed: Composed, items: Sequence[Item], cap: Cap
    ) -> tuple[list[Item], list[Item]]:
        """Return what the cap lets through, which is underway from now on, and what it does not."""
        known = {item.user_id for item in items if item.user_id is not None}
        cap_in_flight, row = composed.app_state.cap_in_flight, composed.row
        ready: list[Item] = []
        capped: list[Item] = []
        async with cap_in_flight.turn:
            there = {user_id: cap_in_flight.rows_of(user_id) for user_id in known}
            written = await self._read(
                self._rules_store.notifications_by_user, known, cap.since(self._now()), row
            )
            for item in items:
                if not _is_allowed(cap, item, row, written, there):
                    capped.append(item)
                    continue
                ready.append(item)
                if item.user_id is not None:
                    ticket.let_through(row, item.number, item.user_id)
        return ready, capped


def _is_allowed(
    cap: Cap,
    item: Item,
    row: int,
    written: Mapping[int, Collection[int]],
    cap_in_flight: Mapping[int, Collection[int]],
) -> bool:
    if item.user_id is None:
        return True
    others = {*written.get(item.user_id, ()), *cap_in_flight[item.user_id]} - {row}
    return cap.allows(len(others))


def waits_of(
    composed: Composed, zones: Iterable[str | None], rules: AppRules, now: float
) -> dict[str | None, HoldReason]:
    """Return what a notification waits for in time zones, of those where it has to wait."""
    waits = {zone: _wait_of(composed, zone, rules, now) for zone in zones}
    return {zone: wait for zone, wait in waits.items() if wait is not None}


def _wait_of(
    composed: Composed, zone: str | None, rules: AppRules, now: float
) -> HoldReason | None:
    # What is for no later time is due, also where the clock was set back since.
    if composed.send_at is not None and (starts_at := composed.starts_at(zone)) > now:
        return HoldReason(SCHEDULED, starts_at)
    if rules.quiet is None or not composed.is_loud:
        return None
    until = held_until(rules.quiet, zone, now, rules.time_zone)
    return None if until is None else HoldReason(QUIET, until)
