"""What may go now: the app's switch, times, quiet hours and the cap, looked at before each send."""

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from .campaign import Campaign
from .due import Due
from .in_flight import Ticket
from .parcels import Item, Portion
from .parts import QUIET, SCHEDULED, Wait
from .rulebook import RuleBook
from .rules import AppRules
from .sending import WITHOUT_SESSION
from .settlement import Settlement
from .timing import Cap, held_until

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
        self, book: Settlement, rulebook: RuleBook, *, read: Read, now: Callable[[], float]
    ) -> None:
        self._book = book
        self._rulebook = rulebook
        self._read = read
        self._now = now

    async def admit(
        self, ticket: Ticket, campaign: Campaign, items: Sequence[Item], rules: AppRules
    ) -> list[Any]:
        """Return what may go now; the others get a row that says why not, or until when."""
        try:
            return await self._sort(ticket, campaign, items, rules)
        except Exception as error:  # noqa: BLE001 - nothing may be left without an end
            self.refuse(ticket, campaign, items, error)
            return []

    def refuse(
        self, ticket: Ticket, campaign: Campaign, items: Sequence[Item], error: Exception
    ) -> None:
        """Hold all of it, since the app's rules cannot be followed."""
        _log.error("The rules of %s cannot be followed", campaign.lane.app.id, exc_info=error)
        until = self._now() + DISABLED_SECONDS
        self._book.hold_all(ticket, campaign, items, "Interrupted", until)

    def with_session(self, ticket: Ticket, portion: Portion) -> Portion:
        """Return the deliveries whose session still takes something; the others are over."""
        campaign, items = portion
        reasons = [
            WITHOUT_SESSION.get(item.status) if isinstance(item, Due) else None for item in items
        ]
        if not any(reasons):
            return portion
        for item, reason in zip(items, reasons, strict=True):
            if reason is not None:
                self._book.end(ticket, campaign, item, "cancelled", reason)
        kept = [item for item, reason in zip(items, reasons, strict=True) if reason is None]
        return Portion(campaign, kept)

    async def _sort(
        self, ticket: Ticket, campaign: Campaign, items: Sequence[Item], rules: AppRules
    ) -> list[Any]:
        now = self._now()
        if not rules.is_enabled:
            self._book.hold_all(ticket, campaign, items, "AppDisabled", now + DISABLED_SECONDS)
            return []
        if campaign.is_cancelled or campaign.is_expired(now):
            state = "cancelled" if campaign.is_cancelled else "expired"
            for item in items:
                self._book.end(ticket, campaign, item, state, state.capitalize())
            return []
        cap = rules.cap if campaign.is_loud else None
        if (
            campaign.send_at is None
            and cap is None
            and (rules.quiet is None or not campaign.is_loud)
        ):
            return list(items)
        # All that may fail comes first: what has its row must not get another.
        by_zone = waits_of(campaign, {item.time_zone for item in items}, rules, now)
        waits = [by_zone.get(item.time_zone) for item in items]
        ready = [item for item, wait in zip(items, waits, strict=True) if wait is None]
        capped: list[Item] = []
        if cap is not None:
            ready, capped = await self._cap(ticket, campaign, ready, cap)
        for item, wait in zip(items, waits, strict=True):
            if wait is not None:
                self._book.hold(ticket, campaign, item, *wait)
        for item in capped:
            self._book.end(ticket, campaign, item, "cancelled", "Capped")
        return ready

    async def _cap(
        self, ticket: Ticket, campaign: Campaign, items: Sequence[Item], cap: Cap
    ) -> tuple[list[Item], list[Item]]:
        """Return what the cap lets through, which is underway from now on, and what it does not."""
        known = {item.user_id for item in items if item.user_id is not None}
        underway, row = campaign.lane.underway, campaign.row
        ready: list[Item] = []
        capped: list[Item] = []
        async with underway.turn:
            there = {user_id: underway.rows_of(user_id) for user_id in known}
            written = await self._read(
                self._rulebook.notifications_by_user, known, cap.since(self._now()), row
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
    underway: Mapping[int, Collection[int]],
) -> bool:
    if item.user_id is None:
        return True
    others = {*written.get(item.user_id, ()), *underway[item.user_id]} - {row}
    return cap.allows(len(others))


def waits_of(
    campaign: Campaign, zones: Iterable[str | None], rules: AppRules, now: float
) -> dict[str | None, Wait]:
    """Return what a notification waits for in time zones, of those where it has to wait."""
    waits = {zone: _wait_of(campaign, zone, rules, now) for zone in zones}
    return {zone: wait for zone, wait in waits.items() if wait is not None}


def _wait_of(campaign: Campaign, zone: str | None, rules: AppRules, now: float) -> Wait | None:
    starts_at = campaign.starts_at(zone)
    if starts_at > now:
        return Wait(SCHEDULED, starts_at)
    if rules.quiet is None or not campaign.is_loud:
        return None
    until = held_until(rules.quiet, zone, now, rules.time_zone)
    return None if until is None else Wait(QUIET, until)
