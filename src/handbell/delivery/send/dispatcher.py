"""From what was taken to what is sent: an app's rules, its circuit and its rate say what may go."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from handbell.delivery.policy.app_rules import AppRules
from handbell.delivery.policy.probe import Probe
from handbell.delivery.policy.ramp_up import RampUps
from handbell.delivery.queue.due import Due
from handbell.delivery.queue.session_pages import Listener
from handbell.delivery.record.flusher import FLUSH_SECONDS, Flusher
from handbell.delivery.record.settle import Settlement
from handbell.delivery.work.app_state import FIRST_BATCH, AppState
from handbell.delivery.work.app_states import AppStates
from handbell.delivery.work.composed import Composed
from handbell.delivery.work.in_flight import InFlight, Ticket
from handbell.delivery.work.push_batch import Item, Portion
from handbell.delivery.work.release_log import SessionSnapshot
from handbell.delivery.work.routes import Route
from handbell.errors import StoppedError

from .admission import Admission
from .gateway_cache import GatewayCache
from .probes import Probes
from .sender import PushSender

PROBE_SECONDS: Final = 2.0
"""How long what could go on is kept at hand while a push probes its way."""

_log = logging.getLogger(__name__)


class Dispatcher:
    """Sends what a worker has taken, each part in a task of its own; ``tasks`` are those that run.

    Until ``turns_until`` (UNIX seconds), what a rate holds falls due a few at a time.

    What is taken gets a ticket here; what is not sent gets a row that says why not, or until when.
    """

    def __init__(
        self,
        book: Settlement,
        admission: Admission,
        sender: PushSender,
        *,
        app_states: AppStates,
        flusher: Flusher,
        in_flight: InFlight,
        ramps: RampUps,
        probes: Probes,
        gateways: GatewayCache,
        now: Callable[[], float],
    ) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.turns_until = 0.0
        self._probes = probes
        self._book = book
        self._admission = admission
        self._sender = sender
        self._app_states = app_states
        self._flusher = flusher
        self._in_flight = in_flight
        self._ramps = ramps
        self._gateways = gateways
        self._now = now

    def begin(self, work: Any) -> None:
        """Do something aside, in a task of its own; where it breaks off, the log says so."""
        task: asyncio.Task[None] = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("Send task failed", exc_info=task.exception())

    def begin_items(self, portions: Sequence[Portion], snapshot: SessionSnapshot) -> None:
        """Begin to send single deliveries; ``snapshot`` is shared until they are answered."""
        by_app: dict[str, list[Portion]] = {}
        for portion in portions:
            by_app.setdefault(portion.composed.app_state.app.id, []).append(portion)
        for of_app in by_app.values():
            members = [(composed.row, _numbers(items)) for composed, items in of_app]
            app_state = of_app[0].composed.app_state
            ticket = self._in_flight.acquire(app_state, members, snapshot.share())
            self.begin(self._send_items(ticket, of_app))

    def begin_page(
        self,
        composed: Composed,
        listeners: Sequence[Listener],
        rules: AppRules,
        snapshot: SessionSnapshot,
        probe: Probe | None = None,
    ) -> Ticket:
        """Begin to send a page of a broadcast, which was read for these rules.

        ``snapshot`` is shared; a ``probe`` is for the last of the page, and the ticket's to give
        back: the others get a row that says what stops them.
        """
        numbers = _numbers(listeners)
        ticket = self._in_flight.acquire(
            composed.app_state, [(composed.row, numbers)], snapshot.share(), is_page=True
        )
        # The next page is not read before the answers to the first.
        if probe is not None:
            ticket.hand(composed.row, numbers[-1:], probe)
        ticket.hand(composed.row, numbers)
        self.begin(self._send_page(ticket, composed, listeners, rules))
        return ticket

    def begin_astray(self) -> None:
        """Begin to ask the other environment about the tokens that the first one did not know."""
        astray, self._book.astray = self._book.astray, []
        for push_batch in self._sender.readdress(astray):
            self.begin(self._sender.send_batch("apns", push_batch))

    async def _send_items(self, ticket: Ticket, portions: Sequence[Portion]) -> None:
        """Send single deliveries that may go now; the others get a row that says until when."""
        try:
            await self._admit_items(ticket, portions)
        except StoppedError:
            # What it has goes back with the worker's other work.
            return
        except Exception as error:  # noqa: BLE001 - nothing may be left without an end
            for composed, items in portions:
                left = [one for one in items if ticket.is_waiting(composed.row, one.number)]
                self._admission.refuse(ticket, composed, left, error)

    async def _admit_items(self, ticket: Ticket, portions: Sequence[Portion]) -> None:
        app_state = ticket.app_state
        held = [self._admission.with_session(ticket, portion) for portion in portions]
        # Where the rules cannot be read nothing goes out without them.
        await self._app_states.read_rules(app_state)
        ready: list[Portion] = []
        for composed, items in held:
            admitted = await self._admission.admit(ticket, composed, items, app_state.rules)
            if admitted:
                ready.append(Portion(composed, admitted))
            if app_state.rules.cap is not None:
                # The database is asked for each; what may go does not wait for the others.
                await self._send_ready(ticket, ready)
                ready = []
        await self._send_ready(ticket, ready)

    async def _send_ready(self, ticket: Ticket, ready: Sequence[Portion]) -> None:
        """Send what was admitted, each way by itself: one that is stopped holds up no other."""
        by_route: dict[Route | None, list[Portion]] = {}
        for portion in ready:
            for route, items in (await self._gateways.routes_of(portion)).items():
                by_route.setdefault(route, []).append(Portion(portion.composed, items))
        await asyncio.gather(
            *(self._send_along(ticket, route, part) for route, part in by_route.items())
        )

    async def _send_along(
        self, ticket: Ticket, route: Route | None, ready: Sequence[Portion]
    ) -> None:
        while ready:
            probe = None
            if route is not None and route.stop is not None:
                probe = await self._probes.acquire(route)
                if probe is None and await self._is_let_go(route):
                    continue
                if probe is None:
                    for composed, items in ready:
                        self._book.hold_stopped(ticket, composed, items, route)
                    return
                ready = probe_first(ready, route)
            waiting = ready
            try:
                ready = await self._begin_next(ticket, route, waiting, probe)
            finally:
                if probe is not None and ticket.probe is not probe:
                    probe.release()
            if ready is waiting:
                await self._flusher.next_written(FLUSH_SECONDS)
            while ready and ticket.app_state.awaits_proof:
                await self._flusher.next_written(FLUSH_SECONDS)

    async def _begin_next(
        self,
        ticket: Ticket,
        route: Route | None,
        ready: Sequence[Portion],
        probe: Probe | None,
    ) -> Sequence[Portion]:
        """Begin to send what may go now; return what may not yet."""
        now = self._now()
        most = 1 if probe is not None else self._most(ticket.app_state, route, ready, now)
        if not most:
            return ready
        most, wait, _ = await self._app_states.grant(ticket.app_state, most)
        if not most:
            until = self._book.hold_in_turn(ticket, ready, self._now() + wait)
            self.turns_until = max(self.turns_until, until)
            return ()
        part, rest = _split(ready, most)
        for composed, items in part:
            ticket.hand(composed.row, _numbers(items), probe)
        self.begin(self._send(ticket, part))
        return rest

    async def _is_let_go(self, route: Route) -> bool:
        """Wait a moment for the end of a probe that is out; say whether the way is free now."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PROBE_SECONDS
        while route.is_probed and loop.time() < until:
            await self._flusher.next_written(FLUSH_SECONDS)
        return route.stop is None

    def _most(
        self, app_state: AppState, route: Route | None, ready: Sequence[Portion], now: float
    ) -> int:
        """Return how many deliveries may go together, as far as the answers so far tell."""
        left = sum(len(portion.items) for portion in ready)
        most = left if app_state.is_proven else min(left, FIRST_BATCH)
        if route is None:
            return most
        urgency = max(portion.composed.urgency for portion in ready)
        return self._ramps.grant(route.service, urgency, most, now)

    async def _send_page(
        self,
        ticket: Ticket,
        composed: Composed,
        listeners: Sequence[Listener],
        rules: AppRules,
    ) -> None:
        # By the rules for which it was read: others may need a column that was left out.
        ready = await self._admission.admit(ticket, composed, listeners, rules)
        if ready:
            await self._send(ticket, [Portion(composed, ready)])

    async def _send(self, ticket: Ticket, part: Sequence[Portion]) -> None:
        try:
            await self._sender.send(ticket, part)
        except Exception as error:  # noqa: BLE001 - nothing may be left without an end
            for composed, items in part:
                self._admission.refuse(ticket, composed, items, error)


def _numbers(items: Sequence[Item]) -> list[int]:
    return [item.number for item in items]


def probe_first(ready: Sequence[Portion], route: Route) -> list[Portion]:
    """Put that delivery first which says most about a way that is to be probed.

    Where something was accepted before, that is one to a session of which something was.
    """
    if route.configuration.stop is None or not route.configuration.is_established:
        return list(ready)
    for place, (composed, items) in enumerate(ready):
        known = next((one for one in items if isinstance(one, Due) and one.was_accepted), None)
        if known is not None:
            rest = Portion(composed, [one for one in items if one is not known])
            others = [*ready[:place], rest, *ready[place + 1 :]]
            return [Portion(composed, [known]), *(one for one in others if one.items)]
    return list(ready)


def _split(portions: Sequence[Portion], most: int) -> tuple[list[Portion], list[Portion]]:
    """Return the first so many deliveries, and the others; a portion holds at least one."""
    first: list[Portion] = []
    for place, (composed, items) in enumerate(portions):
        if not most:
            return first, list(portions[place:])
        if most < len(items):
            rest = [Portion(composed, items[most:]), *portions[place + 1 :]]
            return [*first, Portion(composed, items[:most])], rest
        first.append(Portion(composed, items))
        most -= len(items)
    return first, []
