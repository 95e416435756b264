"""From deliveries to gateways: parcels go out, and what is on its way is known."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from types import MappingProxyType
from typing import Any, Final, NamedTuple, cast

from handbell.errors import HandbellError, TwinError
from handbell.gateways.gateway import Gateway, Message, Outcome, Push, Report

from .delivery import GatewayName
from .heart import Heart
from .ids import apns_ids
from .in_flight import Ticket
from .judgement import Verdict
from .outcome import Decision, Tried
from .parcels import Item, Parcel, Portion
from .releases import Releases
from .routes import Route
from .settlement import Astray, Settlement
from .ways import Ways

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


class Sender:
    """Hands parcels to the gateways; belongs to one worker and its event loop.

    Their ends go to ``book``. What ``releases`` says of a session counts until the last moment
    before its push is handed over, and nothing goes on the wire unless the lease of the ``heart``
    holds then.
    """

    def __init__(
        self,
        book: Settlement,
        releases: Releases,
        *,
        heart: Heart,
        ways: Ways,
    ) -> None:
        self._book = book
        self._releases = releases
        self._heart = heart
        self._ways = ways
        self._out: dict[Parcel, Gateway] = {}

    async def send(self, ticket: Ticket, portions: Sequence[Portion]) -> None:
        """Send deliveries of one ticket, handed over by it; return when each was reported."""
        ways = _by_way(ticket, portions)
        await asyncio.gather(*(self._send_parcels(way.name, ways[way]) for way in ways))

    async def send_parcel(self, name: GatewayName, parcel: Parcel) -> None:
        """Send a parcel that stands for itself, and return when each was reported."""
        await self._send_parcels(name, [parcel])

    async def _send_parcels(self, name: GatewayName, parcels: Sequence[Parcel]) -> None:
        """Send parcels that go the same way, by one call of its gateway."""
        try:
            await self._heart.hold_lease()
            gateway = await self._ways.find(parcels[0].campaign, name, parcels[0].environment)
            gateway.require(self._heart.lease.holds)
            for parcel in parcels:
                if parcel.ticket.reading.is_concerned:
                    self._take_back(parcel)
                parcel.route = self._ways.route_of(
                    parcel.campaign, name, parcel.environment, gateway
                )
                if parcel.route is not None and parcel.route.stop is not None:
                    self._hold_stopped(parcel, parcel.route)
            self._out.update(dict.fromkeys(parcels, gateway))
            # From the look at the releases to the gateway's own list nothing else has its turn.
            await gateway.send(*self._handed(parcels))
            self._note_silence(parcels)
        except HandbellError as error:
            # A gateway raises before anything is sent, or not at all.
            for parcel in parcels:
                self._note_no_way(parcel, error)
        except Exception as error:  # noqa: BLE001 - nothing may be left without an end
            _log.exception("A gateway failed; what it left without an answer is sent again")
            for parcel in parcels:
                self._book.interrupt(parcel, parcel.give_up(), error)
        finally:
            for parcel in parcels:
                self._out.pop(parcel, None)
                parcel.close()

    def _handed(self, parcels: Sequence[Parcel]) -> tuple[list[Push], Report]:
        """Return the pushes of parcels, and what is told of the end of each."""
        book = self._book
        if len(parcels) == 1:
            return _pushes(parcels[0]), partial(book.report, parcels[0])
        pushes: list[Push] = []
        parcel_of: dict[str, Parcel] = {}
        for parcel in parcels:
            made = _pushes(parcel)
            pushes += made
            for push in made:
                parcel_of[push.apns_id] = parcel

        def report(push: Push, outcome: Outcome) -> None:
            book.report(parcel_of[push.apns_id], push, outcome)

        return pushes, report

    def _note_silence(self, parcels: Sequence[Parcel]) -> None:
        """Settle what a gateway says it is done with and has not reported, as it must not."""
        for parcel in parcels:
            if left := parcel.give_up():
                _log.error("A gateway left %d pushes without an answer", len(left))
                self._book.interrupt(parcel, left, RuntimeError("no answer"))

    def _take_back(self, parcel: Parcel) -> None:
        reading = parcel.ticket.reading
        gone = [
            item
            for number, item in parcel.items.items()
            if reading.is_lost or reading.is_stale(number)
        ]
        for item in gone:
            del parcel.items[item.number]
            self._book.take_back(parcel, item)

    def _hold_stopped(self, parcel: Parcel, route: Route) -> None:
        """Hold what a circuit on its way stops: everything but a push that probes it."""
        campaign, ticket = parcel.campaign, parcel.ticket
        stopped = [
            one for one in parcel.items.values() if not ticket.is_probe(campaign.row, one.number)
        ]
        for item in stopped:
            del parcel.items[item.number]
            tried = parcel.tried.get(item.number)
            if tried is None or route.configuration.stop is None:
                self._book.hold_stopped(ticket, campaign, [item], route)
            else:
                # The other environment cannot be asked: the first answer stands, and proves nothing
                decision = Decision("failed", reason=tried.reason)
                self._book.settle(Verdict(parcel, item, decision))

    def readdress(self, astray: Sequence[Astray]) -> Iterator[Parcel]:
        """Yield parcels of what the other environment is to be asked about."""
        groups: dict[tuple[Parcel, str], list[tuple[Item, Tried]]] = {}
        for parcel, item, tried, environment in astray:
            groups.setdefault((parcel, environment), []).append((item, tried))
        loop = asyncio.get_running_loop()
        for (parcel, environment), members in groups.items():
            yield Parcel(
                parcel.ticket,
                parcel.campaign,
                environment,
                {item.number: item for item, _ in members},
                loop.time(),
                tried={item.number: tried for item, tried in members},
                asked_first=parcel,
            )

    def _note_no_way(self, parcel: Parcel, error: HandbellError) -> None:
        reason = no_way_reason(error)
        for number, item in parcel.items.items():
            tried = parcel.tried.get(number)
            if tried is not None:
                # The other environment cannot be asked: the first answer stands, and proves nothing
                decision = Decision("failed", reason=tried.reason, detail=error.what)
            else:
                decision = Decision("held", reason=reason, detail=error.what)
            self._book.settle(Verdict(parcel, item, decision))

    async def release(self, session_ids: Collection[int]) -> None:
        """See :meth:`handbell.delivery.worker.Worker.release`."""
        self._releases.add(session_ids)
        ends = [
            (gateway, number, parcel.end_of(number))
            for parcel, gateway in self._out.items()
            for number in session_ids
            if parcel.is_out(number)
        ]
        self._withdraw({gateway for gateway, _, _ in ends}, {number for _, number, _ in ends})
        await asyncio.gather(*(end for _, _, end in ends))

    def lose(self) -> None:
        """Begin nothing more of what was taken: the worker was taken for dead."""
        self._releases.lose()
        numbers = {number for parcel in self._out for number in parcel.items}
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
    environment: str
    key: str | None


def _by_way(ticket: Ticket, portions: Sequence[Portion]) -> dict[_Way, list[Parcel]]:
    started = asyncio.get_running_loop().time()
    parcels: dict[_Way, list[Parcel]] = {}
    for campaign, items in portions:
        key = None if campaign.key is None else campaign.key.fingerprint
        ways = {(item.gateway, item.environment) for item in items}
        for name, environment in ways:
            part = {
                item.number: item
                for item in items
                if len(ways) == 1 or (item.gateway, item.environment) == (name, environment)
            }
            parcel = Parcel(ticket, campaign, environment, part, started)
            parcels.setdefault(_Way(name, environment, key), []).append(parcel)
    return parcels


def _pushes(parcel: Parcel) -> list[Push]:
    campaign, items = parcel.campaign, parcel.items
    names = list(map(apns_ids(campaign.id), items))
    each = items.values()
    messages: Iterable[Message] = repeat(campaign.message)
    if campaign.languages is not None:
        messages = map(campaign.languages.message_for, [item.locale for item in each])
    collapse_ids = [
        name if item.is_repeat else None for item, name in zip(each, names, strict=True)
    ]
    tokens = [item.token for item in each]
    made = zip(items, tokens, repeat(parcel.environment), names, messages, collapse_ids)
    return list(map(_push, made))
