"""Answer requests to FCM and to its token endpoint: by the rules, or as a fault demands."""

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from handbell.services.fcm.protocol import TOKEN_URI
from handbell.services.fcm.protocol import URL as FCM_URL
from handbell.twin.device_store import Device, DeviceStore
from handbell.twin.faults import ANSWERING, Fault, FaultPlan
from handbell.twin.phone import Phone, StoredPush
from handbell.twin.reception import Reception
from handbell.twin.sides import OAUTH_SIDE
from handbell.twin.wire.exchange import Request, TwinExchange, TwinResponse

from .accounts import AccessToken, Accounts
from .message import Message
from .oauth import TOKEN_PATH, OAuthRefusalError, describe_form, issue_token, refused_token
from .phone import FcmPush, arrive, deliver_stored, hold
from .quota import Quotas
from .responses import FcmRefusal, fault_answer, json_answer, not_found_page, refusal_answer
from .rules import SEND_PATH, Accepted, judge

FCM_SIDE: Final = "fcm"
_OK: Final = 200
_NOT_FOUND: Final = 404
_GONE: Final = "UNREGISTERED"
_FCM_HOST: Final = FCM_URL.partition("://")[2]
_OAUTH_HOST: Final = TOKEN_URI.partition("://")[2].partition("/")[0]


class FcmHandler:
    """Answers Google's two hosts, and delivers accepted messages to the Android phones.

    One port has both: a request that names one of Google's hosts gets what that host has, and one
    by the twin's own address either. ``accounts`` are the service accounts, ``quotas`` the limits.
    """

    def __init__(
        self,
        reception: Reception,
        *,
        faults: FaultPlan,
        find_account: Callable[[str], Mapping[str, str] | None],
    ) -> None:
        self.accounts = Accounts(find=find_account, now=reception.now)
        self.quotas = Quotas()
        self.token_uri = TOKEN_URI
        self._reception = reception
        self._faults = faults

    # Queries of the rules

    @property
    def devices(self) -> DeviceStore:
        """Return the devices of all tokens."""
        return self._reception.devices

    def now(self) -> float:
        """Return the time by the twin's clock, in UNIX seconds."""
        return self._reception.now()

    def find_token(self, token: str) -> AccessToken | None:
        """Return what an access token stands for."""
        return self.accounts.find_token(token)

    def find_device(self, target: str, value: str) -> Device | None:
        """Return the device of a registration token, or of the installation id before its colon."""
        if target == "token":
            device = self.devices.device(value)
            return device if device is not None and device.phone.service == FCM_SIDE else None
        tokens = (phone.token for phone in self.devices.phones.values() if not phone.is_gone)
        token = next((one for one in tokens if one.partition(":")[0] == value), None)
        return None if token is None else self.find_device("token", token)

    # Requests

    def answer(self, request: Request) -> TwinExchange:
        """Return the answer to a request."""
        host = request.host.partition(":")[0].lower()
        path = request.path.partition("?")[0]
        if path == TOKEN_PATH and request.method == "POST" and host != _FCM_HOST:
            return self._token(request)
        if host == _OAUTH_HOST:
            return TwinExchange(not_found_page(self.now()))
        return self._send(request)

    def deliver_stored(self, phone: Phone, push: StoredPush) -> None:
        """Deliver a message that was stored for a phone while it was off."""
        push_id = push.push_id if isinstance(push, FcmPush) else ""
        self._reception.deliver(phone, push_id, deliver_stored(phone, push, self.now()))

    def _token(self, request: Request) -> TwinExchange:
        shown = replace(request, body=describe_form(request.body))
        fault = self._faults.take(OAUTH_SIDE, None)
        if fault is not None and not fault.is_processed:
            return self._strike(shown, OAUTH_SIDE, None, fault)
        kind = fault.kind if fault else None
        try:
            answer, verdict = issue_token(request, self.accounts, {self.token_uri}, self.now())
        except OAuthRefusalError as refused:
            answer = refused_token(refused, self.now())
            self._reception.record(
                shown,
                OAUTH_SIDE,
                status=answer.status,
                reason=refused.error,
                verdict=refused.why,
                what="refused",
                fault=kind,
            )
            return TwinExchange(answer, fault)
        self._reception.record(
            shown, OAUTH_SIDE, status=answer.status, verdict=verdict, what="token", fault=kind
        )
        return TwinExchange(answer, fault)

    def _send(self, request: Request) -> TwinExchange:
        token = self._target(request)
        fault = self._faults.take(FCM_SIDE, token)
        if fault is not None and not fault.is_processed:
            return self._strike(request, FCM_SIDE, token, fault)
        outcome = judge(request, self)
        if isinstance(outcome, Accepted):
            return self._accept(request, outcome, fault)
        if outcome is None:
            answer, verdict, reason = not_found_page(self.now()), "There is no such path.", None
        else:
            answer, verdict, reason = self._refusal(outcome)
        self._reception.record(
            request,
            FCM_SIDE,
            token=token,
            status=answer.status,
            reason=reason,
            verdict=verdict,
            what="refused",
            fault=fault.kind if fault else None,
        )
        return TwinExchange(answer, fault)

    def _refusal(self, refused: FcmRefusal) -> tuple[TwinResponse, str, str]:
        return refusal_answer(refused, self.now()), refused.why, refused.code

    def _target(self, request: Request) -> str | None:
        """Return the registration token that a request names, if it can be read."""
        if SEND_PATH.fullmatch(request.path) is None:
            return None
        try:
            message = json.loads(request.body)["message"]
            target = "token" if "token" in message else "fid"
            device = self.find_device(target, message[target])
            found = device.phone.token if device is not None else message[target]
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        return found if isinstance(found, str) else None

    def _strike(self, request: Request, side: str, token: str | None, fault: Fault) -> TwinExchange:
        """Return the result of a request that a fault affects."""
        answer = fault_answer(fault, side, self.now()) if fault.kind in ANSWERING else None
        self._reception.record(
            request,
            side,
            token=token,
            status=answer.status if answer else None,
            reason=fault.reason,
            verdict=f"A fault on demand: {fault.kind}. The request was not processed.",
            what="fault",
            fault=fault.kind,
        )
        if answer is not None and (answer.status, fault.reason) == (_NOT_FOUND, _GONE):
            self._reception.lose(token or "", int(self.now() * 1000))
        return TwinExchange(answer, fault)

    def _accept(self, request: Request, accepted: Accepted, fault: Fault | None) -> TwinExchange:
        id_ = "fake_message_id" if accepted.validate_only else _message_id(self.now())
        name = f"projects/{accepted.project}/messages/{id_}"
        answer = json_answer(_OK, {"name": name}, self.now())
        status = None if fault and fault.delivers else _OK
        kind = fault.kind if fault else None
        if accepted.device is None or accepted.validate_only:
            verdict = (
                "Checked, and not delivered, as was asked for."
                if accepted.validate_only
                else "Accepted; no phone of the twin subscribes to topics."
            )
            what = "checked" if accepted.validate_only else "silent"
            token = accepted.device.phone.token if accepted.device else None
            self._reception.record(
                request,
                FCM_SIDE,
                status=status,
                verdict=verdict,
                what=what,
                token=token,
                fault=kind,
            )
            return TwinExchange(answer, fault)
        self._deliver(request, accepted.device.phone.token, name, accepted.message, fault)
        return TwinExchange(answer, fault)

    def _deliver(
        self, request: Request, token: str, name: str, message: Message, fault: Fault | None
    ) -> None:
        now = self.now()
        push = FcmPush(name=name, token=token, message=message, received_at=now)
        phone = self.devices.of_token(token)
        wait = self.quotas.collapsible_wait(token, now) if push.collapse_key else 0.0
        if wait and phone.is_on:
            arrival = hold(phone, push, wait)
            asyncio.get_running_loop().call_later(wait, self._release, phone.id, push)
        else:
            arrival = arrive(phone, push, now)
        self._reception.accept(token, push.push_id)
        self._reception.record(
            request,
            FCM_SIDE,
            token=token,
            status=None if fault and fault.delivers else _OK,
            push_id=push.push_id,
            verdict=arrival.why,
            what=arrival.what,
            fault=fault.kind if fault else None,
        )
        self._reception.deliver(phone, push.push_id, arrival)

    def _release(self, phone_id: str, push: FcmPush) -> None:
        """Deliver a message that was held back, unless a newer one has taken its place."""
        phone = self.devices.phones.get(phone_id)
        if phone is None or not phone.is_on or push not in phone.stored:
            return
        left = replace(phone, stored=tuple(item for item in phone.stored if item is not push))
        self.devices.put(left)
        self.deliver_stored(left, push)


def _message_id(now: float) -> str:
    """Return an id of the form that FCM gives: microseconds, and hex digits behind a percent."""
    return f"0:{int(now * 1_000_000)}%{secrets.token_hex(8)}"
