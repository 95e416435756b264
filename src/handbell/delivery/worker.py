"""The worker: takes what is due, sends it, and writes down what became of it.

One loop takes work and hands it to the gateways; reports come back as they come, thousands a
second; another loop writes them in batches. What bounds memory is the number of pushes that were
handed out and are not written down yet, never the size of a broadcast. A push that is slow, dead or
refused holds one place of that window and nothing else.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from random import Random
from time import time
from typing import Any, Final, TypeVar

from handbell.apps.app import App
from handbell.errors import HandbellError, StorageError

from .admission import DISABLED_SECONDS, Admission
from .batch import Batch, Ending
from .campaign import Campaign
from .due import NORMAL, Due
from .events import Hooks
from .lane import FIRST_BATCH, Lane
from .pages import Listener
from .parcels import Broadcast, Item, Page
from .queue import Queue
from .releases import Releases
from .roster import LEASE_SECONDS, Roster
from .rulebook import RuleBook
from .rules import AppRules, Stop
from .sending import FindGateway, Sender
from .settlement import Settlement
from .store import Ledger

PAGE: Final = 2000
"""How many deliveries are taken from the database at a time."""

WINDOW: Final = 9000
"""How many pushes may be on their way, or not written down yet, at once.

One app may have two thirds of what the others leave, so there is always room for the next: however
many apps get no answer, another one goes on.
"""

STOP_SECONDS: Final = 10.0
"""How long a stop waits for a database that takes nothing."""

RULES_SECONDS: Final = 5.0
BEAT_SECONDS: Final = 4.0
IDLE_SECONDS: Final = 1.0
_PAGES: Final = 3
_FLUSH_AT: Final = 2000
_FLUSH_SECONDS: Final = 0.02
_BULK_FLUSH_SECONDS: Final = 0.04
"""With so many on their way nobody waits for one; a commit costs as much for 500 as for 1500."""
_STORAGE_PAUSE: Final = 0.5
_UNREADABLE_TIMES: Final = 24 * 4
_WATCH_SECONDS: Final = 0.25
_SOON_SECONDS: Final = 2.0
_CAMPAIGNS: Final = 500

_log = logging.getLogger(__name__)

T = TypeVar("T")


LoadCampaigns = Callable[[Sequence[int], Callable[[App], Lane]], Mapping[int, Campaign | Exception]]
"""Gives the campaigns of notifications' rows; those that are gone are left out. In a thread."""


class Worker:
    """Sends what is due, for every app, until it is stopped.

    ``find_gateway`` and ``load`` come from the system. Run it with :meth:`start` and :meth:`stop`
    in one event loop. ``window`` may be changed while it runs. Raises nothing: what goes wrong is
    written, told to the hooks, or tried again.
    """

    def __init__(
        self,
        queue: Queue,
        *,
        ledger: Ledger,
        roster: Roster,
        rulebook: RuleBook,
        find_gateway: FindGateway,
        load: LoadCampaigns,
        hooks: Hooks | None = None,
        now: Callable[[], float] = time,
        rng: Random | None = None,
        window: int = WINDOW,
    ) -> None:
        self.hooks = hooks or Hooks()
        self._queue = queue
        self._ledger = ledger
        self._roster = roster
        self._rulebook = rulebook
        self.id = 0
        self.in_flight = 0
        self.patience = STOP_SECONDS
        self._load = load
        self._now = now
        self.releases = Releases()
        self._book = Settlement(
            hooks=self.hooks,
            now=now,
            rng=rng or Random(),  # noqa: S311 - jitter
            write_stop=self._write_stop,
            releases=self.releases,
        )
        self._admission = Admission(self._book, rulebook, read=self.read, now=now)
        self._sender = Sender(self._book, self.releases, find_gateway=find_gateway, now=now)
        self.window = window
        self._lanes: dict[str, Lane] = {}
        self._campaigns: dict[int, Campaign] = {}
        self._broadcasts: list[Broadcast] = []
        self._written = asyncio.Event()
        self._wake = asyncio.Event()
        self._sends: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._failing: dict[object, float] = {}
        self._full: list[str] = []
        self._is_stopping = False
        self._beaten_at = 0.0

    # Life

    async def start(self) -> None:
        """Enter the worker and begin to take work."""
        self._beaten_at = self._now()
        self.id = await asyncio.to_thread(self._roster.enlist)
        await asyncio.to_thread(self._roster.reclaim)
        self._loops = [
            asyncio.create_task(self._take_work()),
            asyncio.create_task(self._write_down()),
            asyncio.create_task(self._beat()),
        ]

    async def stop(self) -> None:
        """Take no more work, finish what is on its way, give back the rest.

        Where the database takes nothing for ``patience`` seconds it stops even so. What could not
        be written then is sent again by the next start, under the same apns-ids and with a collapse
        id; nothing is lost.
        """
        self._is_stopping = True
        self._wake.set()
        began = asyncio.get_running_loop().time()
        finishing = asyncio.create_task(self._finish())
        while not finishing.done() and not self._is_hopeless(began):
            await asyncio.wait([finishing], timeout=_WATCH_SECONDS)
        is_finished = finishing.done()
        for task in (finishing, *self._loops, *self._sends):
            task.cancel()
        await asyncio.gather(finishing, *self._loops, *self._sends, return_exceptions=True)
        if not is_finished:
            _log.error(
                "The database takes nothing: stopped with %d ends not written down; "
                "the next start sends these again",
                self.in_flight,
            )
            return
        with contextlib.suppress(StorageError):
            await asyncio.to_thread(self._roster.retire, self.id)

    async def _finish(self) -> None:
        await self._loops[0]
        while self._sends or self.in_flight:
            self._book.reported.set()
            await self._next_written(_FLUSH_SECONDS)

    def _is_hopeless(self, began: float) -> bool:
        """Whether something has waited in vain for the database since a stop began."""
        since = min(self._failing.values(), default=None)
        now = asyncio.get_running_loop().time()
        return since is not None and now - max(began, since) > self.patience

    def room_of(self, app: App) -> int:
        """Return how many more pushes of an app may be on their way, or not written down yet."""
        lane = self.lane_of(app)
        return self._share(lane) - lane.out

    def _share(self, lane: Lane) -> int:
        left_by_others = self.window - (self.in_flight - lane.out)
        # However many apps wait for an answer, each can send its first batch.
        return max(_PAGES * FIRST_BATCH, left_by_others * 2 // 3)

    def _page_of(self, lane: Lane) -> int:
        """Return how many pushes of an app are handed out at a time; 0 while it has no room."""
        share = self._share(lane)
        size = min(PAGE, share // _PAGES)
        return size if lane.out + size <= share else 0

    def wake(self) -> None:
        """Look for work now instead of at the next turn."""
        self._wake.set()

    def lane_of(self, app: App) -> Lane:
        """Return the lane of an app, made when first asked for."""
        return self._lanes.setdefault(app.id, Lane(app))

    async def settled(self, row: int) -> None:
        """Return when every delivery of a notification has ended or waits for its time.

        Other workers may have a part in it.
        """
        while self._has_in_hand(row) or not await self.read(self._queue.is_settled, row):
            await self._next_written(_WATCH_SECONDS)

    def _has_in_hand(self, row: int) -> bool:
        return any(one.shard.notification == row for one in self._broadcasts)

    async def idle(self) -> None:
        """Return once nothing is due and nothing is on its way: the rest waits for its time."""
        while self.in_flight or self._broadcasts or await self._is_due_soon():
            await self._next_written(_WATCH_SECONDS)

    async def _is_due_soon(self) -> bool:
        if any(await self.read(self._queue.look)):
            return True
        # What a rate limit holds falls due again within a moment.
        _, due_at = await self.read(self._queue.depth)
        return due_at is not None and due_at <= self._now() + _SOON_SECONDS

    def hand_over(self, campaign: Campaign, items: Sequence[Due], reading: int) -> None:
        """Send deliveries that were stored under this worker's name, without reading them back.

        ``reading`` was begun with ``releases`` before their sessions were read; it stays the
        caller's to end.
        """
        self._keep(campaign)
        self._count_out(campaign.lane, len(items))
        self._spawn(self._send_items(campaign, items, self.releases.join(reading)))

    async def release(self, session_ids: Collection[int]) -> None:
        """Send nothing more to sessions that were closed or given to others.

        What this process has in hand for them ends as cancelled. Returns when nothing of it is on
        its way any more: once the push service has answered what it was handed already. Call it
        after the change was committed; what is read from then on goes by that.
        """
        await self._sender.release(session_ids)

    # Taking work

    async def _take_work(self) -> None:
        while not self._is_stopping:
            try:
                took = await self._turn_of_work()
            except StorageError as error:
                _log.warning("The database cannot be used now: %s", error)
                await asyncio.sleep(_STORAGE_PAUSE)
            except Exception:  # noqa: BLE001 - one turn must not end the worker
                _log.exception("A turn of work broke off; the next one follows")
                await asyncio.sleep(_STORAGE_PAUSE)
            else:
                if not took:
                    await self._rest()

    async def _turn_of_work(self) -> bool:
        now = self._now()
        if now - self._beaten_at > LEASE_SECONDS / 2:
            await self._keep_alive()
        self._full = full = [
            lane.app.id for lane in self._lanes.values() if lane.out and not self._page_of(lane)
        ]
        going = [one for one in self._broadcasts if not one.is_read]
        ready = [one for one in going if one.is_ready(now) and not one.is_of(full)]
        resting = {one.shard.notification for one in going if one not in ready}
        # With a shard in hand, only what is more urgent is taken as well.
        mine = max((one.shard.urgency for one in ready), default=0)
        level, is_shard_due = await asyncio.to_thread(
            partial(self._queue.look, above=mine, apart_from=resting, full=full)
        )
        took = level >= mine and bool(level) and await self._take_due(level)
        if is_shard_due:
            shard = await asyncio.to_thread(self._queue.claim_shard, self.id, mine, resting, full)
            if shard is not None:
                ready.append(Broadcast(shard))
                self._broadcasts.append(ready[-1])
        if ready:
            await self._take_page(max(ready, key=lambda one: one.shard.urgency))
        return took or bool(ready)

    async def _rest(self) -> None:
        now = self._now()
        later = [one.ready_at - now for one in self._broadcasts if one.ready_at > now]
        wait = min([IDLE_SECONDS, *later])
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), wait)
        self._wake.clear()

    async def _next_written(self, seconds: float) -> None:
        self._written.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._written.wait(), seconds)

    async def _take_due(self, level: int) -> bool:
        reading = self.releases.begin()
        try:
            most = min(PAGE, max(FIRST_BATCH, (self.window - self.in_flight) // _PAGES))
            due = await asyncio.to_thread(self._queue.claim_due, self.id, level, most, self._full)
            await self._begin_due(due, reading)
        finally:
            self.releases.end(reading)
        return bool(due)

    async def _begin_due(self, due: Sequence[Due], reading: int) -> None:
        by_notification: dict[int, list[Due]] = {}
        for one in due:
            by_notification.setdefault(one.notification, []).append(one)
        campaigns = await self._campaigns_of(list(by_notification))
        for row, items in by_notification.items():
            campaign = campaigns.get(row)
            if isinstance(campaign, Exception):
                # The others have no part in it.
                _log.error(
                    "A stored notification cannot be read; its deliveries wait", exc_info=campaign
                )
                self._postpone(items, campaign)
            elif campaign is not None:
                self._count_out(campaign.lane, len(items))
                self._spawn(self._send_items(campaign, items, self.releases.join(reading)))

    def _postpone(self, items: Sequence[Due], error: Exception) -> None:
        """Hold what cannot be read, for a day; a wrong secret key may be the cause, and mended."""
        at = self._now()
        what = error.what if isinstance(error, HandbellError) else type(error).__name__
        for item in items:
            is_over = item.attempts >= _UNREADABLE_TIMES
            ending = Ending(
                notification_id=item.notification,
                number=item.number,
                gateway=item.gateway,
                environment=item.environment,
                urgency=NORMAL,
                state="failed" if is_over else "held",
                attempts=item.attempts + 1,
                reason="CannotBeRead",
                detail=what,
                due_at=None if is_over else int((at + DISABLED_SECONDS) * 1000),
                is_repeat=item.is_repeat,
                finished_at=int(at * 1000) if is_over else None,
                begun_at=item.begun_at,
            )
            self._book.write_ending(ending)

    async def _take_page(self, broadcast: Broadcast) -> None:
        try:
            await self._hand_out_page(broadcast)
        except Exception:
            broadcast.ready_at = self._now() + DISABLED_SECONDS
            raise

    async def _hand_out_page(self, broadcast: Broadcast) -> None:
        shard, now = broadcast.shard, self._now()
        campaign = await self._campaign(shard.notification)
        if campaign is None or campaign.is_cancelled:
            broadcast.is_read = True
            self._book.reported.set()
            return
        broadcast.lane = lane = campaign.lane
        await self._read_rules(lane)
        if lane.awaits_proof:
            return
        is_stopped = not lane.may_send(now)
        if is_stopped and not campaign.is_over(now):
            self._let_rest(broadcast, lane, now)
            return
        if not (size := self._page_of(lane)):
            lane.forgo_probe()
            return
        # What is over is handed out in spite of the circuit, so that each gets its end.
        most, wait = (size, 0.0) if is_stopped else _grant(lane, size, now)
        if not most:
            lane.forgo_probe()
            broadcast.ready_at = now + wait
            return
        reading = self.releases.begin()
        try:
            rules = lane.rules
            read = partial(
                self._queue.page,
                also=campaign.needs(rules),
                is_development=campaign.is_development,
            )
            listeners = await self.read(read, shard, most)
            self._begin_page(
                broadcast, campaign, listeners, rules, reading, is_last=len(listeners) < most
            )
        finally:
            self.releases.end(reading)

    def _count_out(self, lane: Lane, number: int) -> None:
        self.in_flight += number
        lane.out += number

    def _begin_page(
        self,
        broadcast: Broadcast,
        campaign: Campaign,
        listeners: Sequence[Listener],
        rules: AppRules,
        reading: int,
        *,
        is_last: bool,
    ) -> None:
        shard, lane = broadcast.shard, campaign.lane
        broadcast.is_read = is_last
        shard.position = listeners[-1].number if listeners else shard.last
        page = Page(shard.position, len(listeners))
        broadcast.pages.append(page)
        self._book.reported.set()
        if listeners:
            self._count_out(lane, len(listeners))
            reading = self.releases.join(reading)
            self._spawn(self._send_page(campaign, listeners, page, rules, reading))
        else:
            lane.forgo_probe()

    def _let_rest(self, broadcast: Broadcast, lane: Lane, now: float) -> None:
        """Give a stopped app's shard back until it is tried again, once its pages have ended."""
        if broadcast.pages:
            broadcast.ready_at = now + _WATCH_SECONDS
            return
        self._broadcasts.remove(broadcast)
        self._book.rest_shard(broadcast.shard.id, lane.resume_at(now))

    async def _proof(self, lane: Lane) -> None:
        while lane.awaits_proof:
            await self._next_written(_FLUSH_SECONDS)

    async def _campaign(self, row: int) -> Campaign | None:
        campaign = (await self._campaigns_of([row])).get(row)
        if isinstance(campaign, Exception):
            raise campaign
        return campaign

    async def _campaigns_of(self, rows: Sequence[int]) -> dict[int, Campaign | Exception]:
        """Return the campaigns of notifications; those that are gone are left out.

        However many there are, the database is asked once for those that are known and once for
        the others. One that cannot be read is the reason why.
        """
        known = {row: self._campaigns[row] for row in rows if row in self._campaigns}
        if known:
            live = await self.read(self._ledger.not_cancelled, list(known))
            for row, campaign in known.items():
                campaign.is_cancelled = row not in live
        rest = [row for row in rows if row not in known]
        loaded = await self.read(self._load, rest, self.lane_of) if rest else {}
        for each in loaded.values():
            if isinstance(each, Campaign):
                self._keep(each)
        return {**known, **loaded}

    def _keep(self, campaign: Campaign) -> None:
        if len(self._campaigns) >= _CAMPAIGNS:
            self._campaigns.pop(next(iter(self._campaigns)))
        self._campaigns[campaign.row] = campaign

    async def _read_rules(self, lane: Lane) -> None:
        if self._now() - lane.read_at > RULES_SECONDS:
            rules = await self.read(self._rulebook.rules_of, lane.app.id)
            if not lane.is_probing:
                lane.take_rules(rules, self._now())

    async def read(self, what: Callable[..., T], *arguments: Any) -> T:
        """Call something of the stores in a thread, again and again until the database takes it."""
        call = object()
        try:
            while True:
                try:
                    return await asyncio.to_thread(what, *arguments)
                except StorageError as error:
                    self._failing.setdefault(call, asyncio.get_running_loop().time())
                    _log.warning("The database cannot be used now: %s", error)
                    await asyncio.sleep(_STORAGE_PAUSE)
        finally:
            self._failing.pop(call, None)

    # Sending

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._sends.add(task)
        task.add_done_callback(self._end_send)
        return task

    def _end_send(self, task: asyncio.Task[None]) -> None:
        self._sends.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("A send broke off", exc_info=task.exception())

    async def _send_items(self, campaign: Campaign, items: Sequence[Due], reading: int) -> None:
        """Send single deliveries that may go now; the others get a row that says until when."""
        try:
            lane = campaign.lane
            await self._read_rules(lane)
            held = self._admission.with_session(campaign, items)
            ready = await self._admission.admit(campaign, held, lane.rules)
            await self._send_ready(campaign, ready, reading)
        finally:
            self.releases.end(reading)

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
            self._spawn(self._sender.send(campaign, part, None, self.releases.join(reading)))
            await self._proof(lane)

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
                await self._sender.send(campaign, ready, page, self.releases.join(reading))
            else:
                campaign.lane.forgo_probe()
        finally:
            self.releases.end(reading)

    # Writing down

    async def _write_down(self) -> None:
        while True:
            await self._book.reported.wait()
            if self._book.unwritten < min(_FLUSH_AT, self.in_flight):
                is_bulk = self.in_flight >= _FLUSH_AT
                await asyncio.sleep(_BULK_FLUSH_SECONDS if is_bulk else _FLUSH_SECONDS)
            self._book.reported.clear()
            self._book.judge_doubtful()
            self._spawn_astray()
            await self._flush()

    async def _flush(self) -> None:
        batch, events, number = self._book.cut(self._broadcasts)
        if batch:
            await self.read(self._ledger.record, batch)
            for lane in self._lanes.values():
                if lane.underway:
                    _note_written(lane, batch)
        self.in_flight -= number
        self._written.set()
        if self._broadcasts or self._full:
            self._wake.set()
        for event in events:
            self.hooks.emit(event)

    def _spawn_astray(self) -> None:
        astray, self._book.astray = self._book.astray, []
        for parcel in self._sender.readdress(astray):
            self._spawn(self._sender.send_parcel("apns", parcel))

    def _write_stop(self, app_id: str, stop: Stop | None) -> None:
        self._spawn(asyncio.to_thread(self._rulebook.write_stop, app_id, stop))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            try:
                await self._keep_alive()
                await asyncio.to_thread(self._roster.reclaim)
            except StorageError as error:
                _log.warning("The worker cannot say that it lives: %s", error)

    async def _keep_alive(self) -> None:
        """Say that the worker lives; of what was given to others no more is handed out."""
        at = self._now()
        if not await asyncio.to_thread(self._roster.beat, self.id):
            self._broadcasts.clear()
            self.id = await asyncio.to_thread(self._roster.enlist)
        self._beaten_at = at


def _grant(lane: Lane, size: int, now: float) -> tuple[int, float]:
    return lane.grant(size if lane.is_proven else FIRST_BATCH, now)


def _note_written(lane: Lane, batch: Batch) -> None:
    for (row, _, _), numbers in batch.sent.items():
        lane.underway.remove(row, numbers)
    for ending in batch.endings:
        lane.underway.remove(ending.notification_id, (ending.number,))
