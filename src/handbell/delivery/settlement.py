"""From reports to rows: what came back is judged, gathered, and cut into batches to be written."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final, NamedTuple

from handbell.gateways.gateway import Accepted, Outcome, Push, Withdrawn

from .batch import Batch, Ending
from .campaign import Campaign
from .due import session_id
from .endings import ending_of, event_of, sent_event
from .events import (
    CircuitClosed,
    CircuitOpened,
    Event,
    Hooks,
    SessionClosed,
    SessionMoved,
    SessionQuarantined,
)
from .in_flight import Ended, InFlight, Ticket
from .lane import Lane
from .outcome import Decision, Doubt, Tried, decide
from .parcels import Broadcast, Item, Parcel, Portion
from .retry import GiveUp, SendAgain, next_attempt, while_stopped
from .rules import Stop

DEAD_TOKEN_SECONDS: Final = 15 * 60
"""How much longer a refused token waits while its app's circuit is open."""

_DOUBT_SECONDS: Final = 1.0
_UNTOLD: Final = frozenset({"sent", "held"})

_log = logging.getLogger(__name__)


class Cut(NamedTuple):
    """What is written in one transaction, what is told afterwards, and whose ends these are."""

    batch: Batch
    events: list[Event]
    ended: list[Ended]


class Astray(NamedTuple):
    """A push that the other environment is to be asked about."""

    parcel: Parcel
    item: Item
    tried: Tried
    environment: str


@dataclass(slots=True)
class _Doubts:
    """Refused tokens of one app that nobody can judge yet, and since when by the loop's clock."""

    since: float
    waiting: list[tuple[Parcel, Item, Decision, Tried | None]] = field(default_factory=list)


class Settlement:
    """Gathers the ends of pushes until they are written; belongs to one worker and its event loop.

    ``reported`` is set when there is something to do, ``astray`` are the pushes to be sent to the
    other environment. ``write_stop`` is told when a circuit opens or closes, and writes it.
    """

    def __init__(
        self,
        in_flight: InFlight,
        *,
        hooks: Hooks,
        now: Callable[[], float],
        rng: Random,
        write_stop: Callable[[str, Stop | None], None],
    ) -> None:
        self.reported = asyncio.Event()
        self.astray: list[Astray] = []
        self._hooks = hooks
        self._now = now
        self._rng = rng
        self._write_stop = write_stop
        self._in_flight = in_flight
        self._batch = Batch()
        self._events: list[Event] = []
        self._sent_parcels: list[Parcel] = []
        self._doubtful: dict[str, _Doubts] = {}

    @property
    def unwritten(self) -> int:
        """How many pushes have ended and are not written down yet."""
        return self._in_flight.load.ended + sum(len(one.sent) for one in self._sent_parcels)

    def write_ending(self, ending: Ending) -> None:
        """Write an ending that belongs to no campaign."""
        self._batch.endings.append(ending)
        self.reported.set()

    def rest_shard(self, shard: int, until: float) -> None:
        """Give a shard back, to go on at an instant (UNIX seconds)."""
        self._batch.resting_shards[shard] = int(until * 1000)
        self.reported.set()

    def report(self, parcel: Parcel, push: Push, outcome: Outcome) -> None:
        """Take one end of one push, as a gateway reports it."""
        if (
            outcome.__class__ is Accepted
            and parcel.is_plain
            and (parcel.ticket.is_page or outcome.unique_id is None)
        ):
            # The hot path, for each push of a broadcast: nothing is called that can be counted.
            if not parcel.sent:
                parcel.heard_at = asyncio.get_running_loop().time()
                self._sent_parcels.append(parcel)
                self.reported.set()
            parcel.sent.append(push.key)
            return
        if parcel.is_over_for(push.key):
            return
        item = parcel.items[push.key]
        try:
            if isinstance(outcome, Withdrawn):
                self.take_back(parcel, item)
            else:
                self._judge(parcel, item, outcome)
        except Exception as error:  # noqa: BLE001 - nothing may be left without an end
            _log.exception("Could not classify a push service's answer: %r", outcome)
            self.interrupt(parcel, [item], error)
        parcel.note_end(push.key)

    def interrupt(self, parcel: Parcel, items: Sequence[Item], error: Exception) -> None:
        """Settle pushes that may have arrived, and of which nothing further will be heard."""
        detail = f"a mistake of Handbell's or of a gateway's: {type(error).__name__}"
        decision = Decision("held", reason="Interrupted", detail=detail, is_unknown=True)
        lane = parcel.campaign.lane
        for item in items:
            if parcel.ticket.is_probe(parcel.campaign.row, item.number) and lane.note_unclear(
                self._now(), self._rng
            ):
                self._write_stop(lane.app.id, lane.stop)
            self.settle(parcel, item, decision, parcel.tried.get(item.number))

    def _judge(self, parcel: Parcel, item: Item, outcome: Outcome) -> None:
        tried = parcel.tried.get(item.number)
        decision = decide(outcome, parcel.environment, tried)
        lane, now = parcel.campaign.lane, self._now()
        if decision.state == "sent":
            self._note_accepted(lane, 1)
        elif lane.note(decision, now, self._rng):
            self._tell_stopped(lane)
        elif decision.environment is None and lane.note_unclear(now, self._rng):
            self._write_stop(lane.app.id, lane.stop)
        if decision.environment is not None:
            aside = Tried(parcel.environment, decision.reason or "")
            self.astray.append(Astray(parcel, item, aside, decision.environment))
            self.reported.set()
        elif decision.doubt is Doubt.TOKEN and not lane.is_trusted:
            since = asyncio.get_running_loop().time()
            self._doubtful.setdefault(lane.app.id, _Doubts(since)).waiting.append(
                (parcel, item, decision, tried)
            )
            self.reported.set()
        else:
            self.settle(parcel, item, decision, tried)

    def _note_accepted(self, lane: Lane, count: int) -> None:
        if lane.note_accepted(count):
            self._events.append(CircuitClosed(app=lane.app.id, at=self._now()))
            self._write_stop(lane.app.id, None)

    def _tell_stopped(self, lane: Lane) -> None:
        stop = lane.stop
        if stop is None:
            return
        self._write_stop(lane.app.id, stop)
        self._events.append(
            CircuitOpened(
                app=lane.app.id,
                at=self._now(),
                reason=stop.reason,
                detail=stop.detail,
                probe_at=stop.probe_at,
            )
        )

    def settle(
        self, parcel: Parcel, item: Item, decision: Decision, tried: Tried | None = None
    ) -> None:
        """Turn a decision into what the rows are to say."""
        try:
            self._settle(parcel, item, decision, tried)
        except Exception:  # noqa: BLE001 - nothing may be left without an end
            _log.exception("Could not settle delivery %d of %s", item.number, parcel.campaign.id)
            self._leave(parcel.ticket, parcel.campaign, item)

    def _settle(self, parcel: Parcel, item: Item, decision: Decision, tried: Tried | None) -> None:
        campaign, lane, now = parcel.campaign, parcel.campaign.lane, self._now()
        attempts = item.attempts + 1 + (tried is not None)
        is_repeat = item.is_repeat or decision.is_unknown
        state, due_at, detail = decision.state, None, decision.detail
        begun_at = int(now * 1000) if item.begun_at is None else item.begun_at
        again: SendAgain | GiveUp | None = None
        if lane.stop is not None and decision.doubt is not Doubt.NOBODY:
            # A dead token must not be every probe: others go first.
            more = DEAD_TOKEN_SECONDS if decision.doubt is Doubt.TOKEN else 0
            again = while_stopped(
                reason=decision.reason,
                first_due=campaign.starts_at(item.time_zone),
                expires_at=campaign.expires_at,
                until=lane.resume_at(now) + more,
                now=now,
            )
        elif state == "held":
            again = next_attempt(
                decision,
                attempts=attempts,
                created_at=max(campaign.starts_at(item.time_zone), begun_at / 1000),
                expires_at=campaign.expires_at,
                now=now,
                rng=self._rng,
            )
        match again:
            case SendAgain():
                state, due_at = "held", again.at
                is_repeat = is_repeat or again.needs_collapse_id
            case GiveUp():
                state, detail = again.state, again.detail
        ending = ending_of(
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
            begun_at=begun_at,
        )
        took = asyncio.get_running_loop().time() - parcel.started
        if self._add(parcel.ticket, campaign, item, ending, took):
            self._change_session(campaign, item, decision)

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

    def hold_all(
        self,
        ticket: Ticket,
        campaign: Campaign,
        items: Sequence[Item],
        reason: str,
        until: float,
    ) -> None:
        """Hold deliveries until an instant (UNIX seconds)."""
        for item in items:
            self.hold(ticket, campaign, item, reason, until)

    def hold(
        self, ticket: Ticket, campaign: Campaign, item: Item, reason: str, until: float
    ) -> None:
        """Hold a delivery until an instant (UNIX seconds); no attempt is made meanwhile."""
        now = self._now()
        begun_at = item.begun_at
        if begun_at is not None:
            # The wait is not the retries' own time.
            begun_at += int(max(0.0, until - now) * 1000)
        ending = ending_of(
            campaign,
            item,
            "held",
            item.environment,
            now,
            reason=reason,
            due_at=until,
            begun_at=begun_at,
        )
        self._add(ticket, campaign, item, ending)

    def hold_stopped(self, ticket: Ticket, campaign: Campaign, items: Sequence[Item]) -> None:
        """Hold deliveries while the app's circuit is open, but not beyond their time."""
        now = self._now()
        until = campaign.lane.resume_at(now)
        for item in items:
            again = while_stopped(
                reason="CircuitOpen",
                first_due=campaign.starts_at(item.time_zone),
                expires_at=campaign.expires_at,
                until=until,
                now=now,
            )
            if isinstance(again, SendAgain):
                self.hold(ticket, campaign, item, "CircuitOpen", again.at)
            else:
                self.end(ticket, campaign, item, again.state, "CircuitOpen", detail=again.detail)

    def hold_in_turn(self, ticket: Ticket, portions: Sequence[Portion], start: float) -> None:
        """Hold each until the app's rate has come to it, so that few are looked at in vain."""
        until = start
        for campaign, items in portions:
            rate = campaign.lane.rules.rate
            for item in items:
                self.hold(ticket, campaign, item, "RateLimit", until)
                until += 0.0 if rate is None else 1 / rate.per_second

    def end(
        self,
        ticket: Ticket,
        campaign: Campaign,
        item: Item,
        state: str,
        reason: str,
        *,
        detail: str | None = None,
    ) -> None:
        """End a delivery that is not sent at all."""
        ending = ending_of(
            campaign, item, state, item.environment, self._now(), reason=reason, detail=detail
        )
        self._add(ticket, campaign, item, ending)

    def _add(
        self,
        ticket: Ticket,
        campaign: Campaign,
        item: Item,
        ending: Ending,
        took: float = 0.0,
    ) -> bool:
        """Keep what a delivery's row is to say; False where it had ended before."""
        if not ticket.end(campaign.row, (item.number,)):
            return False
        if ending.state == "held" and ticket.reading.is_lost:
            # When it is sent again is for those to say who have it now.
            self.reported.set()
            return True
        self._batch.endings.append(ending)
        self.reported.set()
        # Of what failed webhooks are told, whether or not anybody else listens.
        if self._hooks or ending.state not in _UNTOLD:
            self._events.append(event_of(campaign, item, ending, self._now(), took))
        return True

    def take_back(self, parcel: Parcel, item: Item) -> None:
        """End a delivery that was taken back before it was sent."""
        if parcel.ticket.reading.is_lost:
            self._leave(parcel.ticket, parcel.campaign, item)
        else:
            self.end(parcel.ticket, parcel.campaign, item, "cancelled", "SessionClosed")

    def lose(self) -> None:
        """Let go of what waits: the worker was taken for dead, and others have it by now."""
        self._batch.resting_shards.clear()
        self._in_flight.leave_waiting()
        self.reported.set()

    def _leave(self, ticket: Ticket, campaign: Campaign, item: Item) -> None:
        """Leave a delivery as its row is: others have it, or it comes back at the stop."""
        ticket.end(campaign.row, (item.number,))
        self.reported.set()

    def judge_doubtful(self) -> None:
        """Settle refused tokens once the answers speak for the configuration, or against it."""
        for app_id, doubts in list(self._doubtful.items()):
            lane = doubts.waiting[0][0].campaign.lane
            is_idle = lane.load.handed <= len(doubts.waiting)
            is_old = asyncio.get_running_loop().time() - doubts.since > _DOUBT_SECONDS
            if lane.stop is not None or lane.is_trusted or is_idle or is_old:
                del self._doubtful[app_id]
                for parcel, item, decision, tried in doubts.waiting:
                    self.settle(parcel, item, _judged(decision, lane), tried)
        if self._doubtful:
            # What came with them counts once it is cut, and nothing more may be heard.
            self.reported.set()

    def cut(self, broadcasts: list[Broadcast]) -> Cut:
        """Return what is to be written now, and begin anew."""
        batch, self._batch = self._batch, Batch()
        events, self._events = self._events, []
        parcels, self._sent_parcels = self._sent_parcels, []
        for parcel in parcels:
            self._cut_sent(parcel, batch, events)
        _finish_pages(broadcasts, batch)
        return Cut(batch, events, self._in_flight.cut())

    def _cut_sent(self, parcel: Parcel, batch: Batch, events: list[Event]) -> None:
        campaign = parcel.campaign
        sent = parcel.ticket.end(campaign.row, parcel.cut())
        if not parcel.ticket.is_page:
            batch.accepted_sessions += [one for one in sent if session_id(one) is not None]
        key = (campaign.row, parcel.environment, campaign.urgency)
        batch.sent.setdefault(key, []).extend(sent)
        self._note_accepted(campaign.lane, len(sent))
        if self._hooks:
            events.append(sent_event(parcel, len(sent), self._now()))


def _finish_pages(broadcasts: list[Broadcast], batch: Batch) -> None:
    """Note how far each shard is written: all of its oldest pages that have ended."""
    for broadcast in list(broadcasts):
        shard, pages = broadcast.shard, broadcast.pages
        while pages and pages[0].has_ended:
            batch.positions[shard.id] = pages.popleft().end
        if broadcast.is_read and not pages:
            batch.positions.pop(shard.id, None)
            batch.finished_shards.append(shard.id)
            broadcasts.remove(broadcast)


def _judged(decision: Decision, lane: Lane) -> Decision:
    if decision.reason == "DeviceTokenNotForTopic" and not lane.accepted:
        # A token of another app looks like a wrong bundle id, until something arrives.
        return replace(decision, quarantines=False)
    return decision
