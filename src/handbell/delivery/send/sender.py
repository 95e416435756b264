"""From deliveries to gateways: batches go out, and what is on its way is known."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from types import MappingProxyType
from typing import Any, Final, NamedTuple, cast

from handbell.delivery.delivery import GatewayName
from handbell.delivery.ids import apns_ids
from handbell.delivery.policy.decision import Decision, FirstAnswer
from handbell.delivery.queue.heartbeat import Heartbeat
from handbell.delivery.record.judge import Verdict
from handbell.delivery.record.settle import Astray, Settlement
from handbell.delivery.work.in_flight import Ticket
from handbell.delivery.work.push_batch import Item, Portion, PushBatch
from handbell.delivery.work.release_log import ReleaseLog
from handbell.delivery.work.routes import Route
from handbell.errors import HandbellError, TwinError
from handbell.gateways.gateway import Gateway, Message, Outcome, Push, Report
from handbell.registry.session import Environment

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
"""Why a delivery ends whose session does not take anything any more, by the session's status."""


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

    async def send(self, ticket: Ticket, portions: Sequence[Portion]) -> None:
        """Send deliveries of one ticket, handed over by it; return when each was reported."""
        gateways = _by_way(ticket, portions)
        await asyncio.gather(*(self._send_batches(way.name, gateways[way]) for way in gateways))

    async def send_batch(self, name: GatewayName, push_batch: PushBatch) -> None:
        """Send a batch that stands for itself, and return when each was reported."""
        await self._send_batches(name, [push_batch])

    async def _send_batches(self, name: GatewayName, push_batches: Sequence[PushBatch]) -> None:
        """Send batches that go the same way, by one call of its gateway."""
        try:
            await self._heartbeat.hold_lease()
            gateway = await self._gateways.find(
                push_batches[0].composed, name, push_batches[0].environment
            )
            gateway.require(self._heartbeat.lease.holds)
            for push_batch in push_batches:
                if push_batch.ticket.snapshot.is_concerned:
                    self._take_back(push_batch)
                push_batch.route = self._gateways.route_of(
                    push_batch.composed, name, push_batch.environment, gateway
                )
                if push_batch.route is not None and push_batch.route.stop is not None:
                    self._hold_stopped(push_batch, push_batch.route)
            self._out.update(dict.fromkeys(push_batches, gateway))
            # From the look at the releases to the gateway's own list nothing else has its turn.
            await gateway.send(*self._handed(push_batches))
            self._note_silence(push_batches)
        except HandbellError as error:
            # A gateway raises before anything is sent, or not at all.
            for push_batch in push_batches:
                self._note_no_way(push_batch, error)
        except Exception as error:  # noqa: BLE001 - nothing may be left without an end
            _log.exception("Gateway failed; unanswered pushes will be sent again")
            for push_batch in push_batches:
                self._book.interrupt(push_batch, push_batch.give_up(), error)
        finally:
            for push_batch in push_batches:
                self._out.pop(push_batch, None)
                push_batch.close()

    def _handed(self, push_batches: Sequence[PushBatch]) -> tuple[list[Push], Report]:
        """Return the pushes of batches, and what is told of the end of each."""
        book = self._book
        if len(push_batches) == 1:
            return _pushes(push_batches[0]), partial(book.report, push_batches[0])
        pushes: list[Push] = []
        batch_of: dict[str, PushBatch] = {}
        for push_batch in push_batches:
            made = _pushes(push_batch)
            pushes += made
            for push in made:
                batch_of[push.apns_id] = push_batch

        def report(push: Push, outcome: Outcome) -> None:
            book.report(batch_of[push.apns_id], push, outcome)

        return pushes, report

    def _note_silence(self, push_batches: Sequence[PushBatch]) -> None:
        """Settle what a gateway says it is done with and has not reported, as it must not."""
        for push_batch in push_batches:
            if left := push_batch.give_up():
                _log.error("Gateway left pushes unanswered: pushes=%d", len(left))
                self._book.interrupt(push_batch, left, RuntimeError("no answer"))

    def _take_back(self, push_batch: PushBatch) -> None:
        snapshot = push_batch.ticket.snapshot
        gone = [
            item
            for number, item in push_batch.items.items()
            if snapshot.is_lost or snapshot.is_stale(number)
        ]
        for item in gone:
            del push_batch.items[item.number]
            self._book.take_back(push_batch, item)

    def _hold_stopped(self, push_batch: PushBatch, route: Route) -> None:
        """Hold what a circuit on its way stops: everything but a push that probes it."""
        composed, ticket = push_batch.composed, push_batch.ticket
        stopped = [
            one
            for one in push_batch.items.values()
            if not ticket.is_probe(composed.row, one.number)
        ]
        for item in stopped:
            del push_batch.items[item.number]
            tried = push_batch.tried.get(item.number)
            if tried is None or route.configuration.stop is None:
                self._book.hold_stopped(ticket, composed, [item], route)
            else:
                # The other environment cannot be asked: the first answer stands, and proves nothing
                decision = Decision("failed", reason=tried.reason)
                self._book.settle(Verdict(push_batch, item, decision))

    def readdress(self, astray: Sequence[Astray]) -> Iterator[PushBatch]:
        """Yield batches of what the other environment is to be asked about."""
        groups: dict[tuple[PushBatch, Environment], list[tuple[Item, FirstAnswer]]] = {}
        for push_batch, item, tried, environment in astray:
            groups.setdefault((push_batch, environment), []).append((item, tried))
        loop = asyncio.get_running_loop()
        for (push_batch, environment), members in groups.items():
            yield PushBatch(
                push_batch.ticket,
                push_batch.composed,
                environment,
                {item.number: item for item, _ in members},
                loop.time(),
                tried={item.number: tried for item, tried in members},
                asked_first=push_batch,
            )

    def _note_no_way(self, push_batch: PushBatch, error: HandbellError) -> None:
        reason = no_way_reason(error)
        for number, item in push_batch.items.items():
            tried = push_batch.tried.get(number)
            if tried is not None:
                # The other environment cannot be asked: the first answer stands, and proves nothing
                decision = Decision("failed", reason=tried.reason, detail=error.what)
            else:
                decision = Decision("held", reason=reason, detail=error.what)
            self._book.settle(Verdict(push_batch, item, decision))

    async def release(self, session_ids: Collection[int]) -> None:
        """See :meth:`handbell.delivery.send.worker.Worker.release`."""
        self._release_log.add(session_ids)
        ends = [
            (gateway, number, push_batch.end_of(number))
            for push_batch, gateway in self._out.items()
            for number in session_ids
            if push_batch.is_out(number)
        ]
        self._withdraw({gateway for gateway, _, _ in ends}, {number for _, number, _ in ends})
        await asyncio.gather(*(end for _, _, end in ends))

    def lose(self) -> None:
        """Begin nothing more of what was taken: the worker was taken for dead."""
        self._release_log.lose()
        numbers = {number for push_batch in self._out for number in push_batch.items}
        self._withdraw(set(self._out.values()), numbers)

    def _withdraw(self, gateways: Collection[Gateway], numbers: Collection[int]) -> None:
        for gateway in gateways:
            gateway.withdraw(lambda push: push.key in numbers)


def no_way_reason(error: HandbellError) -> str:
    """Return why a delivery waits for which there is no gateway."""
    return "TwinNotRunning" if isinstance(error, TwinError) else "NoCredential"


class _Way(NamedTuple):
    """What pushes have in common that one call of a gateway can send."""

    name: GatewayName
    environment: Environment
    key: str | None


def _by_way(ticket: Ticket, portions: Sequence[Portion]) -> dict[_Way, list[PushBatch]]:
    started = asyncio.get_running_loop().time()
    push_batches: dict[_Way, list[PushBatch]] = {}
    for composed, items in portions:
        key = None if composed.key is None else composed.key.fingerprint
        gateways = {(item.gateway, item.environment) for item in items}
        for name, environment in gateways:
            part = {
                item.number: item
                for item in items
                if len(gateways) == 1 or (item.gateway, item.environment) == (name, environment)
            }
            push_batch = PushBatch(ticket, composed, environment, part, started)
            push_batches.setdefault(_Way(name, environment, key), []).append(push_batch)
    return push_batches


def _pushes(push_batch: PushBatch) -> list[Push]:
    composed, items = push_batch.composed, push_batch.items
    names = list(map(apns_ids(composed.id), items))
    each = items.values()
    messages: Iterable[Message] = repeat(composed.message)
    if composed.languages is not None:
        messages = map(composed.languages.message_for, [item.locale for item in each])
    collapse_ids = [
        name if item.is_repeat else None for item, name in zip(each, names, strict=True)
    ]
    tokens = [item.token for item in each]
    made = zip(items, tokens, repeat(push_batch.environment), names, messages, collapse_ids)
    return list(map(_push, made))
