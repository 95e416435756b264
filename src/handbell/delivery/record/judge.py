"""Judge the answers of push services: for each push, its session, and the circuits.

Most answers are judged at once. Two kinds wait for further answers, for a bounded time: a refused
token, which a wrong configuration could explain, and trouble of the service, which may be an
outage or concern one push only.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import replace
from random import Random
from typing import Final, NamedTuple, Protocol

from handbell._failures import log_failure
from handbell.delivery.events import (
    CircuitClosed,
    CircuitOpened,
    Event,
    ProbeSent,
    ServiceDown,
    ServiceUp,
    VerdictLost,
)
from handbell.delivery.ids import session_id
from handbell.delivery.policy.circuit import (
    DOUBT_SECONDS,
    Circuit,
    CircuitScope,
    ServiceCircuit,
    ServiceFailure,
    StoredCircuit,
    TokenRefusal,
)
from handbell.delivery.policy.decision import (
    Decision,
    FirstAnswer,
    HealthSignal,
    Suspect,
    decide,
    health_signal,
)
from handbell.delivery.work.app_state import AppState
from handbell.delivery.work.composed import Composed
from handbell.delivery.work.in_flight import Item
from handbell.delivery.work.push_batch import PushBatch
from handbell.delivery.work.routes import Route, Routes
from handbell.gateways.outcomes import Outcome
from handbell.services.table import service_of

_TOKEN_DOUBT_SECONDS: Final = 1.0
_MOST_RECENT: Final = 1000

_log = logging.getLogger(__name__)

SessionUsers = Callable[[Collection[int]], Awaitable[dict[int, tuple[int, bool]]]]
"""Gives for each session its user, and whether a push to it was ever accepted."""


class Verdict(NamedTuple):
    """The final judgement of a push, by its place in the ticket of its batch.

    ``is_outage`` means that the service accepts nothing.
    """

    push_batch: PushBatch
    place: int
    decision: Decision
    tried: FirstAnswer | None = None
    is_outage: bool = False

    @property
    def item(self) -> Item:
        """Return the delivery."""
        return self.push_batch.ticket.items[self.place]

    @property
    def composed(self) -> Composed:
        """Return its notification."""
        return self.push_batch.ticket.composed[self.place]

    @property
    def key(self) -> tuple[int, int]:
        """Return the delivery's key: notification and number."""
        return self.push_batch.ticket.key_of(self.place)


class _Doubted(NamedTuple):
    """A push whose outcome cannot be judged yet; ``since`` is loop time."""

    verdict: Verdict
    trouble: ServiceFailure | None
    since: float

    @property
    def app_state(self) -> AppState:
        return self.verdict.push_batch.ticket.app_state

    @property
    def is_decided(self) -> bool:
        """Return whether a circuit has opened meanwhile, so that waiting is over."""
        route = _way_of(self.verdict)
        circuit: Circuit = route.configuration if self.trouble is None else route.service
        return circuit.stop is not None

    def is_old(self, now: float) -> bool:
        return now - self.since > (_TOKEN_DOUBT_SECONDS if self.trouble is None else DOUBT_SECONDS)


class VerdictActions(Protocol):
    """Carries out judgements."""

    def settle(self, verdict: Verdict) -> None:
        """Write the outcome of a push."""

    def ask_elsewhere(self, verdict: Verdict) -> None:
        """Send to the other environment, as the decision says."""

    def tell(self, event: Event) -> None:
        """Emit an event once the state it reports is written."""

    def adopt(self, keys: Iterable[tuple[int, int]]) -> None:
        """Move deliveries that were held before the outage was known under the outage."""


class Judge:
    """Judges the answers that one worker gets; belongs to its event loop.

    ``write`` stores the new state of a circuit.
    """

    def __init__(
        self,
        actions: VerdictActions,
        routes: Routes,
        *,
        write: Callable[[StoredCircuit], None],
        now: Callable[[], float],
        rng: Random,
    ) -> None:
        self._actions = actions
        self._routes = routes
        self._write = write
        self._now = now
        self._rng = rng
        self._doubted: list[_Doubted] = []
        self._recent: dict[CircuitScope, list[tuple[int, int]]] = {}

    @property
    def is_waiting(self) -> bool:
        """Return whether any answer cannot be judged yet."""
        return bool(self._doubted)

    # As answers arrive

    def hear(self, push_batch: PushBatch, place: int, outcome: Outcome) -> None:
        """Judge the outcome of one push, now or later."""
        tried, ticket = push_batch.tried.get(place), push_batch.ticket
        gateway = push_batch.way.gateway
        decision = decide(
            outcome,
            push_batch.environment,
            tried,
            service=service_of(gateway),
            is_of_its_kind=ticket.composed[place].is_of_its_kind(gateway),
        )
        verdict = Verdict(push_batch, place, decision, tried)
        if decision.is_lost:
            self._tell_lost(verdict)
        if push_batch.route is None:
            self._carry_out(verdict)
            return
        is_probe = ticket.is_probe(place)
        opened = push_batch.route.open
        trouble = self._hear_of_service(verdict, push_batch.route, outcome, is_probe=is_probe)
        is_doubted = self._hear_of_configuration(verdict, push_batch.route, is_probe=is_probe)
        if is_probe:
            self._tell_probed(push_batch.route, opened)
        if trouble is not None and push_batch.route.service.stop is not None:
            self._carry_out(verdict._replace(is_outage=True))
        elif trouble is not None or is_doubted:
            since = asyncio.get_running_loop().time()
            self._doubted.append(_Doubted(verdict, trouble, since))
        else:
            self._carry_out(verdict)

    def break_off(self, push_batch: PushBatch, place: int) -> None:
        """Note that a push gets no outcome: if it was a probe, the next one is delayed."""
        if push_batch.route is not None and push_batch.ticket.is_probe(place):
            for circuit in push_batch.route.open:
                self._put_off(circuit)

    def accept(
        self,
        route: Route,
        app_state: AppState,
        count: int,
        heard_at: float,
        *,
        is_probe: bool = False,
    ) -> None:
        """Note that pushes were accepted."""
        app_state.proven.add(route.configuration.place.service)
        opened = route.open if is_probe else ()
        if route.service.note_taken(count, self._now()):
            self._end_outage(route.service)
        if self._recent and route.service.is_well:
            self._recent.pop(route.service.place, None)
        noted = route.configuration.note_accepted(heard_at)
        if noted.is_first or noted.has_closed:
            self._write_configuration(route)
        if noted.has_closed:
            self._actions.tell(
                CircuitClosed(
                    app=route.app,
                    at=self._now(),
                    environment=route.configuration.place.environment,
                    topic=route.configuration.place.topic,
                    service=route.configuration.place.service,
                )
            )
        self._tell_probed(route, opened)

    def _carry_out(self, verdict: Verdict) -> None:
        if verdict.decision.environment is not None:
            self._actions.ask_elsewhere(verdict)
        else:
            self._actions.settle(verdict)

    def _hear_of_service(
        self, verdict: Verdict, route: Route, outcome: Outcome, *, is_probe: bool
    ) -> ServiceFailure | None:
        service, decision = route.service, verdict.decision
        match health_signal(outcome, service_of(service.place.service)):
            case HealthSignal.ANSWERED:
                # Accepted pushes are counted with the rest of the batch.
                if decision.state != "sent" and service.note_taken(1, self._now()):
                    self._end_outage(service)
                return None
            case HealthSignal.NOTHING:
                if is_probe:
                    self._put_off(service)
                return None
            case sign:
                trouble = ServiceFailure(
                    verdict.item.token,
                    decision.reason or "",
                    decision.detail,
                    is_certain=sign is HealthSignal.UNREACHED,
                    after=decision.after or 0.0,
                )
        service.note_trouble(trouble, self._now())
        self._judge_service(service, trouble, is_heard_out=False, is_probe=is_probe)
        return trouble

    def _hear_of_configuration(self, verdict: Verdict, route: Route, *, is_probe: bool) -> bool:
        """Note what an answer means for the configuration; return whether its token is in doubt."""
        decision = verdict.decision
        if decision.state == "sent":
            self.accept(
                route, verdict.push_batch.ticket.app_state, 1, asyncio.get_running_loop().time()
            )
            return False
        if decision.doubt is Suspect.CONFIGURATION:
            concerned = _way_of(verdict)
            is_concerned = is_probe and concerned is route
            if concerned.configuration.refuse(
                decision.reason or "",
                decision.detail,
                self._now(),
                self._rng,
                is_probe=is_concerned,
            ):
                self._tell_stopped(concerned, verdict.push_batch.ticket.app_state)
            is_probe = is_probe and not is_concerned
        if is_probe:
            self._put_off(route.configuration)
        is_stopped = _way_of(verdict).configuration.stop is not None
        return decision.doubt is Suspect.TOKEN and not is_stopped

    # After the wait for better answers

    async def judge_doubted(self, users_of: SessionUsers) -> None:
        """Judge the doubtful pushes that have waited long enough."""
        ripe = self._take_ripe()
        tokens = [each.verdict for each in ripe if each.trouble is None]
        for item in ripe:
            if item.trouble is not None:
                self._judge_service(_service_of(item), item.trouble, is_heard_out=True)
        for entry in ripe:
            if entry.trouble is not None:
                self._settle_trouble(entry)
        if tokens:
            await self._judge_tokens(tokens, users_of)

    def _take_ripe(self) -> list[_Doubted]:
        if not self._doubted:
            return []
        now = asyncio.get_running_loop().time()
        waiting: dict[str, int] = {}
        for item in self._doubted:
            waiting[item.app_state.app.id] = waiting.get(item.app_state.app.id, 0) + 1
        ripe: list[_Doubted] = []
        rest: list[_Doubted] = []
        for entry in self._doubted:
            is_idle = entry.app_state.load.handed <= waiting[entry.app_state.app.id]
            (ripe if is_idle or entry.is_old(now) or entry.is_decided else rest).append(entry)
        self._doubted = rest
        return ripe

    def _settle_trouble(self, doubted: _Doubted) -> None:
        service = _service_of(doubted)
        if service.stop is None:
            recent = self._recent.setdefault(service.place, [])
            if len(recent) < _MOST_RECENT:
                recent.append(doubted.verdict.key)
        self._actions.settle(doubted.verdict._replace(is_outage=service.stop is not None))

    async def _judge_tokens(self, verdicts: Sequence[Verdict], users_of: SessionUsers) -> None:
        numbers = {item.item.number for item in verdicts}
        known: dict[int, tuple[int, bool]] = {}
        try:
            known = await users_of([number for number in numbers if session_id(number) is not None])
        except Exception as error:  # noqa: BLE001 - nothing may be left without an end
            log_failure(_log, error, "Could not read owners of refused tokens; none is judged")
            for item in verdicts:
                self._actions.settle(_unjudged(item))
            return
        by_route: dict[Route, list[Verdict]] = {}
        for verdict in verdicts:
            by_route.setdefault(_way_of(verdict), []).append(verdict)
        for route, members in by_route.items():
            self._judge_route(route, members, known)

    def _judge_route(
        self, route: Route, verdicts: Sequence[Verdict], known: dict[int, tuple[int, bool]]
    ) -> None:
        circuit = route.configuration
        was_open = circuit.stop is not None
        refusals = [_refusal(verdict, known) for verdict in verdicts]
        guilty = circuit.judge(refusals, self._now(), self._rng)
        if circuit.stop is not None and not was_open:
            self._tell_stopped(route, verdicts[0].push_batch.ticket.app_state)
        for one, is_guilty in zip(verdicts, guilty, strict=True):
            self._actions.settle(one if is_guilty else _unjudged(one))

    def _judge_service(
        self,
        service: ServiceCircuit,
        trouble: ServiceFailure,
        *,
        is_heard_out: bool,
        is_probe: bool = False,
    ) -> None:
        was_open = service.stop is not None
        is_changed = service.judge(
            trouble, self._now(), self._rng, is_heard_out=is_heard_out, is_probe=is_probe
        )
        stop = service.stop
        if not is_changed or stop is None:
            return
        self._write(StoredCircuit(service.place, None, stop))
        if was_open:
            return
        self._actions.adopt(self._recent.pop(service.place, ()))
        _log.warning(
            "Push service unavailable: service=%s environment=%s reason=%s",
            stop.service,
            stop.environment,
            stop.reason,
        )
        for app in self._routes.apps_of(service.place):
            self._actions.tell(
                ServiceDown(
                    app=app,
                    at=self._now(),
                    environment=service.place.environment,
                    service=service.place.service,
                    reason=stop.reason,
                    detail=stop.detail,
                    probe_at=stop.probe_at,
                )
            )

    def _end_outage(self, service: ServiceCircuit) -> None:
        self._write(StoredCircuit(service.place))
        place = service.place
        for app in self._routes.apps_of(place):
            self._actions.tell(
                ServiceUp(
                    app=app,
                    at=self._now(),
                    environment=place.environment,
                    service=place.service,
                )
            )

    def _put_off(self, circuit: Circuit) -> None:
        if circuit.put_off(self._now(), self._rng):
            self._write(StoredCircuit(circuit.place, self._accepted_at(circuit), circuit.stop))

    def _accepted_at(self, circuit: Circuit) -> float | None:
        return self._now() if getattr(circuit, "is_established", False) else None

    def _write_configuration(self, route: Route) -> None:
        circuit = route.configuration
        self._write(StoredCircuit(circuit.place, self._accepted_at(circuit), circuit.stop))

    def _tell_stopped(self, route: Route, app_state: AppState) -> None:
        stop = route.configuration.stop
        if stop is None:
            return
        app_state.proven.discard(stop.service)
        self._write_configuration(route)
        self._actions.tell(
            CircuitOpened(
                app=route.app,
                at=self._now(),
                environment=stop.environment,
                topic=stop.topic,
                service=stop.service,
                reason=stop.reason,
                detail=stop.detail,
                probe_at=stop.probe_at,
                has_other=app_state.has_other(route),
            )
        )

    def _tell_probed(self, route: Route, opened: Sequence[Circuit]) -> None:
        for circuit in opened:
            self._actions.tell(
                ProbeSent(
                    app=route.app,
                    at=self._now(),
                    environment=circuit.place.environment,
                    service=circuit.place.service,
                    circuit="service" if circuit.place.is_service else "configuration",
                    is_passed=circuit.stop is None,
                )
            )

    def _tell_lost(self, verdict: Verdict) -> None:
        self._actions.tell(
            VerdictLost(
                app=verdict.push_batch.ticket.app_state.app.id,
                at=self._now(),
                notification_id=verdict.composed.id,
                number=verdict.item.number,
                environment=verdict.push_batch.environment,
                service=verdict.push_batch.way.gateway,
                status=verdict.decision.status or 0,
            )
        )


def _service_of(doubted: _Doubted) -> ServiceCircuit:
    return _way_of(doubted.verdict).service


def doubted_route(verdict: Verdict) -> Route | None:
    """Return the route that a doubt concerns, which may be that of the first attempt."""
    push_batch = verdict.push_batch
    first = push_batch.asked_first
    if first is not None and first.environment == verdict.decision.doubted:
        return first.route
    return push_batch.route


def _way_of(verdict: Verdict) -> Route:
    """Return the route that a doubt concerns, or None for an unknown route."""
    if (route := doubted_route(verdict)) is None:
        raise ValueError(f"{verdict.key} went no known way")
    return route


def _refusal(verdict: Verdict, known: dict[int, tuple[int, bool]]) -> TokenRefusal:
    decision = verdict.decision
    person, was_accepted = known.get(verdict.item.number, (None, False))
    push_batch = verdict.push_batch
    return TokenRefusal(
        person=person,
        reason=decision.reason or "",
        was_accepted=was_accepted,
        sent_at=(push_batch.asked_first or push_batch).started,
        detail=decision.detail,
    )


def _unjudged(verdict: Verdict) -> Verdict:
    return verdict._replace(decision=replace(verdict.decision, quarantines=False))
