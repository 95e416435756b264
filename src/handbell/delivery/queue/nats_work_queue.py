"""The work queue of many machines: rows in the database, handed out by NATS JetStream.

The rows are the truth. A message names work that is due; whoever gets it takes the rows that are
free still, and acknowledges when their outcomes are written. So a message that comes twice, or too
late, costs a look and nothing else, and one that is lost is written again from the rows.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from handbell._thread_pool import ThreadPool
from handbell.delivery.urgency import LEVELS
from handbell.errors import QueueUnavailableError, StorageError
from handbell.storage.database import Database

from .broker import Broker
from .due import Due
from .session_pages import Shard
from .sql_queue import MOST_SHARDS, Queue
from .unpublished import Unpublished
from .work_messages import Key, Kind, LaterVersionError, WorkMessage
from .work_queue import Settled, Taken, Wanted
from .workers import Workers

if TYPE_CHECKING:
    from nats.aio.msg import Msg

WATCH_SECONDS: Final = 0.5
"""How often it is looked for work that has fallen due."""

ASIDE_SECONDS: Final = 0.2
"""How long work that a worker must not take now is left to others before it comes again."""

EMPTY_SECONDS: Final = 0.25
"""How long a consumer that had nothing is not asked again, unless there is news."""

SOON_SECONDS: Final = 60.0
"""Up to this far ahead a message waits with the broker; later work waits in the rows alone."""

_THREADS: Final = 4
_MOST_PULLED: Final = 100
_MOST_UNREAD: Final = 20

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Lot:
    """A message that this worker holds: ``left`` is not handed out yet, ``out`` not settled.

    ``again_at`` is when the first of it is due again, in UNIX milliseconds.
    """

    message: "Msg"
    work: WorkMessage
    left: deque[Key] = field(default_factory=deque)
    out: set[Key] = field(default_factory=set)
    again_at: int | None = None

    @property
    def is_over(self) -> bool:
        return not self.left and not self.out


class NatsWorkQueue:
    """A :class:`~handbell.delivery.queue.work_queue.WorkQueue` that a broker hands out.

    A worker's lease is its beat, which is written once the broker has read that all of its
    messages are still worked on. Who does not reach the broker has no lease for long, and sends
    nothing by then.
    """

    def __init__(
        self,
        broker: Broker,
        queue: Queue,
        known_workers: Workers,
        unpublished: Unpublished,
        *,
        now: Callable[[], float],
    ) -> None:
        self._broker = broker
        self._queue = queue
        self._workers = known_workers
        self._unpublished = unpublished
        self._now = now
        self._threads = ThreadPool(_THREADS, "handbell-queue")
        self._lots: set[_Lot] = set()
        self._left: dict[int, deque[_Lot]] = {level: deque() for level in LEVELS}
        self._of: dict[Key, _Lot] = {}
        self._shards: dict[int, _Lot] = {}
        self._empty_until: dict[tuple[Kind, int], float] = {}
        self._unread: set[str] = set()
        self._watching: asyncio.Task[None] | None = None
        broker.on_work(self._empty_until.clear)

    def on_work(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` when work has been put, on whichever machine."""
        self._broker.on_work(wake)

    async def join(self, worker: int) -> None:
        """Enter the worker; from now on it also publishes what falls due."""
        await self._threads.run(self._workers.enlist, worker, asyncio.get_running_loop())
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())

    async def put(self, notifications: Collection[int]) -> None:
        """Publish what is due of notifications. What cannot be published is found later."""
        try:
            await self._publish(await self._threads.run(self._unpublished.of, notifications))
        except StorageError as error:
            _log.warning("Queue unavailable; accepted work goes out later: %s", error)

    async def take(self, worker: int, wanted: Wanted) -> Taken:
        """Take messages, and what is free of the rows that they name."""
        due = await self._take_due(worker, wanted)
        try:
            return Taken(due, await self._take_shards(worker, wanted))
        except StorageError as error:
            if not due:
                raise
            # What was taken must not be forgotten; the shards are there at the next turn.
            _log.warning("Queue unavailable: %s", error)
            return Taken(due, [])

    async def extend(self, worker: int) -> bool:
        """Tell the broker that everything is still worked on, then beat."""
        # A copy: work is taken and settled while the broker is told.
        await self._broker.extend([lot.message for lot in self._lots])
        if not await self._threads.run(self._workers.beat, worker):
            # Their rows were given to others, and so are the messages once nobody extends them.
            self._forget()
            return False
        await self._acknowledge_shards(worker)
        return True

    async def done(self, worker: int, settled: Iterable[Settled]) -> None:
        """Acknowledge the messages of which everything is settled."""
        del worker
        ended: dict[int, _Lot] = {}
        for notification, numbers, due_at in settled:
            for number in numbers:
                if (lot := self._of.pop((notification, number), None)) is None:
                    continue
                lot.out.discard((notification, number))
                if due_at is not None:
                    lot.again_at = min(due_at, lot.again_at or due_at)
                if lot.is_over:
                    ended[id(lot)] = lot
        for lot in ended.values():
            await self._end(lot)

    async def put_back(self, worker: int) -> None:
        """Release the worker's rows and strike it off, then give its messages to others."""
        await self._threads.run(self._workers.retire, worker)
        lots = list(self._lots)
        self._forget()
        with contextlib.suppress(QueueUnavailableError):
            for lot in lots:
                await self._broker.give_back(lot.message)
            await self._broker.confirm()

    async def close(self) -> None:
        """Publish no more, and close the connection; what is held is handed out again in time."""
        if self._watching is not None:
            self._watching.cancel()
        self._forget()
        await self._broker.close()

    async def sweep(self) -> None:
        """Release the rows of dead workers, and publish work that has no message."""
        if await self._threads.run(self._workers.reclaim):
            await self._publish(await self._threads.run(self._unpublished.released))
        if overdue := await self._threads.run(self._unpublished.overdue):
            counts = await self._broker.counts()
            for one in overdue:
                # Where every message was handed out, whoever got this one has lost it.
                written_at = None
                if counts[one.kind, one.level].waiting:
                    written_at = await self._broker.written_at(one.kind, one.level, one.app)
                if one.has_no_message(written_at):
                    found = await self._threads.run(self._unpublished.take_up, one, written_at)
                    await self._publish(found)

    # Taking

    async def _take_due(self, worker: int, wanted: Wanted) -> list[Due]:
        if wanted.limit <= 0:
            return []
        for level in LEVELS:
            if level < wanted.least:
                break
            await self._pull_due(level, wanted)
            if due := await self._claim(worker, level, wanted):
                return due
        return []

    async def _pull_due(self, level: int, wanted: Wanted) -> None:
        """Take messages as long as fewer deliveries are left than there is room for."""
        mine = self._left[level]
        room = wanted.limit - sum(len(lot.left) for lot in mine)
        while room > 0:
            asked = min(room, _MOST_PULLED)
            found = await self._pull("due", level, asked)
            for message in found:
                lot = await self._hold(message, wanted)
                if lot is not None:
                    lot.left.extend(lot.work.keys)
                    mine.append(lot)
                    room -= len(lot.left)
            if len(found) < asked:
                return

    async def _pull(self, kind: Kind, level: int, most: int) -> "list[Msg]":
        """Take messages; one that was found empty just now is not asked again."""
        now = asyncio.get_running_loop().time()
        if now < self._empty_until.get((kind, level), 0.0):
            return []
        found = await self._broker.pull(kind, level, most)
        if len(found) < most:
            self._empty_until[kind, level] = now + EMPTY_SECONDS
        return found

    async def _claim(self, worker: int, level: int, wanted: Wanted) -> list[Due]:
        """Take the rows of the messages at hand, up to the limit, that are free."""
        lots = await self._of_other_apps(level, wanted.full)
        asked: dict[Key, _Lot] = {}
        touched: list[_Lot] = []
        for lot in lots:
            if len(asked) >= wanted.limit:
                break
            touched.append(lot)
            while lot.left and len(asked) < wanted.limit:
                asked.setdefault(lot.left.popleft(), lot)
        if not asked:
            return []
        try:
            due = await self._threads.run(self._queue.claim_these, worker, [*asked])
        except BaseException:
            for key, lot in asked.items():
                lot.left.append(key)
            raise
        for one in due:
            key = one.notification, one.number
            lot = self._of[key] = asked[key]
            lot.out.add(key)
        self._left[level] = deque(lot for lot in self._left[level] if lot.left)
        for lot in touched:
            if lot.is_over:
                await self._end(lot)
        return due

    async def _of_other_apps(self, level: int, full: Collection[str]) -> list[_Lot]:
        """Return the lots of apps that have room; of the others, leave to others what can be."""
        lots = list(self._left[level])
        aside = [lot for lot in lots if lot.work.app in full and not lot.out]
        for lot in aside:
            self._left[level].remove(lot)
            await self._set_aside(lot)
        return [lot for lot in lots if lot.work.app not in full]

    async def _take_shards(self, worker: int, wanted: Wanted) -> list[Shard]:
        for level in LEVELS:
            if level <= wanted.least:
                break
            found = await self._pull("shards", level, MOST_SHARDS)
            lots = [lot for message in found if (lot := await self._hold(message, wanted))]
            if lots and (taken := await self._claim_shards(worker, lots, wanted)):
                return taken
        return []

    async def _claim_shards(self, worker: int, lots: Sequence[_Lot], wanted: Wanted) -> list[Shard]:
        by_row = {lot.work.shard: lot for lot in lots if lot.work.shard is not None}

        def claim() -> tuple[list[Shard], set[int]]:
            taken = self._queue.claim_shards(
                worker, wanted.least, wanted.apart_from, wanted.full, only=[*by_row]
            )
            return taken, self._unpublished.free_shards([*by_row])

        try:
            taken, free = await self._threads.run(claim)
        except BaseException:
            for lot in lots:
                await self._set_aside(lot)
            raise
        for shard in taken:
            self._shards[shard.id] = by_row.pop(shard.id)
        for row, lot in by_row.items():
            if row in free:
                # For others now; for this worker once it may take it.
                await self._set_aside(lot, ASIDE_SECONDS if not taken else 0.0)
            else:
                await self._end(lot)
        return taken

    async def _hold(self, message: "Msg", wanted: Wanted) -> _Lot | None:
        """Hold a message; what must not be taken now, or is for later versions, is for others."""
        try:
            work = WorkMessage.receive(message.data, message.subject, self._broker.prefix)
        except LaterVersionError as error:
            if str(error) not in self._unread and len(self._unread) < _MOST_UNREAD:
                self._unread.add(str(error))
                _log.warning("Messages of the broker are left to other versions: %s", error)
            await self._broker.give_back(message, _pause_after(message.metadata.num_delivered))
            return None
        except ValueError as error:
            _log.warning("Message of the broker dropped: subject=%s: %s", message.subject, error)
            await self._broker.drop(message)
            return None
        lot = _Lot(message, work)
        self._lots.add(lot)
        if work.app in wanted.full:
            await self._set_aside(lot)
            return None
        return lot

    # Letting go

    async def _end(self, lot: _Lot) -> None:
        """Acknowledge a message, or let it come again when the first of it is due again."""
        self._lots.discard(lot)
        wait = None if lot.again_at is None else lot.again_at / 1000 - self._now()
        if wait is not None and wait <= SOON_SECONDS:
            await self._broker.give_back(lot.message, max(0.0, wait))
            self._empty_until.clear()
        else:
            await self._broker.acknowledge(lot.message)

    async def _set_aside(self, lot: _Lot, seconds: float = ASIDE_SECONDS) -> None:
        self._lots.discard(lot)
        await self._broker.give_back(lot.message, seconds)

    def _forget(self) -> None:
        self._lots.clear()
        for waiting in self._left.values():
            waiting.clear()
        self._of.clear()
        self._shards.clear()

    async def _acknowledge_shards(self, worker: int) -> None:
        """Acknowledge the shards that have ended, or that rest and wait in their rows."""
        if not self._shards:
            return
        mine = await self._threads.run(self._unpublished.shards_of, worker)
        for row in [row for row in self._shards if row not in mine]:
            await self._end(self._shards.pop(row))

    # Publishing

    async def _publish(self, messages: Sequence[WorkMessage]) -> None:
        if not messages:
            return
        await asyncio.gather(*map(self._broker.publish, messages))
        self._empty_until.clear()
        await self._broker.announce()

    async def _watch(self) -> None:
        """Publish what waited and falls due, until it is cancelled."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await self._publish(await self._threads.run(self._unpublished.fallen_due))
            except StorageError as error:
                _log.warning("Queue unavailable: %s", error)
            except Exception:  # noqa: BLE001 - one turn must not end the watch
                _log.exception("Could not publish due work; continuing")


def _pause_after(times: int) -> float:
    """Return for how long a message that cannot be read is left to others, at its nth time."""
    return min(SOON_SECONDS, ASIDE_SECONDS * 2.0 ** min(times - 1, 10))


def nats_work_queue(
    broker: Broker,
    database: Database,
    queue: Queue,
    known_workers: Workers,
    *,
    now: Callable[[], float],
) -> NatsWorkQueue:
    """Return the queue of a broker."""
    unpublished = Unpublished(database, now=now)
    return NatsWorkQueue(broker, queue, known_workers, unpublished, now=now)
