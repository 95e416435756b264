"""From what was taken to what is sent: an app's rules, its circuit and its rate say what may go."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from .admission import Admission
from .campaign import Campaign
from .in_flight import InFlight, Ticket
from .lane import FIRST_BATCH, Lane
from .lanes import Lanes
from .pages import Listener
from .parcels import Item, Portion
from .probe import Probe
from .releases import Reading
from .rules import AppRules
from .sending import Sender
from .settlement import Settlement
from .writing import FLUSH_SECONDS, Writer

_log = logging.getLogger(__name__)


class Departures:
    """Sends what a worker has taken, each part in a task of its own; ``tasks`` are those that run.

    What is taken gets a ticket here; what is not sent gets a row that says why not, or until when.
    """

    def __init__(
        self,
        book: Settlement,
        admission: Admission,
        sender: Sender,
        *,
        lanes: Lanes,
        writer: Writer,
        in_flight: InFlight,
        now: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self._book = book
        self._admission = admission
        self._sender = sender
        self._lanes = lanes
        self._writer = writer
        self._in_flight = in_flight
        self._now = now
        self._clock = clock

    def begin(self, work: Any) -> None:
        """Do something aside, in a task of its own; where it breaks off, the log says so."""
        task: asyncio.Task[None] = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("A send broke off", exc_info=task.exception())

    def begin_items(self, portions: Sequence[Portion], reading: Reading) -> None:
        """Begin to send single deliveries; ``reading`` is shared until they are answered."""
        by_app: dict[str, list[Portion]] = {}
        for portion in portions:
            by_app.setdefault(portion.campaign.lane.app.id, []).append(portion)
        for of_app in by_app.values():
            members = [(campaign.row, _numbers(items)) for campaign, items in of_app]
            lane = of_app[0].campaign.lane
            ticket = self._in_flight.acquire(lane, members, reading.share())
            self.begin(self._send_items(ticket, of_app))

    def begin_page(
        self,
        campaign: Campaign,
        listeners: Sequence[Listener],
        rules: AppRules,
        reading: Reading,
        probe: Probe | None = None,
    ) -> Ticket:
        """Begin to send a page of a broadcast, which was read for these rules.

        ``reading`` is shared; a ``probe``, for a page of one, is the ticket's to give back.
        """
        numbers = _numbers(listeners)
        ticket = self._in_flight.acquire(
            campaign.lane, [(campaign.row, numbers)], reading.share(), is_page=True
        )
        # The next page is not read before the answers to the first.
        ticket.hand(campaign.row, numbers, probe)
        self.begin(self._send_page(ticket, campaign, listeners, rules))
        return ticket

    def begin_astray(self) -> None:
        """Begin to ask the other environment about the tokens that the first one did not know."""
        astray, self._book.astray = self._book.astray, []
        for parcel in self._sender.readdress(astray):
            self.begin(self._sender.send_parcel("apns", parcel))

    async def _send_items(self, ticket: Ticket, portions: Sequence[Portion]) -> None:
        """Send single deliveries that may go now; the others get a row that says until when."""
        try:
            await self._admit_items(ticket, portions)
        except Exception as error:  # noqa: BLE001 - nothing may be left without an end
            for campaign, items in portions:
                left = [one for one in items if ticket.is_waiting(campaign.row, one.number)]
                self._admission.refuse(ticket, campaign, left, error)

    async def _admit_items(self, ticket: Ticket, portions: Sequence[Portion]) -> None:
        lane = ticket.lane
        held = [self._admission.with_session(ticket, portion) for portion in portions]
        # Where the rules cannot be read nothing goes out without them.
        await self._lanes.read_rules(lane)
        ready: list[Portion] = []
        for campaign, items in held:
            admitted = await self._admission.admit(ticket, campaign, items, lane.rules)
            if admitted:
                ready.append(Portion(campaign, admitted))
            if lane.rules.cap is not None:
                # The database is asked for each; what may go does not wait for the others.
                await self._send_ready(ticket, ready)
                ready = []
        await self._send_ready(ticket, ready)

    async def _send_ready(self, ticket: Ticket, ready: Sequence[Portion]) -> None:
        lane = ticket.lane
        while ready:
            now, probe = self._now(), None
            if lane.stop is not None and (probe := lane.acquire(now)) is None:
                for campaign, items in ready:
                    self._book.hold_stopped(ticket, campaign, items)
                return
            try:
                most, wait = lane.grant(_most(lane, ready, probe), self._clock())
                if not most:
                    self._book.hold_in_turn(ticket, ready, now + wait)
                    return
                part, ready = _split(ready, most)
                for campaign, items in part:
                    ticket.hand(campaign.row, _numbers(items), probe)
            finally:
                if probe is not None and ticket.probe is not probe:
                    probe.release()
            self.begin(self._send(ticket, part))
            while lane.awaits_proof:
                await self._writer.next_written(FLUSH_SECONDS)

    async def _send_page(
        self,
        ticket: Ticket,
        campaign: Campaign,
        listeners: Sequence[Listener],
        rules: AppRules,
    ) -> None:
        # By the rules for which it was read: others may need a column that was left out.
        ready = await self._admission.admit(ticket, campaign, listeners, rules)
        if campaign.lane.stop is not None and campaign.is_over(self._now()):
            self._book.hold_stopped(ticket, campaign, ready)
        elif ready:
            await self._send(ticket, [Portion(campaign, ready)])

    async def _send(self, ticket: Ticket, part: Sequence[Portion]) -> None:
        try:
            await self._sender.send(ticket, part)
        except Exception as error:  # noqa: BLE001 - nothing may be left without an end
            for campaign, items in part:
                self._admission.refuse(ticket, campaign, items, error)


def _numbers(items: Sequence[Item]) -> list[int]:
    return [item.number for item in items]


def _most(lane: Lane, ready: Sequence[Portion], probe: Probe | None) -> int:
    """Return how many deliveries may go together, as far as the answers so far tell."""
    if probe is not None:
        return 1
    left = sum(len(portion.items) for portion in ready)
    return left if lane.is_proven else min(left, FIRST_BATCH)


def _split(portions: Sequence[Portion], most: int) -> tuple[list[Portion], list[Portion]]:
    """Return the first so many deliveries, and the others; a portion holds at least one."""
    first: list[Portion] = []
    for place, (campaign, items) in enumerate(portions):
        if not most:
            return first, list(portions[place:])
        if most < len(items):
            rest = [Portion(campaign, items[most:]), *portions[place + 1 :]]
            return [*first, Portion(campaign, items[:most])], rest
        first.append(Portion(campaign, items))
        most -= len(items)
    return first, []
