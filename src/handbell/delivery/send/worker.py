"""The worker: takes due work, sends it, and records the outcomes.

One loop takes work and hands it to the gateways; reports arrive thousands a
second; another loop writes them in batches. Memory is bounded by the number of pushes handed
out and not yet recorded, never by the size of a broadcast. A push that is slow, dead or
refused holds one place of that window and nothing else.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from random import Random
from time import monotonic, time
from typing import Any, Final

from handbell._failures import log_failure
from handbell._thread_pool import ThreadPool
from handbell.delivery.events import CircuitClosed, Hooks, ServiceUp
from handbell.delivery.ledger.store import Ledger
from handbell.delivery.policy.circuit import CircuitScope, StoredCircuit
from handbell.delivery.policy.ramp_up import RampUps
from handbell.delivery.policy.rules_store import RulesStore
from handbell.delivery.queue.cap_claims import CapClaims
from handbell.delivery.queue.clock_jumps import ClockJumps
from handbell.delivery.queue.due import Due
from handbell.delivery.queue.heartbeat import Heartbeat
from handbell.delivery.queue.poller import Poller
from handbell.delivery.queue.revocations import RevocationListener, Revocations
from handbell.delivery.queue.signal_listener import SignalListener
from handbell.delivery.queue.sql_queue import Queue
from handbell.delivery.queue.work_queue import Wanted, WorkQueue
from handbell.delivery.queue.workers import Workers
from handbell.delivery.record.flusher import Flusher
from handbell.delivery.record.outcome_batch import OutcomeWriter
from handbell.delivery.record.settle import Settlement
from handbell.delivery.work.app_states import AppStates
from handbell.delivery.work.composed import Composed
from handbell.delivery.work.gateway_finder import DropGateway, FindGateway
from handbell.delivery.work.in_flight import InFlight, Item
from handbell.delivery.work.rate_shares import SHARE_SECONDS, RateShares
from handbell.delivery.work.release_log import ReleaseLog, SessionSnapshot
from handbell.delivery.work.routes import Routes
from handbell.errors import QueueUnavailableError, StoppedError, StorageError
from handbell.storage.shared_buckets import SharedBuckets
from handbell.storage.signals import Kind
from handbell.storage.storage_retry import StorageRetry, stopped

from .admission import Admission
from .broadcaster import Broadcaster
from .cap_gate import CapGate
from .composed_cache import ComposedCache, LoadComposed
from .dispatcher import Dispatcher
from .gateway_cache import GatewayCache
from .graceful_shutdown import ANSWER_SECONDS, GracefulShutdown
from .probes import Probes
from .sender import PushSender
from .unbegun import Unbegun

IDLE_SECONDS: Final = 1.0
THREADS: Final = 8
"""The maximum number of threads in which a worker uses the database."""

_WATCH_SECONDS: Final = 0.25
_SIGNALLED_WATCH_SECONDS: Final = 2.0
_SOON_SECONDS: Final = 2.0

_log = logging.getLogger(__name__)


class Worker:
    """Sends what is due, for every app, until it is stopped.

    ``find_gateway``, ``drop_gateway`` and ``load`` come from the system. Run it with :meth:`start`
    and :meth:`stop` in one event loop, once. ``on_beat`` is called at each heartbeat, ``on_place``
    with the worker's place among all. ``in_flight`` is what is on its way, ``app_states`` say how
    much that may be. ``answer_seconds`` is how long a stop waits for push services,
    ``hand_back_seconds`` after how long it leaves to others what is not on the wire; None is for
    who may be alone, and sends all of it.
    Raises nothing: failures are recorded, emitted as events, or retried.
    """

    def __init__(
        self,
        queue: WorkQueue,
        *,
        backlog: Queue,
        ledger: Ledger,
        recorder: OutcomeWriter,
        known_workers: Workers,
        revocations: Revocations,
        jumps: ClockJumps,
        on_beat: Callable[[int], None] = lambda _worker: None,
        on_place: Callable[[int, int], None] | None = None,
        rules_store: RulesStore,
        buckets: SharedBuckets,
        cap_claims: CapClaims,
        signals: SignalListener,
        find_gateway: FindGateway,
        drop_gateway: DropGateway | None = None,
        load: LoadComposed,
        hooks: Hooks | None = None,
        answer_seconds: float = ANSWER_SECONDS,
        hand_back_seconds: float | None = None,
        now: Callable[[], float] = time,
        clock: Callable[[], float] = monotonic,
        rng: Random | None = None,
    ) -> None:
        rng = rng or Random()  # noqa: S311 - jitter
        # One that is empty is false, and may be added to later.
        self.hooks = Hooks() if hooks is None else hooks
        self.threads = threads = ThreadPool(THREADS, "handbell-worker")
        self.storage_retry = storage_retry = StorageRetry(threads)
        self.release_log = ReleaseLog()
        self.in_flight = InFlight()
        self._routes = Routes(now)
        self._ramps = RampUps(clock)
        self._known_workers = known_workers
        self._on_place = on_place
        self.app_states = AppStates(
            rules_store,
            self.in_flight,
            self._routes,
            rates=RateShares(buckets, call=storage_retry.call, clock=clock),
            storage_retry=storage_retry,
            on_closed=self._note_closed,
            clock=clock,
        )
        self._queue = queue
        self._backlog = backlog
        self.rules_store = rules_store
        self._now = now
        self._clock = clock
        self._heartbeat = Heartbeat(
            queue,
            known_workers,
            threads=threads,
            jumps=jumps,
            on_loss=self._lose,
            on_jump=self.app_states.move,
            on_beat=on_beat,
            on_place=self._note_place,
        )
        self._signals = signals
        self._poller = Poller(
            self._unsettled, seconds=signals.pace(_WATCH_SECONDS, _SIGNALLED_WATCH_SECONDS)
        )
        self._composed_cache = ComposedCache(
            ledger, load, app_state_of=self.app_states.of, storage_retry=storage_retry
        )
        self._book = Settlement(
            self.in_flight,
            self._routes,
            hooks=self.hooks,
            now=now,
            rng=rng,
            write=self._write_circuit,
        )
        self._unbegun = Unbegun(self._book, ledger, storage_retry=storage_retry, now=now, rng=rng)
        self._flusher = Flusher(
            self._book,
            recorder,
            queue=queue,
            worker=lambda: self.id,
            in_flight=self.in_flight,
            hooks=self.hooks,
            storage_retry=storage_retry,
            poller=self._poller,
            now=now,
        )
        self._gateways = gateways = GatewayCache(
            find_gateway, drop_gateway, self._routes, threads=threads, clock=clock
        )
        self._sender = PushSender(
            self._book, self.release_log, heartbeat=self._heartbeat, gateways=gateways
        )
        self._revocation_listener = RevocationListener(
            revocations,
            storage_retry=storage_retry,
            worker=lambda: self.id,
            release=self._sender.release,
            is_busy=lambda: len(self.in_flight) > 0,
            signals=signals,
        )
        self._cap_gate = CapGate(cap_claims, call=storage_retry.call, worker=lambda: self.id)
        probes = Probes(
            rules_store,
            self._routes,
            worker=lambda: self.id,
            call=storage_retry.call,
            write_circuits=self._write_circuits,
            on_closed=self._note_closed,
            begin=self._begin_aside,
            now=now,
        )
        self._dispatcher = Dispatcher(
            self._book,
            Admission(self._book, self._cap_gate, now=now),
            self._sender,
            app_states=self.app_states,
            flusher=self._flusher,
            in_flight=self.in_flight,
            ramps=self._ramps,
            probes=probes,
            gateways=gateways,
            now=now,
        )
        self._broadcaster = Broadcaster(
            backlog,
            composed_cache=self._composed_cache,
            rules_store=rules_store,
            app_states=self.app_states,
            in_flight=self.in_flight,
            release_log=self.release_log,
            ramps=self._ramps,
            gateways=gateways,
            probes=probes,
            dispatcher=self._dispatcher,
            book=self._book,
            storage_retry=storage_retry,
            worker=lambda: self.id,
            now=now,
            clock=clock,
            rng=rng,
        )
        self._shutdown = GracefulShutdown(
            self._book,
            dispatcher=self._dispatcher,
            in_flight=self.in_flight,
            storage_retry=storage_retry,
            flusher=self._flusher,
        )
        self._wake = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._full: list[str] = []
        self._circuits_turn = asyncio.Lock()
        self._seek_at = 0.0
        self._probes_sought: dict[CircuitScope, tuple[float, float]] = {}
        self.answer_seconds = answer_seconds
        self.hand_back_seconds = hand_back_seconds
        self._is_stopping = False
        self._is_taking = False
        self._turn = 0
        queue.on_work(self.wake)
        signals.on(Kind.WORK, lambda _: self.wake())
        signals.on(Kind.ENDED, self._poller.tell)
        signals.on(Kind.RULES, lambda _: self._forget_rules())

    def _forget_rules(self) -> None:
        self.app_states.forget_rules()
        self._gateways.forget()
        self.wake()

    @property
    def id(self) -> int:
        """The id under which it takes work; 0 before its start."""
        return self._heartbeat.worker

    # Life

    def _note_place(self, position: int, workers: int) -> None:
        self._ramps.divide(workers)
        if self._on_place is not None:
            self._on_place(position, workers)

    async def start(self) -> None:
        """Enter the worker and begin to take work. Raises StoppedError if it was stopped."""
        if self._is_stopping:
            raise stopped()
        self._signals.listen()
        await self._heartbeat.begin()
        # At once, unlike other shares: a fleet that starts anew would rise too fast together.
        _, workers = await self.storage_retry.call(self._known_workers.place_of, self.id)
        self._ramps.divide(workers)
        self._routes.adopt(await self.threads.run(self.rules_store.outages), self._routes.known())
        self._loops = [
            asyncio.create_task(self._take_work()),
            asyncio.create_task(self._write_down()),
            asyncio.create_task(self._heartbeat.run()),
            asyncio.create_task(self._revocation_listener.run()),
        ]

    async def stop(self, *, within: float | None = None) -> None:
        """Take no more work, finish pushes in flight, release the rest. Raises nothing.

        Answers are waited for as long as ``answer_seconds`` say, or ``within`` where that is less;
        a database that takes nothing for as long as its ``storage_retry``. What could not be
        written by then is sent again by the next start, under the same apns-ids and with a
        collapse id; nothing is lost. Whoever waits for the worker, or comes later, is told by
        StoppedError.
        """
        self._is_stopping = True
        self._wake.set()
        loops, self._loops = self._loops, []
        if not loops:
            self._shutdown.tell()
            return
        taking, writing, *others = loops
        if writing.done():
            # Whoever ends an event loop cancels what runs in it before it asks for a stop.
            writing = asyncio.create_task(self._write_down())
        is_written = await self._shutdown.finish(
            taking,
            [writing, *others],
            answer_seconds=self.answer_seconds,
            within=within,
            hand_back_seconds=self.hand_back_seconds,
            hand_back=self._lose,
        )
        if not is_written:
            return
        try:
            await self._heartbeat.end()
        except Exception as error:  # noqa: BLE001 - others take over what it held
            log_failure(_log, error, "Could not release work on stop")

    async def put(self, notifications: Collection[int]) -> None:
        """Let this worker, or another one, take work that was just stored."""
        if notifications:
            await self._queue.put(notifications)
            self.wake()

    def wake(self) -> None:
        """Look for work now instead of at the next poll."""
        self._wake.set()

    async def settled(self, row: int) -> None:
        """Return when every delivery of a notification has ended or is held.

        Other workers may have a part in it; one shared query finds what they have written.
        Raises StoppedError if the worker stops before that.
        """
        self._signals.listen()
        await self._poller.until_over(row)

    async def _unsettled(self, rows: Collection[int]) -> set[int]:
        # What is in hand need not be asked for.
        in_hand = self._broadcaster.notifications.intersection(rows)
        left = [row for row in rows if row not in in_hand]
        return in_hand | (await self.threads.run(self._backlog.unsettled, left) if left else set())

    async def idle(self) -> None:
        """Return once nothing is due and nothing is in flight: the rest waits for its time.

        Raises StoppedError if the worker stops before that.
        """
        while not await self._is_idle():
            await self._flusher.next_written(_WATCH_SECONDS)

    async def _is_idle(self) -> bool:
        turn = self._turn
        if self._has_work() or await self._is_due_soon():
            return False
        # What was taken while the database was asked is no longer due there.
        return not self._has_work() and turn == self._turn

    def _has_work(self) -> bool:
        broadcaster = self._broadcaster
        return self._is_taking or bool(self.app_states.in_flight or broadcaster.notifications)

    async def _is_due_soon(self) -> bool:
        if any(await self.storage_retry.call(self._backlog.look)):
            return True
        # What a rate limit holds falls due again within a moment.
        _, due_at = await self.storage_retry.call(self._backlog.depth)
        return due_at is not None and due_at <= self._now() + _SOON_SECONDS

    def hand_over(
        self, composed: Sequence[Composed], items: Sequence[Item], snapshot: SessionSnapshot
    ) -> None:
        """Send deliveries that were stored under this worker's name, without reading them back.

        Each is of the notification at its place. ``snapshot`` was begun with ``release_log`` before
        their sessions were read; it stays the caller's to end.
        """
        if self._is_stopping:
            return
        for one in {one.row: one for one in composed}.values():
            self._composed_cache.keep(one)
        self._flusher.note_own(one.row for one in composed)
        self._dispatcher.begin_items(composed, items, snapshot)

    async def release(self, session_ids: Collection[int]) -> None:
        """Send nothing more to sessions that were closed or given to others.

        Deliveries of this process to them end as cancelled. Returns when none is in flight any
        more: once the push service has answered those already handed over. Call it
        after the change was committed; later reads reflect it.
        """
        await self._sender.release(session_ids)

    def _lose(self) -> None:
        """Drop all leased work: the worker counted as dead, and others have it."""
        self._broadcaster.lose()
        self._sender.lose()
        self._book.lose()

    # Taking work

    async def _take_work(self) -> None:
        while not self._is_stopping:
            try:
                took = await self._turn_of_work()
            except StorageError as error:
                what = "Broker" if isinstance(error, QueueUnavailableError) else "Database"
                _log.warning("%s unavailable: %s", what, error)
                await asyncio.sleep(self.storage_retry.pause)
            except Exception as error:  # noqa: BLE001 - one turn must not end the worker
                log_failure(_log, error, "Worker iteration failed; continuing")
                await asyncio.sleep(self.storage_retry.pause)
            else:
                if not took:
                    await self._rest()

    async def _turn_of_work(self) -> bool:
        now = self._clock()
        await self._heartbeat.make_sure()
        await self._seek_probes()
        self._full = full = self.app_states.full()
        going = self._broadcaster.going
        ready = [one for one in going if one.is_ready(now) and not one.is_of(full)]
        resting = {one.shard.notification for one in going if one not in ready}
        # With a shard in hand, only what is more urgent is taken as well.
        mine = max((one.shard.urgency for one in ready), default=0)
        wanted = Wanted(self.app_states.most_due(), mine, resting, full)
        with self.release_log.begin() as snapshot, self._taking():
            taken = await self._queue.take(self.id, wanted)
            ready += self._broadcaster.hold(taken.shards)
            if taken.due:
                await self._begin_due(taken.due, snapshot)
        await self._broadcaster.take(ready)
        return bool(taken.due or ready)

    @contextlib.contextmanager
    def _taking(self) -> Iterator[None]:
        """Note that work may be taken already that nothing else here knows of yet."""
        self._is_taking = True
        try:
            yield
        finally:
            self._is_taking = False
            self._turn += 1

    async def _seek_probes(self) -> None:
        """Make one delivery due for each open circuit that is to be probed."""
        at = asyncio.get_running_loop().time()
        if at < self._seek_at:
            return
        self._seek_at = at + _WATCH_SECONDS
        for circuit in self._routes.due():
            place, stop = circuit.place, circuit.stop
            probe_at, sought_at = self._probes_sought.get(place, (0.0, 0.0))
            if stop is None or (stop.probe_at == probe_at and at - sought_at < _SOON_SECONDS):
                continue
            self._probes_sought[place] = (stop.probe_at, at)
            await self.threads.run(self.rules_store.resume_one, place, self._now())

    async def _rest(self) -> None:
        is_in_turn = self._now() < self._dispatcher.turns_until
        wait = SHARE_SECONDS if is_in_turn else IDLE_SECONDS
        wait = min(wait, self._broadcaster.rest(self._clock()) or wait)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._wake.wait()
        self._wake.clear()

    async def _begin_due(self, due: Sequence[Due], snapshot: SessionSnapshot) -> None:
        due = await self._unbegun.end_lost(due)
        rows = list(dict.fromkeys(one.notification for one in due))
        try:
            found = await self._composed_cache.find_many(rows)
        except StoppedError:
            raise
        except Exception as failure:  # noqa: BLE001 - nothing may be left without an end
            found = dict.fromkeys(rows, failure)
        composed: list[Composed] = []
        items: list[Due] = []
        for item in due:
            its = found.get(item.notification)
            if isinstance(its, Composed):
                composed.append(its)
                items.append(item)
        for row, error in found.items():
            if isinstance(error, Exception):
                # The others have no part in it.
                mine = [one for one in due if one.notification == row]
                await self._unbegun.hold_unread(mine, error)
        self._dispatcher.begin_items(composed, items, snapshot)

    # Writing down

    async def _write_down(self) -> None:
        while True:
            await self._flusher.gathered()
            try:
                await self._book.judge_doubted(self._users_of)
                self._dispatcher.begin_elsewhere()
                await self._flusher.flush(self._broadcaster.note_progress)
                await self._cap_gate.release(self.app_states.all())
            except Exception as error:  # noqa: BLE001 - one batch must not end the writing
                log_failure(_log, error, "Flush of outcomes failed; continuing")
            if self._full or self._broadcaster.notifications:
                self._wake.set()

    async def _users_of(self, session_ids: Collection[int]) -> dict[int, tuple[int, bool]]:
        found: dict[int, tuple[int, bool]] = {}
        if session_ids:
            found = await self.storage_retry.call(self.rules_store.users_of, session_ids)
        return found

    def _write_circuit(self, noted: StoredCircuit) -> None:
        self._routes.unwritten[noted.place] = noted
        self._dispatcher.begin(self._write_circuits())

    async def _write_circuits(self) -> None:
        """Write the changed circuits; of one that changed again only its current state."""
        async with self._circuits_turn:
            if not (changed := list(self._routes.unwritten.items())):
                return
            await self.storage_retry.call(self.rules_store.note, *(noted for _, noted in changed))
            for place, noted in changed:
                if self._routes.unwritten.get(place) is noted:
                    del self._routes.unwritten[place]
                if place.is_service and noted.stop is None:
                    await self._let_go_on(place)

    def _begin_aside(self, work: Coroutine[Any, Any, None]) -> None:
        self._dispatcher.begin(work)

    def _note_closed(self, place: CircuitScope) -> None:
        """Resume what a circuit held that other workers have closed; they have called webhooks."""
        at, environment = self._now(), place.environment
        if not place.is_service:
            closed = CircuitClosed(app=place.app, at=at, environment=environment, topic=place.topic)
            self.hooks.emit(closed)
            return
        for app in self._routes.apps_of(place):
            self.hooks.emit(ServiceUp(app=app, at=at, environment=environment))
        self._dispatcher.begin(self._let_go_on(place))

    async def _let_go_on(self, service: CircuitScope) -> None:
        apps = self._routes.apps_of(service)
        await self.storage_retry.call(
            self.rules_store.resume_after_outage, service, apps, self._now()
        )
        self._wake.set()
