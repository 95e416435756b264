"""From deliveries to gateways: batches are handed over, and pushes in flight are tracked."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final, cast

from handbell.delivery.ids import apns_id, apns_ids
from handbell.delivery.policy.decision import Decision, FirstAnswer
from handbell.delivery.queue.heartbeat import Heartbeat
from handbell.delivery.record.judge import Verdict
from handbell.delivery.record.settle import Settlement
from handbell.delivery.work.push_batch import PushBatch
from handbell.delivery.work.release_log import ReleaseLog
from handbell.delivery.work.routes import Route
from handbell.errors import HandbellError, TwinError
from handbell.gateways.gateway import Gateway, Push
from handbell.services.forms import forms_of

from .gateway_cache import GatewayCache

# A named tuple's own constructor takes several times as long, and there are millions.
_push: Final = cast("Callable[[tuple[Any, ...]], Push]", partial(tuple.__new__, Push))

_log = logging.getLogger(__name__)

WITHOUT_SESSION: Final[Mapping[str | None, str]] = MappingProxyType(
    {
        "closed": "SessionClosed",
        "quarantined": "SessionQuarantined",
        "pending": "SessionPending",
    }
)
"""The reason with which a delivery ends whose session is not active, by its status."""


class PushSender:
    """Hands batches to the gateways; belongs to one worker and its event loop.

    Their ends go to ``book``. What ``release_log`` says of a session counts until the last moment
    before its push is handed over, and nothing goes on the wire unless the lease of the
    ``heartbeat`` holds then.
    """

    def __init__(
        self,
        book: Settlement,
        release_log: ReleaseLog,
        *,
        heartbeat: Heartbeat,
        gateways: GatewayCache,
    ) -> None:
        self._book = book
        self._release_log = release_log
        self._heartbeat = heartbeat
        self._gateways = gateways
        self._out: dict[PushBatch, Gateway] = {}

    async def send(self, push_batch: PushBatch) -> None:
        """Send a batch by one call of its gateway; return when all of it was reported."""
        ticket, way = push_batch.ticket, push_batch.way
        try:
            await self._heartbeat.hold_lease()
            composed = push_batch.first
            gateway = await self._gateways.find(composed, way)
            gateway.require(self._heartbeat.lease.holds)
            if ticket.snapshot.is_concerned:
                self._take_back(push_batch)
            route = push_batch.route = self._gateways.route_of(composed, way, gateway)
            if route is not None and route.stop is not None:
                self._hold_stopped(push_batch, route)
            self._out[push_batch] = gateway
            # No other task runs between the check of the releases and the gateway's own list.
            await gateway.send(_pushes(push_batch), partial(self._book.report, push_batch))
            self._note_silence(push_batch)
        except HandbellError as error:
            # A gateway raises before anything is sent, or not at all.
            self._note_no_way(push_batch, error)
        except Exception as error:  # noqa: BLE001 - nothing may be left without an end
            _log.exception("Gateway failed; unanswered pushes will be sent again")
            self._book.interrupt(push_batch, push_batch.give_up(), error)
        finally:
            self._out.pop(push_batch, None)
            push_batch.close()

    def _note_silence(self, push_batch: PushBatch) -> None:
        """Settle pushes that a gateway returned without a report, which violates its contract."""
        if left := push_batch.give_up():
            _log.error("Gateway left pushes unanswered: pushes=%d", len(left))
            self._book.interrupt(push_batch, left, RuntimeError("no answer"))

    def _take_back(self, push_batch: PushBatch) -> None:
        ticket, snapshot = push_batch.ticket, push_batch.ticket.snapshot
        gone = [
            place
            for place in push_batch.places
            if snapshot.is_lost or snapshot.is_stale(ticket.items[place].number)
        ]
        push_batch.leave_out(gone)
        for place in gone:
            self._book.take_back(ticket, place)

    def _hold_stopped(self, push_batch: PushBatch, route: Route) -> None:
        """Hold what a circuit on its route stops, except a probe."""
        ticket = push_batch.ticket
        stopped = [place for place in push_batch.places if not ticket.is_probe(place)]
        push_batch.leave_out(stopped)
        for place in stopped:
            tried = push_batch.tried.get(place)
            if tried is None or route.configuration.stop is None:
                self._book.hold_stopped(ticket, [place], route)
            else:
                # The other environment cannot be asked: the first answer stands, and proves nothing
                decision = Decision("failed", reason=tried.reason)
                self._book.settle(Verdict(push_batch, place, decision))

    def readdress(self, verdicts: Sequence[Verdict]) -> Iterator[PushBatch]:
        """Yield batches of pushes to try in the other environment."""
        groups: dict[tuple[PushBatch, Any], dict[int, FirstAnswer]] = {}
        for push_batch, place, decision, *_ in verdicts:
            tried = FirstAnswer(push_batch.environment, decision.reason or "")
            environment = decision.environment or push_batch.environment
            groups.setdefault((push_batch, environment), {})[place] = tried
        now = asyncio.get_running_loop().time()
        for (first, environment), tried_by_place in groups.items():
            yield PushBatch(
                first.ticket,
                first.way._replace(environment=environment),
                list(tried_by_place),
                now,
                tried=tried_by_place,
                asked_first=first,
            )

    def _note_no_way(self, push_batch: PushBatch, error: HandbellError) -> None:
        reason = no_way_reason(error)
        for place in push_batch.places:
            tried = push_batch.tried.get(place)
            if tried is not None:
                # The other environment cannot be asked: the first answer stands, and proves nothing
                decision = Decision("failed", reason=tried.reason, detail=error.what)
            else:
                decision = Decision("held", reason=reason, detail=error.what)
            self._book.settle(Verdict(push_batch, place, decision))

    async def release(self, session_ids: Collection[int]) -> None:
        """See :meth:`handbell.delivery.send.worker.Worker.release`."""
        self._release_log.add(session_ids)
        out = [
            (gateway, push_batch, place)
            for push_batch, gateway in self._out.items()
            for place in push_batch.out(session_ids)
        ]
        ends = [push_batch.end_of(place) for _, push_batch, place in out]
        self._withdraw({gateway for gateway, _, _ in out}, {one[1:] for one in out})
        await asyncio.gather(*ends)

    def lose(self) -> None:
        """Begin nothing more of the leased work: the worker counted as dead."""
        self._release_log.lose()
        out = {(push_batch, place) for push_batch in self._out for place in push_batch.places}
        self._withdraw(set(self._out.values()), out)

    def _withdraw(
        self, gateways: Collection[Gateway], out: Collection[tuple[PushBatch, int]]
    ) -> None:
        meant = {_apns_id(push_batch, place) for push_batch, place in out}
        for gateway in gateways:
            gateway.withdraw(lambda push: push.id in meant)


def no_way_reason(error: HandbellError) -> str:
    """Return the hold reason of a delivery without a gateway."""
    return "TwinNotRunning" if isinstance(error, TwinError) else "NoCredential"


def _apns_id(push_batch: PushBatch, place: int) -> str:
    ticket = push_batch.ticket
    return apns_id(ticket.composed[place].id, ticket.items[place].number)


def _pushes(push_batch: PushBatch) -> list[Push]:
    """Return the pushes for the gateway, each keyed by its place in the ticket."""
    of, items = push_batch.ticket.composed, push_batch.ticket.items
    gateway, environment = push_batch.way.gateway, push_batch.environment
    varies = len(forms_of(gateway)) > 1
    made: list[Push] = []
    last: object = None
    details: str | None = None
    for place in push_batch.places:
        composed, item = of[place], items[place]
        if composed is not last or (varies and item.details != details):
            last, name, details = composed, apns_ids(composed.id), item.details
            message, languages = composed.for_device(gateway, details)
        if languages is not None:
            message = languages.message_for(item.locale)
        own = name(item.number)
        collapse_id = own if item.is_repeat else None
        made.append(
            _push((place, item.token, environment, own, message, collapse_id, item.details))
        )
    return made
