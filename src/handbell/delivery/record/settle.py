"""From reports to rows: outcomes are classified, collected, and written in batches."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Final

from handbell.delivery.delivery import State
from handbell.delivery.events import Event, Hooks, SessionClosed, SessionMoved, SessionQuarantined
from handbell.delivery.ids import session_id
from handbell.delivery.policy.circuit import StoredCircuit
from handbell.delivery.policy.decision import Decision, Suspect
from handbell.delivery.policy.failures import INTERRUPTED, after_failure, in_words
from handbell.delivery.policy.meanings import MAY_HAVE_ARRIVED
from handbell.delivery.policy.retry import (
    SERVICE_DOWN,
    WAYLESS,
    GiveUp,
    RetryAt,
    next_attempt,
    next_outage_check,
    while_down,
    while_refused,
    while_stopped,
)
from handbell.delivery.work.composed import Composed
from handbell.delivery.work.in_flight import Ended, InFlight, Item, Ticket
from handbell.delivery.work.push_batch import PushBatch
from handbell.delivery.work.routes import Route, Routes
from handbell.gateways.gateway import Push
from handbell.gateways.outcomes import Accepted, Outcome, Withdrawn
from handbell.services.table import service_of
from handbell.storage.tables import ADDRESSED

from .judge import Judge, SessionUsers, Verdict, doubted_route
from .outcome_batch import Batch, Ending, RestingShard
from .outcome_rows import ending_of, event_of, failed_ending, sent_event

DEAD_TOKEN_SECONDS: Final = 15 * 60
"""How much longer a refused token waits while its app's circuit is open."""

_UNTOLD: Final = frozenset({"sent", "held"})

_log = logging.getLogger(__name__)


Cut = tuple[Batch, list[Event], list[Ended]]
"""A batch to write, the events to emit afterwards, and the deliveries in it."""


class Settlement:
    """Collects the outcomes of pushes until they are written; belongs to one worker and event loop.

    ``reported`` is set when there is something to do. ``write`` is called when a circuit opens or
    closes, and writes it.
    """

    def __init__(
        self,
        in_flight: InFlight,
        routes: Routes,
        *,
        hooks: Hooks,
        now: Callable[[], float],
        rng: Random,
        write: Callable[[StoredCircuit], None],
    ) -> None:
        self.reported = asyncio.Event()
        self._hooks = hooks
        self._now = now
        self._rng = rng
        self._judge = Judge(self, routes, write=write, now=now, rng=rng)
        self._in_flight = in_flight
        self._batch = Batch()
        self._events: list[Event] = []
        self._sent_batches: list[PushBatch] = []
        self._elsewhere: list[Verdict] = []

    @property
    def unwritten(self) -> int:
        """The number of pushes that have ended and are not recorded yet."""
        return self._in_flight.load.ended + sum(len(one.sent) for one in self._sent_batches)

    def write_ending(self, ending: Ending, event: Event | None = None) -> None:
        """Write an ending of a notification that was not read, and tell of it."""
        self._batch.endings.append(ending)
        if event is not None:
            self._events.append(event)
        self.reported.set()

    def rest_shard(self, shard: int, until: float, reason: str, failures: int = 0) -> None:
        """Return a shard, to resume at an instant (UNIX seconds), after so many failures."""
        self._batch.resting_shards[shard] = RestingShard(int(until * 1000), reason, failures)
        self.reported.set()

    def report(self, push_batch: PushBatch, push: Push, outcome: Outcome) -> None:
        """Take the outcome of one push, as a gateway reports it."""
        if (
            outcome.__class__ is Accepted
            and push_batch.is_plain
            and (push_batch.ticket.is_page or outcome.unique_id is None)
        ):
            # The hot path, for each push of a broadcast: nothing is called that can be counted.
            if not push_batch.sent:
                push_batch.heard_at = asyncio.get_running_loop().time()
                self._sent_batches.append(push_batch)
                self.reported.set()
            push_batch.sent.append(push.key)
            return
        place = push.key
        if push_batch.is_over_for(place):
            return
        try:
            if isinstance(outcome, Withdrawn):
                self.take_back(push_batch.ticket, place)
            else:
                self._judge.hear(push_batch, place, outcome)
                self.reported.set()
        except Exception as error:  # noqa: BLE001 - nothing may be left without an end
            _log.exception("Could not classify a push service's answer: %r", outcome)
            self.interrupt(push_batch, [place], error)
        push_batch.note_end(place)

    def interrupt(self, push_batch: PushBatch, places: Sequence[int], error: Exception) -> None:
        """Settle pushes that may have arrived, and of which no report will come."""
        detail = in_words(error)
        decision = Decision(
            "held", reason=INTERRUPTED, detail=detail, is_unknown=True, is_ours=True
        )
        for place in places:
            self._judge.break_off(push_batch, place)
            self.settle(Verdict(push_batch, place, decision, push_batch.tried.get(place)))

    def fail(self, ticket: Ticket, places: Iterable[int], error: Exception) -> None:
        """Hold deliveries that our own code failed to send, or end those it failed on too often.

        What was handed over may have arrived.
        """
        now, places = self._now(), list(places)
        handed = set(filter(ticket.is_handed, places))
        ended = ticket.end(places)
        endings = [
            failed_ending(
                ticket.composed[place],
                ticket.items[place],
                error,
                now,
                self._rng,
                is_repeat=place in handed,
            )
            for place in ended
        ]
        self._keep(ticket, ended, endings)

    def ask_elsewhere(self, verdict: Verdict) -> None:
        """Schedule a push for the other environment, as the decision says."""
        self._elsewhere.append(verdict)
        self.reported.set()

    def take_elsewhere(self) -> list[Verdict]:
        """Return the pushes to try in other environments since the last call."""
        elsewhere, self._elsewhere = self._elsewhere, []
        return elsewhere

    def tell(self, event: Event) -> None:
        """Emit an event once the state it reports is written."""
        self._events.append(event)
        self.reported.set()

    def adopt(self, keys: Iterable[tuple[int, int]]) -> None:
        """Put deliveries that were held before an outage was detected under the outage."""
        self._batch.adopted += keys
        self.reported.set()

    def settle(self, verdict: Verdict) -> None:
        """Turn a verdict into rows."""
        try:
            self._settle(verdict)
        except Exception as error:  # noqa: BLE001 - nothing may be left without an end
            _log.exception(
                "Could not settle delivery: number=%d notification=%s",
                verdict.item.number,
                verdict.composed.id,
            )
            self.fail(verdict.push_batch.ticket, [verdict.place], error)

    def _settle(self, verdict: Verdict) -> None:
        push_batch, place, decision, tried, is_outage = verdict
        item, composed, now = verdict.item, verdict.composed, self._now()
        attempts = item.attempts + 1 + (tried is not None)
        is_repeat = item.is_repeat or decision.is_unknown
        state, reason, detail, due_at = decision.state, decision.reason, decision.detail, None
        begun_at = int(now * 1000) if item.begun_at is None else item.begun_at
        match self._again(verdict, attempts, begun_at / 1000):
            case RetryAt() as again:
                state, due_at = "held", again.at
                is_repeat = is_repeat or again.needs_collapse_id
                if is_outage:
                    reason, detail = SERVICE_DOWN, ": ".join(filter(None, (reason, detail)))
            case GiveUp() as ended:
                state, reason, detail = ended.state, ended.reason, ended.detail
        ending = ending_of(
            composed,
            item,
            state,
            # What goes on later begins where the session is thought to live.
            item.environment if state == "held" else push_batch.environment,
            now,
            attempts=attempts,
            reason=reason,
            detail=detail or None,
            status=decision.status,
            unique_id=decision.unique_id,
            due_at=due_at,
            is_repeat=is_repeat,
            begun_at=begun_at,
            failures=item.failures + 1 if decision.is_ours else 0,
        )
        took = asyncio.get_running_loop().time() - push_batch.started
        if self._add(push_batch.ticket, place, ending, took):
            self._change_session(composed, item, decision)

    def _again(self, verdict: Verdict, attempts: int, begun_at: float) -> RetryAt | GiveUp | None:
        """Return when a refused push is retried; None if it has ended."""
        decision, composed = verdict.decision, verdict.composed
        now, route = self._now(), doubted_route(verdict)
        first_due = composed.starts_at(verdict.item.time_zone)
        if route is not None and route.configuration.stop and decision.doubt is not Suspect.NOBODY:
            # A dead token must not be every probe: other sessions go first.
            more = DEAD_TOKEN_SECONDS if decision.doubt is Suspect.TOKEN else 0
            return while_refused(
                decision,
                first_due=first_due,
                expires_at=composed.expires_at,
                until=composed.app_state.look_again_at(route, now) + more,
                now=now,
            )
        if decision.state != "held":
            return None
        if decision.is_ours and not (decision.is_unknown and composed.expires_at == 0):
            return after_failure(
                decision.detail,
                failures=verdict.item.failures + 1,
                first_due=composed.composed_at,
                expires_at=composed.expires_at,
                now=now,
                rng=self._rng,
            )
        if verdict.is_outage:
            return while_down(
                decision,
                attempts=attempts,
                first_due=first_due,
                expires_at=composed.expires_at,
                now=now,
                rng=self._rng,
            )
        # The wait of a shard for a route is no attempt: its retry period begins with the shard.
        is_waiting = verdict.push_batch.ticket.is_page and decision.reason in WAYLESS
        return next_attempt(
            decision,
            attempts=attempts,
            created_at=first_due if is_waiting else max(first_due, begun_at),
            expires_at=composed.expires_at,
            now=now,
            rng=self._rng,
            service=service_of(verdict.item.gateway),
        )

    def _change_session(self, composed: Composed, item: Item, decision: Decision) -> None:
        session, batch = session_id(item.number), self._batch
        if session is None:
            return
        app, at = composed.app_state.app.id, self._now()
        mail, reason = item.mail, decision.reason or ""
        if decision.state == "sent" and composed.is_of_its_kind(item.gateway):
            batch.accepted_sessions.append(session)
        if decision.moves_to is not None:
            batch.moved[session] = decision.moves_to
            self._events.append(
                SessionMoved(app=app, at=at, session_id=session, environment=decision.moves_to)
            )
        if decision.closes:
            batch.gone[session] = (decision.gone_since, reason)
            self._events.append(
                SessionClosed(
                    app=app,
                    at=at,
                    session_id=session,
                    mail=mail,
                    reason=reason,
                    service=item.gateway,
                )
            )
        if decision.quarantines:
            batch.refused[session] = reason
            self._events.append(
                SessionQuarantined(
                    app=app,
                    at=at,
                    session_id=session,
                    mail=mail,
                    reason=reason,
                    service=item.gateway,
                )
            )

    def hold_all(self, ticket: Ticket, places: Iterable[int], reason: str, until: float) -> None:
        """Hold deliveries until an instant (UNIX seconds); no attempt is made meanwhile."""
        now = self._now()
        # The wait does not count towards the retry period.
        more = int(max(0.0, until - now) * 1000)
        ended = ticket.end(places)
        self._keep(
            ticket,
            ended,
            [
                ending_of(
                    ticket.composed[place],
                    item := ticket.items[place],
                    "held",
                    item.environment,
                    now,
                    reason=reason,
                    due_at=until,
                    begun_at=None if item.begun_at is None else item.begun_at + more,
                    failures=item.failures,
                )
                for place in ended
            ],
        )

    def hold_stopped(self, ticket: Ticket, places: Iterable[int], route: Route) -> None:
        """Hold deliveries while a circuit on their route is open, within their retry period."""
        now = self._now()
        if route.configuration.stop is not None:
            reason, until = "CircuitOpen", ticket.app_state.look_again_at(route, now)
        else:
            reason, until = SERVICE_DOWN, next_outage_check(now, self._rng)
        for place in places:
            composed, item = ticket.composed[place], ticket.items[place]
            again = while_stopped(
                reason=reason,
                first_due=composed.starts_at(item.time_zone),
                expires_at=composed.expires_at,
                until=until,
                now=now,
            )
            if isinstance(again, RetryAt):
                self.hold_all(ticket, [place], reason, again.at)
            else:
                self.end(ticket, place, again.state, reason, detail=again.detail)

    def hold_in_turn(self, ticket: Ticket, places: Iterable[int], start: float) -> float:
        """Hold each delivery until its turn under the app's rate limit, to avoid vain checks.

        Returns until when the last one is held.
        """
        rate, until = ticket.app_state.rules.rate, start
        for place in places:
            self.hold_all(ticket, [place], "RateLimit", until)
            until += 0.0 if rate is None else 1 / rate.per_second
        return until

    def end(
        self, ticket: Ticket, place: int, state: State, reason: str, *, detail: str | None = None
    ) -> None:
        """End a delivery that is not sent, or not once more after an attempt without an answer."""
        item = ticket.items[place]
        if item.is_repeat:
            detail = detail or MAY_HAVE_ARRIVED
        self._add(
            ticket,
            place,
            ending_of(
                ticket.composed[place],
                item,
                state,
                item.environment,
                self._now(),
                reason=reason,
                detail=detail,
            ),
        )

    def _add(self, ticket: Ticket, place: int, ending: Ending, took: float = 0.0) -> bool:
        """Collect the row of a delivery; False if it had ended before."""
        if not ticket.end((place,)):
            return False
        self._keep(ticket, [place], [ending], took)
        return True

    def _keep(
        self, ticket: Ticket, places: Sequence[int], endings: Sequence[Ending], took: float = 0.0
    ) -> None:
        """Keep what rows are to say; when what is held is sent again say those who have it."""
        self.reported.set()
        is_lost, now, is_heard = ticket.snapshot.is_lost, self._now(), bool(self._hooks)
        for place, ending in zip(places, endings, strict=True):
            if is_lost and ending.state == "held":
                continue
            self._batch.endings.append(ending)
            # Webhooks get failures, whether or not there are other listeners.
            if is_heard or ending.state not in _UNTOLD:
                composed, item = ticket.composed[place], ticket.items[place]
                self._events.append(event_of(composed, item, ending, now, took))

    def take_back(self, ticket: Ticket, place: int) -> None:
        """End a delivery that was cancelled before it was sent."""
        if ticket.snapshot.is_lost:
            self._leave(ticket, place)
        else:
            self.end(ticket, place, "cancelled", "SessionClosed")

    def lose(self) -> None:
        """Drop what waits: the worker counted as dead, and others have it."""
        self._batch.resting_shards.clear()
        self._in_flight.leave_waiting()
        self.reported.set()

    def _leave(self, ticket: Ticket, place: int) -> None:
        """Leave a delivery's row unchanged: others have it, or it is released at the stop."""
        ticket.end((place,))
        self.reported.set()

    async def judge_doubted(self, users_of: SessionUsers) -> None:
        """Settle doubtful outcomes, once they can be judged or no more answers are expected."""
        await self._judge.judge_doubted(users_of)
        if self._judge.is_waiting:
            # Its events count once it is cut; no further report is accepted.
            self.reported.set()

    def cut(self, note_progress: Callable[[Batch], None]) -> Cut:
        """Return what is to be written now, and start a new batch.

        ``note_progress`` adds the progress of shards up to then.
        """
        batch, self._batch = self._batch, Batch()
        events, self._events = self._events, []
        push_batches, self._sent_batches = self._sent_batches, []
        for push_batch in push_batches:
            self._cut_sent(push_batch, batch, events)
        note_progress(batch)
        return batch, events, self._in_flight.cut()

    def _cut_sent(self, push_batch: PushBatch, batch: Batch, events: list[Event]) -> None:
        ticket, route = push_batch.ticket, push_batch.route
        gateway, places = push_batch.way.gateway, push_batch.cut()
        is_probe = any(map(ticket.is_probe, places[:1]))
        if not (sent := ticket.end(places)):
            return
        by_notification, items = ticket.by_notification(sent), ticket.items
        for composed, mine in by_notification:
            numbers = [items[place].number for place in mine]
            key = (composed.row, gateway, push_batch.environment, composed.urgency)
            batch.sent.setdefault(key, []).extend(numbers)
            if not ticket.is_page and composed.is_of_its_kind(gateway):
                batch.accepted_sessions += [one for one in numbers if one < ADDRESSED]
        if route is not None:
            self._judge.accept(
                route, ticket.app_state, len(sent), push_batch.heard_at, is_probe=is_probe
            )
        if self._hooks:
            ids = tuple(dict.fromkeys(composed.id for composed, _ in by_notification))
            events.append(sent_event(push_batch, ids, len(sent), self._now()))
