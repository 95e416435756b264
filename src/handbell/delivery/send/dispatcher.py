"""From leased to sent: an app's rules, circuit and rate decide what may go."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from handbell._failures import log_failure
from handbell.delivery.policy.app_rules import AppRules
from handbell.delivery.policy.probe import Probe
from handbell.delivery.policy.ramp_up import RampUps
from handbell.delivery.queue.due import Due
from handbell.delivery.queue.session_pages import Listener
from handbell.delivery.record.flusher import FLUSH_SECONDS, Flusher
from handbell.delivery.record.settle import Settlement
from handbell.delivery.work.app_state import FIRST_BATCH
from handbell.delivery.work.app_states import AppStates
from handbell.delivery.work.composed import Composed
from handbell.delivery.work.in_flight import InFlight, Item, Ticket
from handbell.delivery.work.push_batch import PushBatch, Way, ways_of
from handbell.delivery.work.release_log import SessionSnapshot
from handbell.delivery.work.routes import Route
from handbell.errors import StoppedError
from handbell.services.forms import form_of
from handbell.services.table import service_of

from .admission import Admission
from .gateway_cache import GatewayCache
from .probes import Probes
from .sender import PushSender

NOT_FOR_SERVICE: Final = "NotForService"
"""The reason of a delivery whose push service cannot carry such a notification."""

PROOF_SECONDS: Final = 2.0
"""How long the first answers of one service are waited for while another's keep coming."""

PROBE_SECONDS: Final = 2.0
"""How long deliveries stay in memory while a probe is in flight."""

_log = logging.getLogger(__name__)


class Dispatcher:
    """Sends what a worker has leased, each part in its own task; ``tasks`` are the running ones.

    Until ``turns_until`` (UNIX seconds), what a rate holds falls due a few at a time.

    Leased deliveries get a ticket here; those not sent get a row with the reason, or the time.
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
        """Run something in its own task; failures are logged."""
        task: asyncio.Task[None] = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log_failure(_log, error, "Send task failed")

    def begin_items(
        self, composed: Sequence[Composed], items: Sequence[Item], snapshot: SessionSnapshot
    ) -> None:
        """Begin to send single deliveries, each of the notification at its place.

        ``snapshot`` is shared until they are answered.
        """
        by_app: dict[str, list[int]] = {}
        for place, one in enumerate(composed):
            by_app.setdefault(one.app_state.app.id, []).append(place)
        for places in by_app.values():
            mine = [composed[place] for place in places]
            ticket = self._in_flight.acquire(
                mine[0].app_state, mine, [items[place] for place in places], snapshot.share()
            )
            self.begin(self._send_items(ticket))

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
        ticket = self._in_flight.acquire(
            composed.app_state,
            [composed] * len(listeners),
            listeners,
            snapshot.share(),
            is_page=True,
        )
        # The next page is not read before the answers to the first.
        if probe is not None:
            ticket.hand(ticket.places[-1:], probe)
        ticket.hand(ticket.places)
        self.begin(self._send_page(ticket, rules))
        return ticket

    def begin_elsewhere(self) -> None:
        """Begin to try the other environment for tokens that the first one refused."""
        for push_batch in self._sender.readdress(self._book.take_elsewhere()):
            self.begin(self._sender.send(push_batch))

    async def _send_items(self, ticket: Ticket) -> None:
        """Send admitted single deliveries; the others get a row with the time."""
        try:
            places = self._admission.with_session(ticket)
            # Where the rules cannot be read nothing goes out without them.
            await self._app_states.read_rules(ticket.app_state)
            async for ready in self._admission.admit(ticket, places, ticket.app_state.rules):
                await self._send_ready(ticket, ready)
        except StoppedError:
            # What it has goes back with the worker's other work.
            return
        except Exception as error:  # noqa: BLE001 - nothing may be left without an end
            self._admission.refuse(ticket, filter(ticket.is_waiting, ticket.places), error)

    async def _send_ready(self, ticket: Ticket, ready: Sequence[int]) -> None:
        """Send admitted deliveries, each route by itself: a stopped one holds up no other."""
        await asyncio.gather(
            *(
                self._send_along(ticket, way, part)
                for way, part in ways_of(ticket, self._carried(ticket, ready)).items()
            )
        )

    def _carried(self, ticket: Ticket, places: Sequence[int]) -> Sequence[int]:
        """Return the deliveries that their push services can carry; end the others."""
        items = ticket.items
        kept: list[int] = []
        for composed, mine in ticket.by_notification(places):
            forms = {_form_of(items[place]) for place in mine}
            refusals = {form: composed.refusal(form) for form in forms}
            if not any(refusals.values()):
                kept += mine
                continue
            for place in mine:
                error = refusals[_form_of(items[place])]
                if error is None:
                    kept.append(place)
                else:
                    self._book.end(ticket, place, "cancelled", NOT_FOR_SERVICE, detail=error.what)
        return kept

    async def _send_along(self, ticket: Ticket, way: Way, ready: Sequence[int]) -> None:
        composed = ticket.composed[ready[0]]
        route = await self._gateways.route(composed, way)
        while ready:
            probe = None
            if route is not None and route.stop is not None:
                probe = await self._probes.acquire(route)
                if probe is None and await self._is_let_go(route):
                    continue
                if probe is None:
                    self._book.hold_stopped(ticket, ready, route)
                    return
                ready = probe_first(ticket, ready, route)
            waiting = ready
            try:
                ready = await self._begin_next(ticket, way, route, waiting, probe)
            finally:
                if probe is not None and ticket.probe is not probe:
                    probe.release()
            if ready is waiting:
                await self._flusher.next_written(FLUSH_SECONDS)
            if ready:
                await self._until_proven(ticket, way.gateway)

    async def _until_proven(self, ticket: Ticket, gateway: str) -> None:
        """Wait for the first answers of a push service, as long as others' do not take longer."""
        app_state, loop = ticket.app_state, asyncio.get_running_loop()
        until = loop.time() + PROOF_SECONDS
        while app_state.awaits_proof_of(gateway) and (not app_state.proven or loop.time() < until):
            await self._flusher.next_written(FLUSH_SECONDS)

    async def _begin_next(
        self,
        ticket: Ticket,
        way: Way,
        route: Route | None,
        ready: Sequence[int],
        probe: Probe | None,
    ) -> Sequence[int]:
        """Begin to send what may go now; return the rest."""
        now = self._now()
        most = 1 if probe is not None else self._most(ticket, route, ready, now)
        if not most:
            return ready
        most, wait, _ = await self._app_states.grant(ticket.app_state, most)
        if not most:
            until = self._book.hold_in_turn(ticket, ready, self._now() + wait)
            self.turns_until = max(self.turns_until, until)
            return ()
        part = ready[:most]
        ticket.hand(part, probe)
        self.begin(self._send(ticket, way, part))
        return ready[most:]

    async def _is_let_go(self, route: Route) -> bool:
        """Wait briefly for the end of a running probe; return whether the route is free now."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PROBE_SECONDS
        while route.is_probed and loop.time() < until:
            await self._flusher.next_written(FLUSH_SECONDS)
        return route.stop is None

    def _most(self, ticket: Ticket, route: Route | None, ready: Sequence[int], now: float) -> int:
        """Return how many deliveries may go together, as far as the answers so far tell."""
        left = len(ready)
        gateway = ticket.items[ready[0]].gateway
        most = left if ticket.app_state.is_proven(gateway) else min(left, FIRST_BATCH)
        if route is None:
            return most
        urgency = max(ticket.composed[place].urgency for place in ready)
        return self._ramps.pace(route.service, self._ramps.grant(route.service, urgency, most, now))

    async def _send_page(self, ticket: Ticket, rules: AppRules) -> None:
        try:
            # By the rules for which it was read: others may need a column that was left out.
            async for ready in self._admission.admit(ticket, ticket.places, rules):
                ways = ways_of(ticket, self._carried(ticket, ready))
                await asyncio.gather(
                    *(self._send_paced(ticket, way, part) for way, part in ways.items())
                )
        except StoppedError:
            # What it has goes back with the worker's other work.
            return
        except Exception as error:  # noqa: BLE001 - nothing may be left without an end
            self._admission.refuse(ticket, ticket.places, error)

    async def _send_paced(self, ticket: Ticket, way: Way, places: Sequence[int]) -> None:
        """Send a part of a page: a first batch at first, and no faster than the service wants."""
        app_state, gateway = ticket.app_state, way.gateway
        is_small = app_state.is_proven(gateway) or len(places) <= FIRST_BATCH
        if is_small and not service_of(gateway).ramp_seconds:
            await self._send(ticket, way, places)
            return
        route = await self._gateways.route(ticket.composed[places[0]], way)
        while places:
            most = len(places) if app_state.is_proven(gateway) else min(len(places), FIRST_BATCH)
            if route is not None and route.stop is None:
                most = self._ramps.pace(route.service, most)
            if most:
                self.begin(self._send(ticket, way, places[:most]))
                places = places[most:]
                await self._until_proven(ticket, gateway)
            else:
                await self._flusher.next_written(FLUSH_SECONDS)

    async def _send(self, ticket: Ticket, way: Way, places: Sequence[int]) -> None:
        try:
            now = asyncio.get_running_loop().time()
            await self._sender.send(PushBatch(ticket, way, places, now))
        except Exception as error:  # noqa: BLE001 - nothing may be left without an end
            self._admission.refuse(ticket, places, error)


def probe_first(ticket: Ticket, ready: Sequence[int], route: Route) -> Sequence[int]:
    """Move the most informative delivery for a probe of the route to the front.

    On an established route, that is one to a session that accepted a push before.
    """
    if route.configuration.stop is None or not route.configuration.is_established:
        return ready
    for place in ready:
        item = ticket.items[place]
        if isinstance(item, Due) and item.was_accepted:
            return [place, *(one for one in ready if one != place)]
    return ready


def _form_of(item: Item) -> str:
    # There is one of these for each delivery, and most addresses have no details.
    return item.gateway if item.details is None else form_of(item.gateway, item.details)
