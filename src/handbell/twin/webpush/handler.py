"""Answers senders: by the rules, or as an injected fault demands; and hands messages on."""

import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from handbell.errors import TwinError
from handbell.twin.faults import ANSWERING, Fault, FaultPlan
from handbell.twin.phone import Arrival, Phone, StoredPush
from handbell.twin.reception import Reception
from handbell.twin.wire.exchange import Request, TwinExchange, TwinResponse

from .encryption import BrowserKeys
from .phone import arrive, messages_of, open_message, read_message, show
from .refusal import RefusalError, refuse
from .rules import MESSAGE_PATH, RuleState, audience, judge
from .subscriptions import ENDPOINT_PATH, PushMessage, Subscription, SubscriptionStore

SIDE: Final = "webpush"
REAL_BROWSER: Final = "browser"
"""The kind of a phone that stands for a real browser."""

_CREATED: Final = 201
_GONE: Final = (404, 410)
_CAP_SECONDS: Final = 60


class Browsers(Protocol):
    """The browsers that are connected."""

    def send(self, browser: str, channel: str, message: PushMessage) -> bool:
        """Send a message; return whether the browser is connected."""

    def close(self, browser: str) -> None:
        """Close a browser's connection, for it to look what became of its subscriptions."""


class EndpointHandler:
    """Answers requests to endpoints, and delivers to virtual and to connected browsers.

    ``origin`` returns the service's origin, which a subscription's endpoint begins with.
    """

    def __init__(
        self,
        reception: Reception,
        *,
        faults: FaultPlan,
        origin: Callable[[], str],
    ) -> None:
        self.store = SubscriptionStore()
        self.browsers: Browsers | None = None
        self._reception = reception
        self._faults = faults
        self.now = reception.now
        self.origin = origin

    def subscribe(self, phone: Phone, *, key: str | None) -> Phone:
        """Return a virtual browser with a new endpoint as its token, and new keys.

        ``key`` is the application server's; None admits any sender.
        """
        keys = BrowserKeys.make()
        subscription = self.store.subscribe(self.origin(), phone.id, key=key, keys=keys)
        details = json.dumps(keys.to_dict(), separators=(",", ":"), sort_keys=True)
        return replace(phone, token=subscription.endpoint, details=details)

    def restored(self, endpoint: str) -> Subscription | None:
        """Return the subscription of a former twin by its endpoint, wherever it is now."""
        path = urlsplit(endpoint).path
        found = self.store.find(self.origin() + path)
        return None if found is None or found.is_gone else found

    def _keys(self, endpoint: str) -> BrowserKeys | None:
        found = self.store.find(endpoint)
        return None if found is None else found.keys

    def check_own(self, endpoint: str) -> None:
        """Raise TwinError for an endpoint that is no subscription of a real browser here."""
        subscription = self.store.find(endpoint)
        if subscription is None or subscription.is_gone or subscription.keys is not None:
            raise TwinError(
                f"{endpoint[:80]!r} is no subscription of this twin's push service",
                fix="Lead the browser to the twin, and subscribe in it again",
            )

    def note_shown(self, phone: Phone, plain: bytes) -> None:
        """Add a card for what a real browser has shown."""
        opened = read_message(plain)
        message_id = uuid.uuid4().hex
        arrival = show(phone, opened, message_id, self.now())
        self._reception.deliver(phone, opened.notification_id or message_id, arrival)

    def answer(self, request: Request) -> TwinExchange:
        """Return the answer to a request."""
        if request.method == "DELETE" and request.path.startswith(MESSAGE_PATH):
            return TwinExchange(self._withdraw(request.path.removeprefix(MESSAGE_PATH)))
        fault = self._faults.take(SIDE, self._endpoint(request))
        if fault is not None and not fault.is_processed:
            return self._strike(request, fault)
        now = self.now()
        try:
            message = judge(request, RuleState(now=now, origin=self.origin(), find=self._find))
        except RefusalError as refusal:
            return self._refuse(request, refusal, fault)
        return self._accept(request, message, fault)

    def deliver_stored(self, phone: Phone, push: StoredPush) -> None:
        """Deliver a message that was stored for a virtual browser while it was closed."""
        keys = self._keys(phone.token)
        if not isinstance(push, PushMessage) or keys is None:
            return
        opened, now = open_message(push, keys), self.now()
        if push.is_expired(now):
            arrival = Arrival(phone, "discarded", "It expired while the browser was closed.")
        else:
            arrival = show(phone, opened, push.id, now)
        self._reception.deliver(phone, opened.notification_id or push.id, arrival)

    def _find(self, endpoint: str) -> Subscription | None:
        """Return a subscription; what waits for a virtual browser is kept by its phone."""
        found = self.store.find(endpoint)
        if found is None or found.keys is None:
            return found
        phone = self._reception.devices.phones.get(found.browser)
        return replace(found, waiting=() if phone is None else messages_of(phone))

    def _accept(self, request: Request, message: PushMessage, fault: Fault | None) -> TwinExchange:
        keys = self._keys(message.endpoint)
        opened = None if keys is None else open_message(message, keys)
        push_id = (opened.notification_id if opened else None) or message.id
        self._reception.accept(message.endpoint, push_id)
        record: dict[str, Any] = {
            "status": None if fault and fault.delivers else _CREATED,
            "push_id": push_id,
            "fault": fault.kind if fault else None,
            "plain": opened.plain if opened else None,
        }
        if opened is None:
            what, verdict = self._hand_over(message)
            self._record(request, what=what, verdict=verdict, **record)
        else:
            phone = self._reception.devices.of_token(message.endpoint)
            arrival = arrive(phone, message, opened, self.now())
            self._record(request, what=arrival.what, verdict=arrival.why, **record)
            self._reception.deliver(phone, push_id, arrival)
        return TwinExchange(self._created(request, message), fault)

    def _hand_over(self, message: PushMessage) -> tuple[str, str]:
        """Send a message to its browser, and keep it until that acknowledges it."""
        subscription = self.store.find(message.endpoint)
        if subscription is None or self.browsers is None:
            return "discarded", "Nobody has this subscription any more."
        self.store.put(message, self.now())
        if self.browsers.send(subscription.browser, subscription.channel, message):
            return "sent", "Sent to the browser, which decrypts and shows it."
        if message.ttl == 0:
            self.store.acknowledge(subscription.browser, [message.id])
            return "discarded", "The browser is not connected, and TTL 0 forbids to store."
        return "stored", "The browser is not connected; stored for when it is."

    def _created(self, request: Request, message: PushMessage) -> TwinResponse:
        """Return 201 with the message's own resource, and the TTL that holds (RFC 8030, 5)."""
        headers = (
            ("location", f"{audience(request, self.origin())}{MESSAGE_PATH}{message.id}"),
            ("ttl", str(message.ttl)),
        )
        return TwinResponse(_CREATED, headers)

    def _withdraw(self, message_id: str) -> TwinResponse:
        if self.store.withdraw(message_id):
            return TwinResponse(204, ())
        return refuse(404, "There is no such message that waits.")

    def _strike(self, request: Request, fault: Fault) -> TwinExchange:
        """Return the result of a request that a fault affects."""
        answer = None
        if fault.kind in ANSWERING:
            status = fault.status or _CREATED
            said = fault.reason or "A fault on demand."
            answer = refuse(status, said, retry_after=fault.retry_after)
        self._record(
            request,
            status=answer.status if answer else None,
            reason=fault.reason,
            verdict=f"A fault on demand: {fault.kind}. The push was not processed.",
            what="fault",
            fault=fault.kind,
        )
        if answer is not None and answer.status in _GONE:
            self._lose(self._endpoint(request) or "")
        return TwinExchange(answer, fault)

    def _lose(self, endpoint: str) -> None:
        """End a subscription that a fault called gone, as its sender assumes."""
        former = self.store.end(endpoint)
        self._reception.lose(endpoint, int(self.now() * 1000))
        if former is not None and former.keys is None and self.browsers is not None:
            self.browsers.close(former.browser)

    def _refuse(self, request: Request, refusal: RefusalError, fault: Fault | None) -> TwinExchange:
        after = _CAP_SECONDS if refusal.status == 429 else None  # noqa: PLR2004
        answer = refuse(refusal.status, refusal.why, errno=refusal.errno, retry_after=after)
        self._record(
            request,
            status=refusal.status,
            reason=str(refusal.errno),
            verdict=refusal.why,
            what="refused",
            fault=fault.kind if fault else None,
        )
        return TwinExchange(answer, fault)

    def _endpoint(self, request: Request) -> str | None:
        is_one = request.path.startswith(ENDPOINT_PATH)
        return self.origin() + request.path if is_one else None

    def _record(self, request: Request, **result: Any) -> None:
        self._reception.record(request, SIDE, token=self._endpoint(request), **result)
