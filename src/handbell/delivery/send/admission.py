"""Admission: the app's switch, times, quiet hours and cap, checked before each send."""

import logging
from collections.abc import (
    AsyncIterator,
    Callable,
    Iterable,
    Sequence,
)
from typing import Final

from handbell.delivery.delivery import State  # noqa: TC001 - not worth a block
from handbell.delivery.policy.app_rules import AppRules
from handbell.delivery.policy.cap import Cap
from handbell.delivery.policy.parts import QUIET, SCHEDULED, HoldReason
from handbell.delivery.policy.quiet_hours import held_until
from handbell.delivery.queue.due import Due
from handbell.delivery.record.settle import Settlement
from handbell.delivery.work.composed import Composed
from handbell.delivery.work.in_flight import Ticket
from handbell.errors import StoppedError

from .cap_gate import CapGate
from .sender import WITHOUT_SESSION

DISABLED_SECONDS: Final = 15 * 60
"""The interval at which deliveries of a disabled app are checked."""

_log = logging.getLogger(__name__)


class Admission:
    """Admits deliveries, or writes a row with the reason; belongs to one worker.

    A cap is exact, including pushes in flight; see
    :class:`~handbell.delivery.send.cap_gate.CapGate` for other workers.
    """

    def __init__(self, book: Settlement, cap_gate: CapGate, *, now: Callable[[], float]) -> None:
        self._book = book
        self._cap_gate = cap_gate
        self._now = now

    async def admit(
        self, ticket: Ticket, places: Sequence[int], rules: AppRules
    ) -> AsyncIterator[list[int]]:
        """Yield admitted deliveries; the others get a row with the reason, or the time.

        Admitted deliveries do not wait for database queries about others.
        """
        try:
            if not rules.is_enabled:
                until = self._now() + DISABLED_SECONDS
                self._book.hold_all(ticket, places, "AppDisabled", until)
                return
            ready: list[int] = []
            for composed, mine in ticket.by_notification(places):
                if rules.cap is not None and ready:
                    yield ready
                    ready = []
                ready += await self._sort(ticket, composed, mine, rules)
            yield ready
        except StoppedError:
            raise
        except Exception as error:  # noqa: BLE001 - nothing may be left without an end
            self.refuse(ticket, places, error)

    def refuse(self, ticket: Ticket, places: Iterable[int], error: Exception) -> None:
        """Hold all waiting or handed deliveries, which cannot be checked or begun."""
        _log.error("Could not begin to send: app=%s", ticket.app_state.app.id, exc_info=error)
        self._book.fail(ticket, places, error)

    def with_session(self, ticket: Ticket) -> list[int]:
        """Return the deliveries whose session is still open; end the others."""
        kept: list[int] = []
        for place, item in enumerate(ticket.items):
            reason = WITHOUT_SESSION.get(item.status) if isinstance(item, Due) else None
            if reason is None:
                kept.append(place)
            else:
                self._book.end(ticket, place, "cancelled", reason)
        return kept

    async def _sort(
        self, ticket: Ticket, composed: Composed, places: Sequence[int], rules: AppRules
    ) -> Sequence[int]:
        """Return the admitted deliveries of one notification."""
        now = self._now()
        if composed.is_cancelled or composed.is_expired(now):
            state: State = "cancelled" if composed.is_cancelled else "expired"
            for place in places:
                self._book.end(ticket, place, state, state.capitalize())
            return []
        cap = rules.cap if composed.is_loud else None
        if (
            composed.send_at is None
            and cap is None
            and (rules.quiet is None or not composed.is_loud)
        ):
            return places
        # Everything that may fail comes first: a delivery must not get two rows.
        zones = [ticket.items[place].time_zone for place in places]
        by_zone = waits_of(composed, set(zones), rules, now)
        waits = [by_zone.get(zone) for zone in zones]
        ready = [place for place, wait in zip(places, waits, strict=True) if wait is None]
        capped: list[int] = []
        if cap is not None:
            ready, capped = await self._cap(ticket, composed, ready, cap)
        for wait in dict.fromkeys(by_zone.values()):
            held = [place for place, its in zip(places, waits, strict=True) if its == wait]
            self._book.hold_all(ticket, held, *wait)
        for place in capped:
            self._book.end(ticket, place, "cancelled", "Capped")
        return ready

    async def _cap(
        self, ticket: Ticket, composed: Composed, places: Sequence[int], cap: Cap
    ) -> tuple[list[int], list[int]]:
        """Return the deliveries within the cap, which are in flight from now on, and the others."""
        items = ticket.items
        users = {items[place].user_id for place in places}
        known = {user_id for user_id in users if user_id is not None}
        app_state, row = composed.app_state, composed.row
        ready: list[int] = []
        capped: list[int] = []
        async with app_state.cap_in_flight.turn:
            allowed = await self._cap_gate.allowed(app_state, cap, row, known, self._now())
            for place in places:
                user_id = items[place].user_id
                if user_id is None:
                    ready.append(place)
                elif user_id in allowed:
                    ready.append(place)
                    ticket.let_through(place, user_id)
                else:
                    capped.append(place)
            app_state.cap_in_flight.free_unused((user, row) for user in allowed)
        return ready, capped


def waits_of(
    composed: Composed, zones: Iterable[str | None], rules: AppRules, now: float
) -> dict[str | None, HoldReason]:
    """Return the hold reason of a notification by time zone, where it has to wait."""
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
