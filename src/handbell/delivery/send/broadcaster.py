"""From shards to pages: how much of a broadcast is sent next, and when it rests."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from handbell.delivery.policy.failures import INTERRUPTED, MOST_SHARD_FAILURES, failure_delay
from handbell.delivery.policy.parts import parts_of
from handbell.delivery.policy.probe import Probe
from handbell.delivery.policy.ramp_up import RampUps
from handbell.delivery.policy.retry import MENDED_BY_HAND, SERVICE_DOWN
from handbell.delivery.policy.rules_store import RulesStore
from handbell.delivery.queue.session_pages import Listener, Shard
from handbell.delivery.queue.sql_queue import PageRequest, Queue
from handbell.delivery.record.outcome_batch import Batch
from handbell.delivery.record.settle import Settlement
from handbell.delivery.work.app_state import FIRST_BATCH, AppState
from handbell.delivery.work.app_states import AppStates
from handbell.delivery.work.composed import Composed
from handbell.delivery.work.in_flight import InFlight, Ticket
from handbell.delivery.work.release_log import ReleaseLog
from handbell.delivery.work.routes import Route
from handbell.errors import HandbellError, StoppedError, StorageError
from handbell.storage.group_commit import GroupCommit
from handbell.storage.storage_retry import StorageRetry

from .admission import DISABLED_SECONDS, waits_of
from .composed_cache import ComposedCache
from .dispatcher import Dispatcher
from .gateway_cache import GatewayCache
from .page_routes import PageRoutes
from .probes import Probes
from .sender import no_way_reason

_log = logging.getLogger(__name__)

_WATCH_SECONDS: Final = 0.25
_RAMP_PAUSE_SECONDS: Final = 0.05
_LOOKED_AT: Final = 20
"""The number of sessions of a stopped broadcast that are searched for an established one."""


@dataclass(slots=True, eq=False)
class HeldShard:
    """A shard that this worker holds; it rests until ``ready_at``.

    ``pages`` are those that are out, oldest first: where each ends, and its ticket, if anybody is
    in it. ``is_read`` says that no page follows, ``route`` is the way that most of the last one
    went. ``has_failed`` says that our own code failed on it: it is given back.
    """

    shard: Shard
    pages: deque[tuple[int, Ticket | None]] = field(default_factory=deque)
    is_read: bool = False
    ready_at: float = 0.0
    has_failed: bool = False
    app_state: AppState | None = None
    route: Route | None = None

    def is_of(self, app_ids: Collection[str]) -> bool:
        """Whether it is known to be of one of these apps."""
        return self.app_state is not None and self.app_state.app.id in app_ids

    def is_ready(self, now: float) -> bool:
        """Whether its next page may be sent; the first answers are awaited."""
        is_waiting = self.app_state is not None and self.app_state.awaits_proof
        return self.ready_at <= now and not is_waiting

    def written_to(self) -> int | None:
        """Return the position up to which all pages have ended; None if none has.

        These are forgotten: each of them has its end, which is written before or together with the
        page's.
        """
        end = None
        while self.pages:
            last, ticket = self.pages[0]
            if ticket is not None and ticket.is_out:
                break
            end = last
            self.pages.popleft()
        return end


class Broadcaster:
    """Sends the pages of the shards that it holds, one after the other, for one worker.

    ``worker`` gives its id. A waiting broadcast stays a shard: no rows are written for
    sessions that it has not reached.
    """

    def __init__(
        self,
        queue: Queue,
        *,
        composed_cache: ComposedCache,
        rules_store: RulesStore,
        app_states: AppStates,
        in_flight: InFlight,
        release_log: ReleaseLog,
        ramps: RampUps,
        gateways: GatewayCache,
        probes: Probes,
        dispatcher: Dispatcher,
        book: Settlement,
        storage_retry: StorageRetry,
        worker: Callable[[], int],
        now: Callable[[], float],
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        self._held: list[HeldShard] = []
        self._queue = queue
        self._composed_cache = composed_cache
        self._rules_store = rules_store
        self._app_states = app_states
        self._in_flight = in_flight
        self._release_log = release_log
        self._ramps = ramps
        self._probes = probes
        self._dispatcher = dispatcher
        self._book = book
        self._storage_retry = storage_retry
        self._worker = worker
        self._now = now
        self._clock = clock
        self._rng = rng
        self._routes = PageRoutes(
            gateways, rules_store, storage_retry=storage_retry, is_mixed=queue.is_mixed
        )
        self._reading = GroupCommit(self._read)

    @property
    def notifications(self) -> set[int]:
        """The rows of the notifications whose shards are held."""
        return {one.shard.notification for one in self._held}

    @property
    def going(self) -> list[HeldShard]:
        """The shards with further pages to send."""
        return [one for one in self._held if not one.is_read]

    def hold(self, shards: Iterable[Shard]) -> list[HeldShard]:
        """Hold shards that were just taken."""
        held = [HeldShard(shard) for shard in shards]
        self._held += held
        return held

    def lose(self) -> None:
        """Drop all shards: other workers have them."""
        self._held.clear()

    def rest(self, now: float) -> float | None:
        """Return the seconds until the first resting shard resumes; None if none rests."""
        waits = [one.ready_at - now for one in self._held if one.ready_at > now]
        return min(waits, default=None)

    def note_progress(self, batch: Batch) -> None:
        """Add the progress of each shard to a batch; finished ones are dropped."""
        for held in tuple(self._held):
            shard = held.shard.id
            if (end := held.written_to()) is not None:
                batch.positions[shard] = end
                held.shard.failures = 0
            if held.is_read and not held.pages:
                batch.positions.pop(shard, None)
                batch.finished_shards.append(shard)
                self._held.remove(held)

    async def take(self, ready: Sequence[HeldShard]) -> None:
        """Send the next page of the most urgent of these shards, one per app.

        The share of an app depends on its other shards. Database queries are made for all of
        them together.
        """
        ends = await asyncio.gather(
            *map(self._take, _next_of_each_app(ready)), return_exceptions=True
        )
        for end in ends:
            if end is not None:
                raise end

    async def _take(self, held: HeldShard) -> None:
        try:
            if held.has_failed or held.shard.failures >= MOST_SHARD_FAILURES:
                await self._set_aside(held)
            else:
                await self._hand_out(held)
        except StoppedError:
            raise
        except Exception:  # noqa: BLE001 - one shard must not hold up the others
            _log.exception("Could not send a page of a broadcast")
            held.shard.failures += 1
            is_to_wait = held.has_failed or held.shard.failures > MOST_SHARD_FAILURES
            held.ready_at = self._clock() + (DISABLED_SECONDS if is_to_wait else 0.0)
            held.has_failed = True

    async def _set_aside(self, held: HeldShard) -> None:
        """Return a shard that failed once its pages have ended; break up one that fails often."""
        shard = held.shard
        if not self._holds(held):
            return
        if held.pages:
            held.ready_at = self._clock() + _WATCH_SECONDS
        elif shard.failures < MOST_SHARD_FAILURES:
            until = self._now() + failure_delay(shard.failures, self._rng)
            self._let_rest(held, INTERRUPTED, until)
        elif await self._storage_retry.call(self._queue.break_up, self._worker(), shard):
            held.is_read = True
            self._book.reported.set()
        else:
            # It was given to another worker, which breaks it up.
            held.ready_at = self._clock() + _WATCH_SECONDS

    async def _hand_out(self, held: HeldShard) -> None:
        try:
            composed = await self._composed_cache.find(held.shard.notification)
        except (StorageError, StoppedError):
            raise
        except HandbellError as error:
            # A wrong secret key may be the cause, and get fixed.
            _log.error("Could not read stored notification; its broadcast waits", exc_info=error)
            if self._holds(held):
                self._let_rest(held, "CannotBeRead", self._now() + DISABLED_SECONDS)
            return
        if composed is None or composed.is_cancelled:
            held.is_read = True
            self._book.reported.set()
            return
        held.app_state = app_state = composed.app_state
        await self._app_states.read_rules(app_state)
        if app_state.awaits_proof or not self._holds(held):
            return
        route, now = held.route, self._now()
        if not app_state.rules.is_enabled:
            self._let_rest(held, "AppDisabled", now + DISABLED_SECONDS)
            return
        probe = await self._acquire(route)
        try:
            if not self._has_to_rest(held, route, composed, probe):
                await self._read_page(held, composed, probe)
        finally:
            # Where a ticket has it by now, that one gives it back.
            if probe is not None and not self._in_flight.holds(probe):
                probe.release()

    async def _acquire(self, route: Route | None) -> Probe | None:
        is_open = route is not None and route.stop is not None
        return await self._probes.acquire(route) if route is not None and is_open else None

    async def _read_page(self, held: HeldShard, composed: Composed, probe: Probe | None) -> None:
        most, wait = await self._size_of_page(held, composed, probe)
        if not most:
            held.ready_at = self._clock() + wait
            return
        with (
            self._release_log.begin() as snapshot,
            self._app_states.reserving(composed.app_state, most),
        ):
            rules, former = composed.app_state.rules, held.route
            extra = composed.needs(rules)
            asked = PageRequest(
                held.shard,
                most,
                extra,
                composed.is_development,
                composed.carried,
                rules.service_order,
            )
            (found,) = await self._reading.bring([asked])
            if self._has_to_wait(found, composed):
                await self._divide(held, composed)
                return
            listeners = found if probe is None else await self._up_to_known(found, former)
            if listeners:
                held.route = await self._routes.main(held.shard.app_row, composed, listeners)
            route = held.route
            if not self._holds(held):
                return
            if route is not former:
                probe = None  # it was for another way
            if self._has_to_rest(held, route, composed, probe):
                return
            if route is None and await self._rests_without_way(held, composed, listeners):
                return
            ticket = None
            if listeners:
                ticket = self._dispatcher.begin_page(composed, listeners, rules, snapshot, probe)
            is_last = _is_end(found, most, held.shard) and len(listeners) == len(found)
            self._note_page(held, listeners, ticket, is_last=is_last)

    async def _read(self, asked: Sequence[PageRequest]) -> list[list[Listener]]:
        return await self._storage_retry.call(self._queue.pages, asked)

    async def _size_of_page(
        self, held: HeldShard, composed: Composed, probe: Probe | None
    ) -> tuple[int, float]:
        """Return how many sessions to read; if 0, the seconds until more may be read."""
        app_state, route, now = composed.app_state, held.route, self._now()
        size = self._app_states.page_of(app_state)
        if not size or (route is not None and route.stop is not None and probe is None):
            # An expired broadcast continues in spite of the circuit, so that each delivery ends.
            return size, 0.0
        if probe is not None:
            granted, wait, _ = await self._app_states.grant(app_state, 1)
            return granted * (_LOOKED_AT if _wants_known(route) else 1), wait
        if not app_state.proven:
            size = min(size, FIRST_BATCH)
        if route is not None:
            size = self._ramps.grant(route.service, held.shard.urgency, size, now)
        if not size:
            return 0, _RAMP_PAUSE_SECONDS
        granted, _, wait = await self._app_states.grant(app_state, size)
        return granted, wait

    async def _up_to_known(
        self, listeners: Sequence[Listener], route: Route | None
    ) -> Sequence[Listener]:
        """Return sessions up to the first established one, which is the probe."""
        if not _wants_known(route):
            return listeners[:1]
        numbers = [one.number for one in listeners]
        users = await self._storage_retry.call(self._rules_store.users_of, numbers)
        known = (place for place, one in enumerate(numbers) if users.get(one, (0, False))[1])
        return listeners[: next(known, 0) + 1]

    def _holds(self, held: HeldShard) -> bool:
        """Return whether a shard is still this worker's; a late heartbeat loses it."""
        return held in self._held

    def _note_page(
        self,
        held: HeldShard,
        listeners: Sequence[Listener],
        ticket: Ticket | None,
        *,
        is_last: bool,
    ) -> None:
        shard = held.shard
        held.is_read = is_last
        shard.position = listeners[-1].number if listeners else shard.last
        held.pages.append((shard.position, ticket))
        self._book.reported.set()

    def _has_to_wait(self, found: Sequence[Listener], composed: Composed) -> bool:
        """Return whether a session of a page has to wait, and the broadcast is not over."""
        now = self._now()
        if composed.is_expired(now):
            return False
        zones = {one.time_zone for one in found}
        return bool(waits_of(composed, zones, composed.app_state.rules, now))

    async def _divide(self, held: HeldShard, composed: Composed) -> None:
        """Divide the rest of a shard into parts, each held as long as its time zones require."""
        shard, now = held.shard, self._now()
        zones = await self._storage_retry.call(self._queue.zones_of, shard)
        found = waits_of(composed, [zone or None for zone in zones], composed.app_state.rules, now)
        waits = {zone: found.get(zone or None) for zone in zones}
        parts = parts_of(waits, now, within=shard.zones)
        divide = self._queue.divide
        if await self._storage_retry.call(divide, self._worker(), shard, parts):
            held.is_read = True
            self._book.reported.set()
        else:
            # It was given to another worker, which divides it.
            held.ready_at = self._clock() + _WATCH_SECONDS

    def _has_to_rest(
        self, held: HeldShard, route: Route | None, composed: Composed, probe: Probe | None
    ) -> bool:
        """Return a shard whose route is stopped until the next probe; say whether it rests.

        One of several push services goes on: what is for the stopped one gets rows.
        """
        if route is None or not _is_stopped(route, composed, probe, self._now()):
            return False
        stopped = {route.configuration.place.service}
        if self._routes.has_others(held.shard.app_row, composed.app_state, stopped):
            return False
        self._rest_stopped(held, route)
        return True

    def _rest_stopped(self, held: HeldShard, route: Route) -> None:
        """Return a stopped app's shard until the next probe."""
        now = self._now()
        if route.is_due(now):
            return  # it is known now which way it goes: its next turn probes that
        app_state = held.app_state
        until = route.resume_at(now) if app_state is None else app_state.look_again_at(route, now)
        is_outage = route.configuration.stop is None
        self._let_rest(held, SERVICE_DOWN if is_outage else "CircuitOpen", until)

    async def _rests_without_way(
        self, held: HeldShard, composed: Composed, listeners: Sequence[Listener]
    ) -> bool:
        """Return a shard whose page has no route; say whether it rests."""
        now = self._now()
        if not listeners or composed.is_over(now):
            return False
        problem = await self._routes.problem(held.shard.app_row, composed, listeners)
        if problem is None:
            return False
        self._let_rest(held, no_way_reason(problem), now + MENDED_BY_HAND.first)
        return True

    def _let_rest(self, held: HeldShard, reason: str, until: float) -> None:
        """Return a shard until an instant (UNIX seconds), once its pages have ended."""
        if held.pages:
            held.ready_at = self._clock() + _WATCH_SECONDS
            return
        self._held.remove(held)
        self._book.rest_shard(held.shard.id, until, reason, held.shard.failures)


def _next_of_each_app(ready: Sequence[HeldShard]) -> list[HeldShard]:
    most = max((one.shard.urgency for one in ready), default=0)
    of_app: dict[int, HeldShard] = {}
    for one in ready:
        if one.shard.urgency == most:
            of_app.setdefault(one.shard.app_row, one)
    return list(of_app.values())


def _is_end(found: Sequence[Listener], most: int, shard: Shard) -> bool:
    """Return whether a shard has no session after these."""
    return len(found) < most or found[-1].number >= shard.last


def _is_stopped(route: Route, composed: Composed, probe: Probe | None, now: float) -> bool:
    """Return whether a broadcast must rest; an expired one continues, so that it ends."""
    return route.stop is not None and probe is None and not composed.is_over(now)


def _wants_known(route: Route | None) -> bool:
    """Return whether a probe should go to a session that accepted a push before."""
    if route is None or route.configuration.stop is None:
        return False
    return route.configuration.is_established
