"""What may go now: the app's switch, times, quiet hours and the cap, looked at before each send."""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from handbell.delivery.delivery import State  # noqa: TC001 - not worth a block
from handbell.delivery.policy.app_rules import AppRules
from handbell.delivery.policy.cap import Cap
from handbell.delivery.policy.parts import QUIET, SCHEDULED, HoldReason
from handbell.delivery.policy.quiet_hours import held_until
from handbell.delivery.queue.due import Due
from handbell.delivery.record.settle import Settlement
from handbell.delivery.work.composed import Composed
from handbell.delivery.work.in_flight import Ticket
from handbell.delivery.work.push_batch import Item, Portion

from .cap_gate import CapGate
from .sender import WITHOUT_SESSION

DISABLED_SECONDS: Final = 15 * 60
"""After how long the deliveries of an app that is switched off are looked at again."""

_log = logging.getLogger(__name__)


class Admission:
    """Lets deliveries through, or gives them a row that says why not; belongs to one worker.

    A cap is exact, also for pushes that are on their way; see
    :class:`~handbell.delivery.send.cap_gate.CapGate` for other workers.
    """

    def __init__(self, book: Settlement, cap_gate: CapGate, *, now: Callable[[], float]) -> None:
        self._book = book
        self._cap_gate = cap_gate
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
        app_state, row = composed.app_state, composed.row
        ready: list[Item] = []
        capped: list[Item] = []
        async with app_state.cap_in_flight.turn:
            allowed = await self._cap_gate.allowed(app_state, cap, row, known, self._now())
            for item in items:
                if item.user_id is None:
                    ready.append(item)
                elif item.user_id in allowed:
                    ready.append(item)
                    ticket.let_through(row, item.number, item.user_id)
                else:
                    capped.append(item)
            app_state.cap_in_flight.free_unused((user, row) for user in allowed)
        return ready, capped


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
