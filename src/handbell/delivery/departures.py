"""From what was taken to what is sent: an app's rules, its circuit and its rate say what may go."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from .admission import Admission
from .campaign import Campaign
from .due import Due
from .lane import FIRST_BATCH, Lane
from .lanes import Lanes
from .pages import Listener
from .parcels import Item, Page
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

    def begin_items(self, campaign: Campaign, items: Sequence[Due], reading: int) -> None:
        """Begin to send single deliveries; ``reading`` is held until they are on the wire."""
        self._lanes.count_out(campaign.lane, len(items))
        self.begin(self._send_items(campaign, items, self._releases.join(reading)))

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

    async def _send_items(self, campaign: Campaign, items: Sequence[Due], reading: int) -> None:
        """Send single deliveries that may go now; the others get a row that says until when."""
        try:
            held = self._admission.with_session(campaign, items)
            if await self._knows_rules(campaign, held):
                ready = await self._admission.admit(campaign, held, campaign.lane.rules)
                await self._send_ready(campaign, ready, reading)
        finally:
            self._releases.end(reading)

    async def _knows_rules(self, campaign: Campaign, items: Sequence[Item]) -> bool:
        """Read the app's rules; where they cannot be read nothing goes out without them."""
        try:
            await self._lanes.read_rules(campaign.lane)
        except Exception as error:  # noqa: BLE001 - nothing may be left without an end
            self._admission.refuse(campaign, items, error)
            return False
        return True

    async def _send_ready(self, campaign: Campaign, ready: Sequence[Item], reading: int) -> None:
        lane = campaign.lane
        lane.waiting += len(ready)
        while ready:
            now = self._now()
            if not lane.may_send(now):
                lane.waiting -= len(ready)
                self._book.hold_stopped(campaign, ready)
                return
            most, wait = lane.grant(len(ready) if lane.is_proven else FIRST_BATCH, now)
            if not most:
                lane.forgo_probe()
                lane.waiting -= len(ready)
                self._book.hold_in_turn(campaign, ready, now + wait)
                return
            part, ready = ready[:most], ready[most:]
            lane.waiting -= len(part)
            self.begin(self._sender.send(campaign, part, None, self._releases.join(reading)))
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
                await self._sender.send(campaign, ready, page, self._releases.join(reading))
            else:
                campaign.lane.forgo_probe()
        finally:
            self._releases.end(reading)

    async def _proven(self, lane: Lane) -> None:
        while lane.awaits_proof:
            await self._writer.next_written(FLUSH_SECONDS)
