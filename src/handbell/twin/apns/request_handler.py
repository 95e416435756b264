"""Answer requests: by the rules, or as an injected fault demands."""

import json
from dataclasses import replace
from typing import Any, Final
from uuid import uuid4

from handbell.services.apns.protocol import (
    APNS_ID,
    APNS_ID_PATTERN,
    APNS_PUSH_TYPE,
    APNS_UNIQUE_ID,
    PUSH_TYPES,
)
from handbell.services.apns.reasons import REASONS
from handbell.twin.certificates import read_client_certificate
from handbell.twin.faults import ANSWERING, Fault, FaultPlan
from handbell.twin.phone import Phone, StoredPush
from handbell.twin.reception import Reception
from handbell.twin.wire.exchange import Request, TwinExchange, TwinResponse
from handbell.twin.wire.side import Side

from . import rules
from .phone import Push, arrive, deliver_stored
from .responses import GONE, fault_answer, make_answer

FIRST_STREAMS: Final = 1
"""Concurrent streams until a valid provider token was posted (sending-notification-requests)."""
STREAMS: Final = 1000
"""Concurrent streams from then on; Apple states no number, 1000 is what clients have observed."""
_OK: Final = 200


class ApnsSide(Side):
    """One side of APNs, ``production`` or ``development``: HTTP/2 alone, as Apple's servers.

    They accept it also without ALPN, as pushy and aioapns connect.
    """

    speaks_http1 = False

    def __init__(self, name: str, handler: "RequestHandler") -> None:
        self.name = name
        self._handler = handler

    def connect(self, certificate: bytes | None) -> rules.ClientConnection:
        """Return the connection's state: its client certificate, if it has one."""
        read = None if certificate is None else read_client_certificate(certificate)
        return rules.ClientConnection(side=self.name, certificate=read)

    def handle(
        self, request: Request, memory: rules.ClientConnection
    ) -> tuple[TwinExchange, rules.ClientConnection]:
        """Return the answer, and the connection's state afterwards."""
        return self._handler.handle(request, memory)

    def streams(self, memory: rules.ClientConnection) -> int:
        """Return 1 until the client has proved who it is, then what Apple allows."""
        return STREAMS if memory.is_authenticated else FIRST_STREAMS

    def farewell(self, reason: str) -> bytes:
        """Return the reason as JSON, as Apple does (handling-notification-responses)."""
        return json.dumps({"reason": reason}, separators=(",", ":")).encode()


class RequestHandler:
    """Answers the requests of both sides, and delivers accepted pushes to the phones."""

    def __init__(self, world: rules.RuleState, reception: Reception, *, faults: FaultPlan) -> None:
        self._world = world
        self._reception = reception
        self._faults = faults

    def handle(
        self, request: Request, connection: rules.ClientConnection
    ) -> tuple[TwinExchange, rules.ClientConnection]:
        """Return the answer to a request, and the connection's state afterwards."""
        fault = self._faults.take(connection.side, rules.device_token(request))
        if fault is not None and not fault.is_processed:
            return self._strike(request, connection, fault), connection
        outcome, connection = rules.judge(request, connection, self._world)
        if isinstance(outcome, Push):
            exchange = self._accept(request, connection, outcome, fault)
        else:
            exchange = self._refuse(request, connection, outcome, fault)
        return exchange, connection

    def deliver_stored(self, phone: Phone, push: StoredPush) -> None:
        """Deliver a push that was stored for a phone while it was off."""
        arrival = deliver_stored(phone, push, self._world.now())
        push_id = push.apns_id if isinstance(push, Push) else ""
        self._reception.deliver(phone, push_id, arrival)

    def _strike(
        self, request: Request, connection: rules.ClientConnection, fault: Fault
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
            push_id=_given_id(request),
            verdict=f"A fault on demand: {fault.kind}. The push was not processed.",
            what="fault",
            fault=fault.kind,
        )
        if answer is not None and answer.status == GONE and self._is_of_its_kind(request):
            self._lose(rules.device_token(request) or "", answer)
        return TwinExchange(answer, fault)

    def _is_of_its_kind(self, request: Request) -> bool:
        """Return whether the push type fits the token's kind."""
        device = self._reception.devices.device(rules.device_token(request) or "")
        push_type = PUSH_TYPES.get(request.header(APNS_PUSH_TYPE) or "")
        return device is None or push_type is None or push_type.address_kind == device.phone.kind

    def _lose(self, token: str, answer: TwinResponse) -> None:
        """Remove the app from the phone, as a client that got 410 assumes."""
        stamp = json.loads(answer.body).get("timestamp") if answer.body else None
        self._reception.lose(token, int(stamp or self._world.now() * 1000))

    def _accept(
        self,
        request: Request,
        connection: rules.ClientConnection,
        push: Push,
        fault: Fault | None,
    ) -> TwinExchange:
        push = push if push.apns_id else replace(push, apns_id=str(uuid4()))
        answer = make_answer(_OK, push.apns_id, connection.side, self._world.now())
        self._reception.accept(push.token, push.apns_id)
        phone = self._reception.devices.of_token(push.token)
        arrival = arrive(phone, push, self._world.now())
        self._record(
            request,
            connection,
            status=None if fault and fault.delivers else _OK,
            push_id=push.apns_id,
            unique_id=answer.header(APNS_UNIQUE_ID),
            verdict=arrival.why,
            what=arrival.what,
            fault=fault.kind if fault else None,
        )
        self._reception.deliver(phone, push.apns_id, arrival)
        return TwinExchange(answer, fault)

    def _refuse(
        self,
        request: Request,
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
            push_id=answer.header(APNS_ID),
            verdict=refused.why,
            what="refused",
            fault=fault.kind if fault else None,
        )
        return TwinExchange(answer, fault)

    def _record(self, request: Request, connection: rules.ClientConnection, **result: Any) -> None:
        token = rules.device_token(request)
        self._reception.record(request, connection.side, token=token, **result)


def _given_id(request: Request) -> str | None:
    given = request.header(APNS_ID)
    return given if given and APNS_ID_PATTERN.fullmatch(given) else None
