"""Answer requests: by the rules, or as an injected fault demands."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Final
from uuid import uuid4

from handbell.gateways.apns.protocol import (
    APNS_ID,
    APNS_ID_PATTERN,
    APNS_PUSH_TYPE,
    APNS_UNIQUE_ID,
    PUSH_TYPES,
    REASONS,
)

from . import rules
from .device_store import DeviceStore
from .faults import ANSWERING, Fault, FaultPlan
from .history import History, PushCounts, ReceivedRequest
from .hooks import call
from .phone import Arrival, Card, Phone, Push, arrive
from .responses import GONE, TwinExchange, TwinResponse, fault_answer, make_answer

_OK: Final = 200


class RequestHandler:
    """Answers the requests of both sides, and delivers accepted pushes to the phones.

    ``total`` counts the pushes that were accepted; ``accepted`` and ``shown`` count them by token
    and ``apns-id``. ``on_displayed`` is called for each shown card.
    """

    def __init__(
        self,
        world: rules.RuleState,
        device_store: DeviceStore,
        *,
        faults: FaultPlan,
        history: History,
        on_displayed: Callable[[Phone, Card], object],
    ) -> None:
        self.total = 0
        self.accepted, self.shown = PushCounts(), PushCounts()
        self._world = world
        self._device_store = device_store
        self._faults = faults
        self._history = history
        self._on_displayed = on_displayed

    def handle(
        self, request: rules.Request, connection: rules.ClientConnection
    ) -> tuple[TwinExchange, rules.ClientConnection]:
        """Return the answer to a request, and the connection's state afterwards."""
        fault = self._faults.take(connection.side, request.device_token)
        if fault is not None and not fault.is_processed:
            return self._strike(request, connection, fault), connection
        outcome, connection = rules.judge(request, connection, self._world)
        if isinstance(outcome, Push):
            exchange = self._accept(request, connection, outcome, fault)
        else:
            exchange = self._refuse(request, connection, outcome, fault)
        return exchange, connection

    def show(self, arrival: Arrival, push: Push) -> None:
        """Count and report a push that was shown."""
        if arrival.card is not None:
            self.shown.add(push.token, push.apns_id)
            call(self._on_displayed, arrival.phone, arrival.card)

    def _strike(
        self, request: rules.Request, connection: rules.ClientConnection, fault: Fault
    ) -> TwinExchange:
        """Return the result of a request that a fault affects."""
        answer = (
            fault_answer(fault, _given_id(request), connection.side, self._world.now())
            if fault.kind in ANSWERING
            else None
        )
        self._record(
            request,
            connection,
            status=answer.status if answer else None,
            reason=fault.reason,
            apns_id=_given_id(request),
            verdict=f"A fault on demand: {fault.kind}. The push was not processed.",
            what="fault",
            fault=fault.kind,
        )
        if answer is not None and answer.status == GONE and self._is_of_its_kind(request):
            self._lose(request.device_token or "", answer)
        return TwinExchange(answer, fault)

    def _is_of_its_kind(self, request: rules.Request) -> bool:
        """Return whether the push type fits the token's kind."""
        device = self._device_store.device(request.device_token or "")
        push_type = PUSH_TYPES.get(request.header(APNS_PUSH_TYPE) or "")
        return device is None or push_type is None or push_type.address_kind == device.kind

    def _lose(self, token: str, answer: TwinResponse) -> None:
        """Remove the app from the phone, as a client that got 410 assumes."""
        stamp = json.loads(answer.body).get("timestamp") if answer.body else None
        phone = self._device_store.lose(token, int(stamp or self._world.now() * 1000))
        if phone is not None:
            self._history.publish("phone", phone)

    def _accept(
        self,
        request: rules.Request,
        connection: rules.ClientConnection,
        push: Push,
        fault: Fault | None,
    ) -> TwinExchange:
        push = push if push.apns_id else replace(push, apns_id=str(uuid4()))
        answer = make_answer(_OK, push.apns_id, connection.side, self._world.now())
        self.total += 1
        self.accepted.add(push.token, push.apns_id)
        phone = self._device_store.of_token(push.token)
        arrival = arrive(phone, push, self._world.now())
        self._record(
            request,
            connection,
            status=None if fault and fault.delivers else _OK,
            apns_id=push.apns_id,
            unique_id=answer.header(APNS_UNIQUE_ID),
            verdict=arrival.why,
            what=arrival.what,
            fault=fault.kind if fault else None,
        )
        if arrival.phone is not phone:
            self._device_store.put(arrival.phone)
            self._history.publish("phone", arrival.phone)
        self.show(arrival, push)
        return TwinExchange(answer, fault)

    def _refuse(
        self,
        request: rules.Request,
        connection: rules.ClientConnection,
        refused: rules.RuleRefusal,
        fault: Fault | None,
    ) -> TwinExchange:
        status = REASONS[refused.reason].status
        answer = make_answer(
            status,
            _given_id(request),
            connection.side,
            self._world.now(),
            reason=refused.reason,
            timestamp=refused.timestamp,
        )
        self._record(
            request,
            connection,
            status=status,
            reason=refused.reason,
            apns_id=answer.header(APNS_ID),
            verdict=refused.why,
            what="refused",
            fault=fault.kind if fault else None,
        )
        return TwinExchange(answer, fault)

    def _record(
        self,
        request: rules.Request,
        connection: rules.ClientConnection,
        *,
        status: int | None,
        verdict: str,
        what: str,
        reason: str | None = None,
        apns_id: str | None = None,
        unique_id: str | None = None,
        fault: str | None = None,
    ) -> None:
        received = ReceivedRequest(
            id=self._history.next_id(),
            at=int(self._world.now() * 1000),
            side=connection.side,
            phone_id=self._device_store.id_of_token(request.device_token or ""),
            status=status,
            reason=reason,
            apns_id=apns_id,
            unique_id=unique_id,
            verdict=verdict,
            what=what,
            fault=fault,
            request=request,
        )
        self._history.add(received)


def _given_id(request: rules.Request) -> str | None:
    given = request.header(APNS_ID)
    return given if given and APNS_ID_PATTERN.fullmatch(given) else None
