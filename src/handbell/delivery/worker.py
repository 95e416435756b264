"""The worker: takes what is due, sends it, and writes down what became of it.

One loop takes work and hands it to the gateways; reports come back as they come, thousands a
second; another loop writes them in batches. What bounds memory is the number of pushes that were
handed out and are not written down yet, never the size of a broadcast. A push that is slow, dead or
refused holds one place of that window and nothing else.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from time import time
from typing import Any, Final, Protocol, TypeVar

from handbell.apps.app import App
from handbell.errors import HandbellError, StorageError, TwinError
from handbell.gateways.gateway import Accepted, Gateway, Outcome, Push

from .campaign import Campaign
from .delivery import GatewayName
from .events import (
    CircuitClosed,
    CircuitOpened,
    DeliveryFailed,
    DeliveryHeld,
    Event,
    Hooks,
    PushesSent,
    SessionClosed,
    SessionMoved,
    SessionQuarantined,
)
from .ids import apns_ids
from .lane import FIRST_BATCH, Lane
from .outcome import Decision, Doubt, Tried, decide
from .queue import (
    LEASE_SECONDS,
    NORMAL,
    Batch,
    Due,
    Ending,
    Listener,
    Queue,
    Shard,
    session_id,
)
from .retry import GiveUp, SendAgain, next_attempt
from .timing import held_until

PAGE: Final = 2000
"""How many deliveries are taken from the database at a time."""

WINDOW: Final = 6000
"""How many pushes may be on their way, or not written down yet, at once."""

RULES_SECONDS: Final = 5.0
BEAT_SECONDS: Final = 4.0
IDLE_SECONDS: Final = 1.0
_FLUSH_AT: Final = 1000
_FLUSH_SECONDS: Final = 0.02
_STORAGE_PAUSE: Final = 0.5
_DISABLED_SECONDS: Final = 15 * 60
_UNREADABLE_TIMES: Final = 24 * 4
_PROBING_SECONDS: Final = 3.0
_WATCH_SECONDS: Final = 0.25
_DOUBT_SECONDS: Final = 1.0
_SOON_SECONDS: Final = 2.0
_CAMPAIGNS: Final = 500

_log = logging.getLogger(__name__)

T = TypeVar("T")
Item = Due | Listener


class FindGateway(Protocol):
    """Gives the way for an app to an environment, or raises the error that says why there is none.

    ``key`` is the credential of a sender whose app is not in the registry, or None.
    """

    def __call__(self, app: App, key: Any, name: GatewayName, environment: str, /) -> Gateway:
        """Return the gateway; the same one each time, so that connections are shared."""


LoadCampaign = Callable[[int, Callable[[App], Lane]], Campaign | None]
"""Gives the campaign of a notification's row, or None when it is gone. Called in a thread."""


@dataclass(slots=True)
class _Page:
    """A part of a shard that was handed out: where it ends, and how much is not reported yet."""

    end: int
    left: int


@dataclass(slots=True)
class _Broadcast:
    """A shard in hand: its pages that are out, oldest first; it rests until ``ready_at``."""

    shard: Shard
    pages: deque[_Page] = field(default_factory=deque)
    is_read: bool = False
    ready_at: float = 0.0
    lane: Lane | None = None

    def is_ready(self, now: float) -> bool:
        """Whether its next page may be handed out; the first answers are waited for."""
        is_waiting = self.lane is not None and _awaits_proof(self.lane)
        return self.ready_at <= now and not is_waiting


class _Parcel:
    """Pushes of one campaign to one environment, handed to a gateway together."""

    __slots__ = ("campaign", "environment", "is_plain", "items", "page", "sent", "started", "tried")

    def __init__(
        self,
        campaign: Campaign,
        environment: str,
        items: Mapping[int, Item],
        started: float,
        *,
        page: _Page | None = None,
        tried: Mapping[int, Tried] | None = None,
    ) -> None:
        self.campaign = campaign
        self.environment = environment
        self.items = items
        self.started = started
        self.page = page
        self.tried = tried or {}
        self.is_plain = page is not None and not self.tried
        self.sent: list[int] = []


@dataclass(slots=True)
class _Doubts:
    """Refused tokens of one app that nobody can judge yet, and since when."""

    since: float
    waiting: list[tuple[_Parcel, Item, Decision, Tried | None]] = field(default_factory=list)


class Worker:
    """Sends what is due, for every app, until it is stopped.

    ``find_gateway`` and ``load`` come from the system. Run it with :meth:`start` and :meth:`stop`
    in one event loop. Raises nothing while it runs: what goes wrong is written, told to the hooks,
    or tried again.
    """

    def __init__(
        self,
        queue: Queue,
        *,
        find_gateway: FindGateway,
        load: LoadCampaign,
        hooks: Hooks | None = None,
        now: Callable[[], float] = time,
        rng: Random | None = None,
        window: int = WINDOW,
    ) -> None:
        self.hooks = hooks or Hooks()
        self.queue = queue
        self.id = 0
        self.in_flight = 0
        self._find_gateway = find_gateway
        self._load = load
        self._now = now
        self._rng = rng or Random()  # noqa: S311 - jitter
        self._window = window
        self._lanes: dict[str, Lane] = {}
        self._campaigns: dict[int, Campaign] = {}
        self._broadcasts: list[_Broadcast] = []
        self._batch = Batch()
        self._events: list[Event] = []
        self._sent_parcels: list[_Parcel] = []
        self._doubtful: dict[str, _Doubts] = {}
        self._ways: dict[tuple[str, str, str, str | None], tuple[Gateway, float]] = {}
        self._astray: list[tuple[_Parcel, Item, Tried, str]] = []
        self._unwritten = 0
        self._written = asyncio.Event()
        self._reported = asyncio.Event()
        self._wake = asyncio.Event()
        self._sends: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._is_stopping = False
        self._beaten_at = 0.0

    # Life

    async def start(self) -> None:
        """Enter the worker and begin to take work."""
        self._beaten_at = self._now()
        self.id = await asyncio.to_thread(self.queue.enlist)
        await asyncio.to_thread(self.queue.reclaim)
        self._loops = [
            asyncio.create_task(self._take_work()),
            asyncio.create_task(self._write_down()),
            asyncio.create_task(self._beat()),
        ]

    async def stop(self) -> None:
        """Take no more work, finish what is on its way, give back the rest."""
        self._is_stopping = True
        self._wake.set()
        taking, *others = self._loops
        await taking
        while self._sends or self.in_flight:
            self._reported.set()
            await self._next_written(_FLUSH_SECONDS)
        for loop in others:
            loop.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        with contextlib.suppress(StorageError):
            await asyncio.to_thread(self.queue.retire, self.id)

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
        while self._has_in_hand(row) or not await self.read(self.queue.is_settled, row):
            await self._next_written(_WATCH_SECONDS)

    def _has_in_hand(self, row: int) -> bool:
        return any(one.shard.notification == row for one in self._broadcasts)

    async def idle(self) -> None:
        """Return once nothing is due and nothing is on its way: the rest waits for its time."""
        while self.in_flight or self._broadcasts or await self._is_due_soon():
            await self._next_written(_WATCH_SECONDS)

    async def _is_due_soon(self) -> bool:
        if any(await self.read(self.queue.look)):
            return True
        # What a rate limit holds falls due again within a moment.
        _, due_at = await self.read(self.queue.depth)
        return due_at is not None and due_at <= self._now() + _SOON_SECONDS

    def hand_over(self, campaign: Campaign, items: Sequence[Due]) -> None:
        """Send deliveries that were stored under this worker's name, without reading them back."""
        self._keep(campaign)
        self.in_flight += len(items)
        self._spawn(self._send_items(campaign, items))

    # Taking work

    async def _take_work(self) -> None:
        while not self._is_stopping:
            await self._room()
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
        going = [one for one in self._broadcasts if not one.is_read]
        ready = [one for one in going if one.is_ready(now)]
        resting = {one.shard.notification for one in going if not one.is_ready(now)}
        # With a shard in hand, only what is more urgent is taken as well.
        mine = max((one.shard.urgency for one in ready), default=0)
        level, is_shard_due = await asyncio.to_thread(
            partial(self.queue.look, above=mine, apart_from=resting)
        )
        took = level >= mine and bool(level) and await self._take_due(level)
        if is_shard_due:
            shard = await asyncio.to_thread(self.queue.claim_shard, self.id, mine, resting)
            if shard is not None:
                ready.append(_Broadcast(shard))
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

    async def _room(self) -> None:
        while self.in_flight + PAGE > self._window and not self._is_stopping:
            await self._next_written(IDLE_SECONDS)

    async def _next_written(self, seconds: float) -> None:
        self._written.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._written.wait(), seconds)

    async def _take_due(self, level: int) -> bool:
        due = await asyncio.to_thread(self.queue.claim_due, self.id, level, PAGE)
        by_notification: dict[int, list[Due]] = {}
        for one in due:
            by_notification.setdefault(one.notification, []).append(one)
        for row, items in by_notification.items():
            try:
                campaign = await self._campaign(row)
            except Exception as error:  # noqa: BLE001 - the others have no part in it
                _log.exception("A stored notification cannot be read; its deliveries wait")
                self._postpone(items, error)
                continue
            if campaign is not None:
                self.in_flight += len(items)
                self._spawn(self._send_items(campaign, items))
        return bool(due)

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
                due_at=None if is_over else int((at + _DISABLED_SECONDS) * 1000),
                is_repeat=item.is_repeat,
                finished_at=int(at * 1000) if is_over else None,
            )
            self._batch.endings.append(ending)
        self._reported.set()

    async def _take_page(self, broadcast: _Broadcast) -> None:
        try:
            await self._hand_out_page(broadcast)
        except Exception:
            broadcast.ready_at = self._now() + _DISABLED_SECONDS
            raise

    async def _hand_out_page(self, broadcast: _Broadcast) -> None:
        shard, now = broadcast.shard, self._now()
        campaign = await self._campaign(shard.notification)
        if campaign is None or campaign.is_cancelled:
            broadcast.is_read = True
            self._reported.set()
            return
        broadcast.lane = lane = campaign.lane
        await self._read_rules(lane)
        if _awaits_proof(lane):
            return
        if not lane.may_send(now):
            self._let_rest(broadcast, lane, now)
            return
        most, wait = lane.grant(PAGE if lane.is_proven else FIRST_BATCH, now)
        if not most:
            lane.forgo_probe()
            broadcast.ready_at = now + wait
            return
        read = partial(self.queue.page, is_development=campaign.is_development)
        listeners = await self.read(read, shard, most)
        broadcast.is_read = len(listeners) < most
        shard.position = listeners[-1].number if listeners else shard.last
        page = _Page(shard.position, len(listeners))
        broadcast.pages.append(page)
        self._reported.set()
        if listeners:
            self.in_flight += len(listeners)
            lane.out += len(listeners)
            self._spawn(self._send_page(campaign, listeners, page))
        else:
            lane.forgo_probe()

    def _let_rest(self, broadcast: _Broadcast, lane: Lane, now: float) -> None:
        """Give a stopped app's shard back until it is tried again, once its pages have ended."""
        if broadcast.pages:
            broadcast.ready_at = now + _WATCH_SECONDS
            return
        self._broadcasts.remove(broadcast)
        self._batch.resting_shards[broadcast.shard.id] = int(_resume_at(lane, now) * 1000)
        self._reported.set()

    async def _proof(self, lane: Lane) -> None:
        while _awaits_proof(lane):
            await self._next_written(_FLUSH_SECONDS)

    async def _campaign(self, row: int) -> Campaign | None:
        known = self._campaigns.get(row)
        if known is not None:
            known.is_cancelled = await self.read(self.queue.is_cancelled, row)
            return known
        campaign = await self.read(self._load, row, self.lane_of)
        if campaign is not None:
            self._keep(campaign)
        return campaign

    def _keep(self, campaign: Campaign) -> None:
        if len(self._campaigns) >= _CAMPAIGNS:
            self._campaigns.pop(next(iter(self._campaigns)))
        self._campaigns[campaign.row] = campaign

    async def _read_rules(self, lane: Lane) -> None:
        if self._now() - lane.read_at > RULES_SECONDS:
            rules = await self.read(self.queue.app_rules, lane.app.id)
            if not lane.is_probing:
                lane.take_rules(rules, self._now())

    async def read(self, what: Callable[..., T], *arguments: Any) -> T:
        """Call something of the stores in a thread, again and again until the database takes it."""
        while True:
            try:
                return await asyncio.to_thread(what, *arguments)
            except StorageError as error:
                _log.warning("The database cannot be used now: %s", error)
                await asyncio.sleep(_STORAGE_PAUSE)

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

    async def _send_items(self, campaign: Campaign, items: Sequence[Due]) -> None:
        """Send single deliveries that may go now; the others get a row that says until when."""
        lane = campaign.lane
        lane.out += len(items)
        await self._read_rules(lane)
        ready = await self._admit(campaign, items)
        while ready:
            now = self._now()
            if not lane.may_send(now):
                self._hold_all(campaign, ready, "CircuitOpen", _resume_at(lane, now))
                return
            most, wait = lane.grant(len(ready) if lane.is_proven else FIRST_BATCH, now)
            if not most:
                lane.forgo_probe()
                self._hold_in_turn(campaign, ready, now + wait)
                return
            part, ready = ready[:most], ready[most:]
            self._spawn(self._send(campaign, part, None))
            await self._proof(lane)

    async def _send_page(
        self, campaign: Campaign, listeners: Sequence[Listener], page: _Page
    ) -> None:
        ready = await self._admit(campaign, listeners, page)
        if ready:
            await self._send(campaign, ready, page)
        else:
            campaign.lane.forgo_probe()

    async def _send(self, campaign: Campaign, items: Sequence[Item], page: _Page | None) -> None:
        ways = {(item.gateway, item.environment) for item in items}
        by_way = {
            way: {
                item.number: item
                for item in items
                if len(ways) == 1 or (item.gateway, item.environment) == way
            }
            for way in ways
        }
        loop = asyncio.get_running_loop()
        await asyncio.gather(
            *(
                self._send_parcel(
                    name, _Parcel(campaign, environment, part, loop.time(), page=page)
                )
                for (name, environment), part in by_way.items()
            )
        )

    async def _send_parcel(self, name: GatewayName, parcel: _Parcel) -> None:
        campaign = parcel.campaign
        message, environment, name_of = campaign.message, parcel.environment, apns_ids(campaign.id)
        pushes = [
            Push(
                number,
                item.token,
                environment,
                name_of(number),
                message,
                name_of(number) if item.is_repeat else None,
            )
            for number, item in parcel.items.items()
        ]
        try:
            gateway = await self._gateway(campaign, name, parcel.environment)
            await gateway.send(pushes, partial(self._report, parcel))
        except HandbellError as error:
            # A gateway raises before anything is sent, or not at all.
            self._note_no_way(parcel, error)

    async def _gateway(self, campaign: Campaign, name: GatewayName, environment: str) -> Gateway:
        app, key = campaign.lane.app, campaign.key
        place = (app.id, name, environment, None if key is None else key.fingerprint)
        gateway, until = self._ways.get(place, (None, 0.0))
        if gateway is None or self._now() > until:
            gateway = await asyncio.to_thread(self._find_gateway, app, key, name, environment)
            self._ways[place] = (gateway, self._now() + RULES_SECONDS)
        return gateway

    def _note_no_way(self, parcel: _Parcel, error: HandbellError) -> None:
        reason = "TwinNotRunning" if isinstance(error, TwinError) else "NoCredential"
        for number, item in parcel.items.items():
            tried = parcel.tried.get(number)
            if tried is not None:
                # The other environment cannot be asked: the first answer stands, and proves nothing
                decision = Decision("failed", reason=tried.reason, detail=error.what)
            else:
                decision = Decision("held", reason=reason, detail=error.what)
            self._settle(parcel, item, decision)

    # What may go now

    async def _admit(
        self, campaign: Campaign, items: Sequence[Item], page: _Page | None = None
    ) -> list[Any]:
        """Return what may go now; the others get a row that says why not, or until when."""
        try:
            return await self._sort(campaign, items, page)
        except Exception:  # noqa: BLE001 - nothing may be left without an end
            _log.exception("The rules of %s cannot be followed", campaign.lane.app.id)
            until = self._now() + _DISABLED_SECONDS
            self._hold_all(campaign, items, "Interrupted", until, page)
            return []

    async def _sort(
        self, campaign: Campaign, items: Sequence[Item], page: _Page | None
    ) -> list[Any]:
        lane, rules, now = campaign.lane, campaign.lane.rules, self._now()
        if not rules.is_enabled:
            self._hold_all(campaign, items, "AppDisabled", now + _DISABLED_SECONDS, page)
            return []
        if campaign.is_cancelled or campaign.is_expired(now):
            state = "cancelled" if campaign.is_cancelled else "expired"
            for item in items:
                self._end(campaign, item, page, state, state.capitalize())
            return []
        if campaign.send_at is None and (
            not campaign.is_loud or (rules.quiet is None and rules.cap is None)
        ):
            return list(items)
        counts = await self._counts(campaign, items)
        ready = []
        for item, wait in [(item, self._wait_of(campaign, item, now)) for item in items]:
            if wait is not None:
                self._hold(campaign, item, page, *wait)
            elif self._is_capped(lane, item, counts):
                self._end(campaign, item, page, "cancelled", "Capped")
            else:
                ready.append(item)
        return ready

    async def _counts(self, campaign: Campaign, items: Sequence[Item]) -> dict[int, int]:
        cap = campaign.lane.rules.cap
        if cap is None or not campaign.is_loud:
            return {}
        known = {item.user_id for item in items if item.user_id is not None}
        since = cap.since(self._now())
        return await self.read(self.queue.counts_by_user, known, since, campaign.row)

    def _wait_of(self, campaign: Campaign, item: Item, now: float) -> tuple[str, float] | None:
        starts_at = campaign.starts_at(item.time_zone)
        if starts_at > now:
            return "Scheduled", starts_at
        quiet = campaign.lane.rules.quiet
        if quiet is None or not campaign.is_loud:
            return None
        until = held_until(quiet, item.time_zone, now, campaign.lane.rules.time_zone)
        return None if until is None else ("QuietHours", until)

    @staticmethod
    def _is_capped(lane: Lane, item: Item, counts: dict[int, int]) -> bool:
        cap = lane.rules.cap
        if cap is None or item.user_id is None or item.user_id not in counts:
            return False
        return not cap.allows(counts[item.user_id])

    # What came back

    def _report(self, parcel: _Parcel, push: Push, outcome: Outcome) -> None:
        if outcome.__class__ is Accepted and parcel.is_plain:
            # The hot path, forty thousand times a second: nothing is called that can be counted.
            if not parcel.sent:
                self._sent_parcels.append(parcel)
                self._reported.set()
            parcel.sent.append(push.key)
            self._unwritten += 1
            return
        item = parcel.items[push.key]
        tried = parcel.tried.get(push.key)
        decision = decide(outcome, parcel.environment, tried)
        lane, now = parcel.campaign.lane, self._now()
        if decision.state == "sent":
            self._note_accepted(lane, 1)
        elif lane.note(decision, now, self._rng):
            self._tell_stopped(lane)
        elif decision.environment is None and lane.note_unclear(now, self._rng):
            self._spawn(asyncio.to_thread(self.queue.write_stop, lane.app.id, lane.stop))
        if decision.environment is not None:
            aside = Tried(parcel.environment, decision.reason or "")
            self._astray.append((parcel, item, aside, decision.environment))
            self._reported.set()
        elif decision.doubt is Doubt.TOKEN and not lane.is_trusted:
            self._doubtful.setdefault(lane.app.id, _Doubts(now)).waiting.append(
                (parcel, item, decision, tried)
            )
            self._reported.set()
        else:
            self._settle(parcel, item, decision, tried)

    def _note_accepted(self, lane: Lane, count: int) -> None:
        if lane.note_accepted(count):
            self._events.append(CircuitClosed(app=lane.app.id, at=self._now()))
            self._spawn(asyncio.to_thread(self.queue.write_stop, lane.app.id, None))

    def _tell_stopped(self, lane: Lane) -> None:
        stop = lane.stop
        if stop is None:
            return
        self._spawn(asyncio.to_thread(self.queue.write_stop, lane.app.id, stop))
        self._events.append(
            CircuitOpened(
                app=lane.app.id,
                at=self._now(),
                reason=stop.reason,
                detail=stop.detail,
                probe_at=stop.probe_at,
            )
        )

    def _settle(
        self, parcel: _Parcel, item: Item, decision: Decision, tried: Tried | None = None
    ) -> None:
        """Turn a decision into what the rows are to say."""
        campaign, lane, now = parcel.campaign, parcel.campaign.lane, self._now()
        attempts = item.attempts + 1 + (tried is not None)
        is_repeat = item.is_repeat or decision.is_unknown
        state, due_at, detail = decision.state, None, decision.detail
        if lane.stop is not None and decision.doubt is not Doubt.NOBODY:
            state, due_at = "held", _resume_at(lane, now)
            if decision.doubt is Doubt.TOKEN:
                # A dead token must not be every probe: others go first.
                due_at += _DISABLED_SECONDS
        elif state == "held":
            again = next_attempt(
                decision,
                attempts=attempts,
                created_at=max(campaign.starts_at(item.time_zone), now if attempts == 1 else 0),
                expires_at=campaign.expires_at,
                now=now,
                rng=self._rng,
            )
            match again:
                case SendAgain():
                    due_at, is_repeat = again.at, is_repeat or again.needs_collapse_id
                case GiveUp():
                    state, detail = again.state, again.detail
        self._change_session(campaign, item, decision)
        ending = _ending(
            campaign,
            item,
            state,
            parcel.environment,
            now,
            attempts=attempts,
            reason=decision.reason,
            detail=detail or None,
            status=decision.status,
            unique_id=decision.unique_id,
            due_at=due_at,
            is_repeat=is_repeat,
        )
        took = asyncio.get_running_loop().time() - parcel.started
        self._add(campaign, item, parcel.page, ending, took)

    def _change_session(self, campaign: Campaign, item: Item, decision: Decision) -> None:
        session, batch = session_id(item.number), self._batch
        if session is None:
            return
        app, at = campaign.lane.app.id, self._now()
        mail, reason = item.mail, decision.reason or ""
        if decision.state == "sent":
            batch.accepted_sessions.append(session)
        if decision.moves_to is not None:
            batch.moved[session] = decision.moves_to
            self._events.append(
                SessionMoved(app=app, at=at, session_id=session, environment=decision.moves_to)
            )
        if decision.closes:
            batch.gone[session] = (decision.gone_since, reason)
            self._events.append(
                SessionClosed(app=app, at=at, session_id=session, mail=mail, reason=reason)
            )
        if decision.quarantines and campaign.lane.stop is None:
            batch.refused[session] = reason
            self._events.append(
                SessionQuarantined(app=app, at=at, session_id=session, mail=mail, reason=reason)
            )

    def _hold_all(
        self,
        campaign: Campaign,
        items: Sequence[Item],
        reason: str,
        until: float,
        page: _Page | None = None,
    ) -> None:
        for item in items:
            self._hold(campaign, item, page, reason, until)

    def _hold(
        self, campaign: Campaign, item: Item, page: _Page | None, reason: str, until: float
    ) -> None:
        ending = _ending(
            campaign, item, "held", item.environment, self._now(), reason=reason, due_at=until
        )
        self._add(campaign, item, page, ending)

    def _hold_in_turn(self, campaign: Campaign, items: Sequence[Item], start: float) -> None:
        """Hold each until the app's rate has come to it, so that few are looked at in vain."""
        rate = campaign.lane.rules.rate
        step = 0.0 if rate is None else 1 / rate.per_second
        for place, item in enumerate(items):
            self._hold(campaign, item, None, "RateLimit", start + place * step)

    def _end(
        self, campaign: Campaign, item: Item, page: _Page | None, state: str, reason: str
    ) -> None:
        ending = _ending(campaign, item, state, item.environment, self._now(), reason=reason)
        self._add(campaign, item, page, ending)

    def _add(
        self,
        campaign: Campaign,
        item: Item,
        page: _Page | None,
        ending: Ending,
        took: float = 0.0,
    ) -> None:
        self._batch.endings.append(ending)
        if self.hooks:
            self._events.append(_event(campaign, item, ending, self._now(), took))
        self._count_written(campaign.lane, page)

    def _count_written(self, lane: Lane, page: _Page | None) -> None:
        lane.out -= 1
        if page is not None:
            page.left -= 1
        self._unwritten += 1
        self._reported.set()

    # Writing down

    async def _write_down(self) -> None:
        while True:
            await self._reported.wait()
            if self._unwritten < min(_FLUSH_AT, self.in_flight):
                await asyncio.sleep(_FLUSH_SECONDS)
            self._reported.clear()
            self._judge_doubtful()
            self._send_astray()
            await self._flush()

    async def _flush(self) -> None:
        number, events = self._unwritten, self._events
        self._unwritten, self._events = 0, []
        batch = self._cut(events)
        if batch:
            await self.read(self.queue.record, batch)
        self.in_flight -= number
        self._written.set()
        if self._broadcasts:
            self._wake.set()
        for event in events:
            self.hooks.emit(event)

    def _cut(self, events: list[Event]) -> Batch:
        """Return what is to be written now, and begin a new batch."""
        batch, self._batch = self._batch, Batch()
        parcels, self._sent_parcels = self._sent_parcels, []
        for parcel in parcels:
            sent, parcel.sent = parcel.sent, []
            campaign = parcel.campaign
            campaign.lane.out -= len(sent)
            if parcel.page is not None:
                parcel.page.left -= len(sent)
            key = (campaign.row, parcel.environment, campaign.urgency)
            batch.sent.setdefault(key, []).extend(sent)
            self._note_accepted(campaign.lane, len(sent))
            if self.hooks:
                events.append(_sent_event(parcel, len(sent), self._now()))
        self._finish_pages(batch)
        return batch

    def _finish_pages(self, batch: Batch) -> None:
        """Note how far each shard is written: all of its oldest pages that have ended."""
        for broadcast in list(self._broadcasts):
            shard, pages = broadcast.shard, broadcast.pages
            while pages and not pages[0].left:
                batch.positions[shard.id] = pages.popleft().end
            if broadcast.is_read and not pages:
                batch.positions.pop(shard.id, None)
                batch.finished_shards.append(shard.id)
                self._broadcasts.remove(broadcast)

    def _judge_doubtful(self) -> None:
        """Settle refused tokens once the answers speak for the configuration, or against it."""
        for app_id, doubts in list(self._doubtful.items()):
            lane = doubts.waiting[0][0].campaign.lane
            is_idle = lane.out <= len(doubts.waiting)
            is_old = self._now() - doubts.since > _DOUBT_SECONDS
            if lane.stop is not None or lane.is_trusted or is_idle or is_old:
                del self._doubtful[app_id]
                for parcel, item, decision, tried in doubts.waiting:
                    self._settle(parcel, item, _judged(decision, lane), tried)

    def _send_astray(self) -> None:
        astray, self._astray = self._astray, []
        groups: dict[tuple[_Parcel, str], list[tuple[Item, Tried]]] = {}
        for parcel, item, tried, environment in astray:
            groups.setdefault((parcel, environment), []).append((item, tried))
        loop = asyncio.get_running_loop()
        for (parcel, environment), members in groups.items():
            again = _Parcel(
                parcel.campaign,
                environment,
                {item.number: item for item, _ in members},
                loop.time(),
                page=parcel.page,
                tried={item.number: tried for item, tried in members},
            )
            self._spawn(self._send_parcel("apns", again))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            try:
                await self._keep_alive()
                await asyncio.to_thread(self.queue.reclaim)
            except StorageError as error:
                _log.warning("The worker cannot say that it lives: %s", error)

    async def _keep_alive(self) -> None:
        """Say that the worker lives; of what was given to others no more is handed out."""
        at = self._now()
        if not await asyncio.to_thread(self.queue.beat, self.id):
            self._broadcasts.clear()
            self.id = await asyncio.to_thread(self.queue.enlist)
        self._beaten_at = at


def _awaits_proof(lane: Lane) -> bool:
    """Whether the first answers are still out: a wrong key is to cost few refusals."""
    return bool(lane.out) and not (lane.is_proven or lane.stop)


def _resume_at(lane: Lane, now: float) -> float:
    """Return when a lane that may not send now is to be looked at again."""
    soon = now + _PROBING_SECONDS
    return soon if lane.stop is None else max(lane.stop.probe_at, soon)


def _judged(decision: Decision, lane: Lane) -> Decision:
    if decision.reason == "DeviceTokenNotForTopic" and not lane.accepted:
        # A token of another app looks like a wrong bundle id, until something arrives.
        return replace(decision, quarantines=False)
    return decision


def _ending(
    campaign: Campaign,
    item: Item,
    state: str,
    environment: str,
    now: float,
    *,
    due_at: float | None = None,
    attempts: int | None = None,
    **what: Any,
) -> Ending:
    at = int(now * 1000)
    return Ending(
        notification_id=campaign.row,
        number=item.number,
        gateway=item.gateway,
        environment=environment,
        urgency=campaign.urgency,
        state=state,
        attempts=item.attempts if attempts is None else attempts,
        due_at=None if due_at is None else int(due_at * 1000),
        sent_at=at if state == "sent" else None,
        finished_at=None if state == "held" else at,
        **what,
    )


def _sent_event(parcel: _Parcel, number: int, now: float) -> Event:
    took = asyncio.get_running_loop().time() - parcel.started
    return PushesSent(
        app=parcel.campaign.lane.app.id,
        at=now,
        notification_id=parcel.campaign.id,
        environment=parcel.environment,
        seconds=(took,) * number,
    )


def _event(campaign: Campaign, item: Item, ending: Ending, now: float, took: float) -> Event:
    app, notification_id, number = campaign.lane.app.id, campaign.id, item.number
    reason, attempts = ending.reason or "", ending.attempts
    if ending.due_at is not None:
        return DeliveryHeld(
            app=app,
            at=now,
            notification_id=notification_id,
            number=number,
            reason=reason,
            until=ending.due_at / 1000,
            attempts=attempts,
            environment=ending.environment,
        )
    if ending.state == "sent":
        return PushesSent(
            app=app,
            at=now,
            notification_id=notification_id,
            environment=ending.environment,
            seconds=(took,),
        )
    return DeliveryFailed(
        app=app,
        at=now,
        notification_id=notification_id,
        number=number,
        mail=item.mail,
        state=ending.state,
        reason=reason,
        status=ending.status,
        attempts=attempts,
        environment=ending.environment,
    )
