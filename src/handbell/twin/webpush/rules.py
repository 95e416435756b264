"""The rules of a push service for browsers: what it answers to a sender's request. Pure.

Sources: RFC 8030 (requests and answers), RFC 8292 (who may send), autopush's documentation (error
numbers, the longest TTL). No document gives the order of the checks: here path and method, who
sends, the state of the subscription, headers, and the body last (our choice).
"""

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from handbell.services.webpush.protocol import (
    AES128GCM,
    AUTHORIZATION,
    CONTENT_ENCODING,
    DEFAULT_URGENCY,
    MAX_BODY_BYTES,
    MAX_TTL_SECONDS,
    TOPIC,
    TOPIC_PATTERN,
    TTL,
    URGENCIES,
    URGENCY,
)
from handbell.twin.wire.exchange import Request

from .refusal import RefusalError
from .subscriptions import ENDPOINT_PATH, PushMessage, Subscription
from .vapid import authenticate

MAX_WAITING: Final = 1000
"""How many messages a subscription may have waiting; our choice."""
MESSAGE_PATH: Final = "/m/"

_SECONDS: Final = re.compile(r"[0-9]{1,12}")
_SINGLE: Final = (TTL, URGENCY, TOPIC, AUTHORIZATION, CONTENT_ENCODING)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleState:
    """What the rules depend on: the clock, the service's origin, and the subscriptions."""

    now: float
    origin: str
    find: Callable[[str], Subscription | None]


def judge(request: Request, world: RuleState) -> PushMessage:
    """Return the message that a request carries; raises RefusalError."""
    subscription = _subscription(request, world)
    _single(request)
    authenticate(
        request.header(AUTHORIZATION),
        origin=audience(request, world.origin),
        key=subscription.key,
        now=world.now,
    )
    if subscription.is_gone:
        raise RefusalError(410, 106, "The subscription has ended: the browser unsubscribed.")
    message = PushMessage(
        id=uuid.uuid4().hex,
        endpoint=subscription.endpoint,
        ttl=_ttl(request),
        urgency=_urgency(request),
        topic=_topic(request),
        encoding=_encoding(request),
        body=request.body,
        received_at=world.now,
    )
    waiting = sum(not other.is_expired(world.now) for other in subscription.waiting)
    if waiting >= MAX_WAITING:
        raise RefusalError(429, 201, f"The subscription has {MAX_WAITING} messages waiting.")
    return message


def audience(request: Request, origin: str) -> str:
    """Return the origin that a sender reached: the service's own, or a name led to the twin."""
    return f"https://{request.host.lower().removesuffix(':443')}" if request.host else origin


def _subscription(request: Request, world: RuleState) -> Subscription:
    if not request.path.startswith(ENDPOINT_PATH):
        raise RefusalError(404, 102, f"The path is not {ENDPOINT_PATH}<subscription>.")
    if request.method != "POST":
        raise RefusalError(405, 999, f"The method is {request.method}, not POST.")
    found = world.find(world.origin + request.path)
    if found is None:
        raise RefusalError(404, 102, "There is no such subscription.")
    return found


def _single(request: Request) -> None:
    names = [name for name, _ in request.headers if name in _SINGLE]
    for name in names:
        if names.count(name) > 1:
            raise RefusalError(400, 110, f"The header {name} was sent more than once.")


def _ttl(request: Request) -> int:
    """Return the TTL in seconds, shortened to the longest that is kept (RFC 8030, 5.2)."""
    value = request.header(TTL)
    if value is None:
        raise RefusalError(400, 111, "The header TTL is missing.")
    if not _SECONDS.fullmatch(value):
        raise RefusalError(400, 112, f"TTL is {value!r}, not a number of seconds.")
    return min(int(value), MAX_TTL_SECONDS)


def _urgency(request: Request) -> str:
    value = request.header(URGENCY) or DEFAULT_URGENCY
    if value not in URGENCIES:
        raise RefusalError(400, 110, f"Urgency is {value!r}, not one of {', '.join(URGENCIES)}.")
    return value


def _topic(request: Request) -> str | None:
    value = request.header(TOPIC)
    if value is not None and not TOPIC_PATTERN.fullmatch(value):
        raise RefusalError(
            400, 113, "Topic is not 1 to 32 characters of base64url (RFC 8030, 5.4)."
        )
    return value


def _encoding(request: Request) -> str | None:
    """Return the content encoding, ``aes128gcm`` exactly when there is a body (RFC 8291, 4)."""
    value = request.header(CONTENT_ENCODING)
    if not request.size:
        return None
    if request.size > MAX_BODY_BYTES:
        raise RefusalError(413, 104, f"The body has {request.size} bytes, over {MAX_BODY_BYTES}.")
    if value is None:
        raise RefusalError(400, 110, "There is a body, but no Content-Encoding.")
    if value != AES128GCM:
        raise RefusalError(400, 110, f"Content-Encoding is {value!r}, not {AES128GCM!r}.")
    return value
