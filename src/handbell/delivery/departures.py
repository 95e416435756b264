"""From what was taken to what is sent: an app's rules, its circuit and its rate say what may go."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from .admission import Admission
from .campaign import Campaign
from .lane import FIRST_BATCH, Lane
from .lanes import Lanes
from .pages import Listener
from .parcels import Page, Portion
from .releases import Releases
from .rules import AppRules
from .sending import Sender
from .settlement import Settlement
from .writing import FLUSH_SECONDS, Writer

_log = logging.getLogger(__name__)


class Departures:
    """Sends what a worker has taken, each part in a task of its own; ``tasks`` are those that run.

    Whatever is not sent gets a row that says why not, or until when.
    """

    def __init__(
        self,
        book: Settlement,
        admission: Admission,
        sender: Sender,
        *,
        lanes: Lanes,
        writer: Writer,
        releases: Releases,
        now: Callable[[], float],
    ) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self._book = book
        self._admission = admission
        self._sender = sender
        self._lanes = lanes
        self._writer = writer
        self._releases = releases
        self._now = now

    def begin(self, work: Any) -> None:
        """Do something aside, in a task of its own; where it breaks off, the log says so."""
        task: asyncio.Task[None] = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("A send broke off", exc_info=task.exception())

    def begin_items(self, portions: Sequence[Portion], reading: int) -> None:
        """Begin to send single deliveries; ``reading`` is held until they are on the wire."""
        by_app: dict[str, list[Portion]] = {}
        for portion in portions:
            lane = portion.campaign.lane
            self._lanes.count_out(lane, len(portion.items))
            by_app.setdefault(lane.app.id, []).append(portion)
        for of_app in by_app.values():
            self.begin(self._send_items(of_app, self._releases.join(reading)))

    def begin_page(
        self,
        campaign: Campaign,
        listeners: Sequence[Listener],
        page: Page,
        rules: AppRules,
        reading: int,
    ) -> None:
        """Begin to send a page of a broadcast, which was read for these rules."""
        self._lanes.count_out(campaign.lane, len(listeners))
        reading = self._releases.join(reading)
        self.begin(self._send_page(campaign, listeners, page, rules, reading))

    def begin_astray(self) -> None:
        """Begin to ask the other environment about the tokens that the first one did not know."""
        astray, self._book.astray = self._book.astray, []
        for parcel in self._sender.readdress(astray):
            self.begin(self._sender.send_parcel("apns", parcel))

    async def _send_items(self, portions: Sequence[Portion], reading: int) -> None:
        """Send single deliveries that may go now; the others get a row that says until when."""
        lane = portions[0].campaign.lane
        try:
            held = [self._admission.with_session(portion) for portion in portions]
            if not await self._knows_rules(lane, held):
                return
            ready: list[Portion] = []
            for campaign, items in held:
                admitted = await self._admission.admit(campaign, items, lane.rules)
                ready.append(Portion(campaign, admitted))
                if lane.rules.cap is not None:
                    # The database is asked for each; what may go does not wait for the others.
                    await self._send_ready(lane, ready, reading)
                    ready = []
            await self._send_ready(lane, ready, reading)
        finally:
            self._releases.end(reading)

    async def _knows_rules(self, lane: Lane, portions: Sequence[Portion]) -> bool:
        """Read the app's rules; where they cannot be read nothing goes out without them."""
        try:
            await self._lanes.read_rules(lane)
        except Exception as error:  # noqa: BLE001 - nothing may be left without an end
            for campaign, items in portions:
                self._admission.refuse(campaign, items, error)
            return False
        return True

    async def _send_ready(self, lane: Lane, ready: Sequence[Portion], reading: int) -> None:
        left = sum(len(portion.items) for portion in ready)
        lane.waiting += left
        while left:
            now = self._now()
            if not lane.may_send(now):
                lane.waiting -= left
                for campaign, items in ready:
                    self._book.hold_stopped(campaign, items)
                return
            most, wait = lane.grant(left if lane.is_proven else min(left, FIRST_BATCH), now)
            if not most:
                lane.forgo_probe()
                lane.waiting -= left
                self._book.hold_in_turn(ready, now + wait)
                return
            part, ready = _split(ready, most)
            lane.waiting -= most
            left -= most
            self.begin(self._sender.send(part, self._releases.join(reading)))
            await self._proven(lane)

    async def _send_page(
        self,
        campaign: Campaign,
        listeners: Sequence[Listener],
        page: Page,
        rules: AppRules,
        reading: int,
    ) -> None:
        try:
            # By the rules for which it was read: others may need a column that was left out.
            ready = await self._admission.admit(campaign, listeners, rules, page)
            if campaign.lane.stop is not None and campaign.is_over(self._now()):
                self._book.hold_stopped(campaign, ready, page)
                campaign.lane.forgo_probe()
            elif ready:
                portion = Portion(campaign, ready)
                await self._sender.send([portion], self._releases.join(reading), page)
            else:
                campaign.lane.forgo_probe()
        finally:
            self._releases.end(reading)

    async def _proven(self, lane: Lane) -> None:
        while lane.awaits_proof:
            await self._writer.next_written(FLUSH_SECONDS)


def _split(portions: Sequence[Portion], most: int) -> tuple[list[Portion], list[Portion]]:
    """Return the first so many deliveries, and the others."""
    first: list[Portion] = []
    for place, (campaign, items) in enumerate(portions):
        if most < len(items):
            rest = [Portion(campaign, items[most:]), *portions[place + 1 :]]
            return [*first, Portion(campaign, items[:most])], rest
        first.append(Portion(campaign, items))
        most -= len(items)
    return first, []
