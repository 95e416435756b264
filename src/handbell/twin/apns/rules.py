"""Apple's rules: what APNs answers to a request. Pure.

Sources are pages below https://developer.apple.com/documentation/usernotifications/ ; where they
are silent the docstring says "our choice". The order of APNs' checks is not documented: here path
and method, then authentication, headers, payload, and the device token last (our choice).

Some reasons report trouble on Apple's side, or state that a twin cannot have (``Forbidden``,
``ExpiredToken``, ``TooManyRequests``, 5xx): no rule returns those, only an injected fault.
"""

import re
from dataclasses import replace
from typing import Final

from handbell.services.apns.protocol import (
    APNS_COLLAPSE_ID,
    APNS_EXPIRATION,
    APNS_ID,
    APNS_ID_PATTERN,
    APNS_PRIORITY,
    APNS_PUSH_TYPE,
    APNS_TOPIC,
    DEFAULT_PRIORITY,
    DEVICE_PATH,
    MAX_COLLAPSE_ID_BYTES,
    PRIORITIES,
    PUSH_TYPES,
    PushType,
)
from handbell.twin.wire.exchange import Request

from .authentication import authenticate
from .phone import Push
from .provider_token import Key
from .rule_context import (
    TOKEN_KINDS,
    ClientConnection,
    Device,
    ExpiredError,
    RefusalError,
    RuleRefusal,
    RuleState,
    device_token,
)

__all__ = [
    "TOKEN_KINDS",
    "ClientConnection",
    "Device",
    "Request",
    "RuleRefusal",
    "RuleState",
    "device_token",
    "judge",
]

_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2}){4,256}")
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,255}")
_DIGITS: Final = re.compile(r"[0-9]{1,15}")

Judgement = tuple[Push | RuleRefusal, ClientConnection]


def judge(request: Request, connection: ClientConnection, world: RuleState) -> Judgement:
    """Return the push or its refusal, and the connection's state afterwards."""
    try:
        token = _path(request)
        _duplicates(request)
        connection, key = authenticate(request, connection, world)
        push = _push(request, token, connection, key, world)
        _device(push, connection, world)
    except ExpiredError as expired:
        return expired.refused, replace(connection, is_expired=True)
    except RefusalError as refusal:
        return refusal.refused, connection
    return push, connection


def _path(request: Request) -> str:
    """Return the token of ``POST /3/device/<token>`` (sending-notification-requests-to-apns).

    The length of a token is not fixed, so 4 to 256 bytes of hex count as well-formed (our choice).
    """
    token = device_token(request)
    is_bare = request.path.rstrip("/") == DEVICE_PATH.rstrip("/")
    if "/" in (token or "") or (token is None and not is_bare):
        raise RefusalError("BadPath", f"The path is not {DEVICE_PATH}<device token>.")
    if request.method != "POST":
        raise RefusalError("MethodNotAllowed", f"The method is {request.method}, not POST.")
    if token is None:
        raise RefusalError("MissingDeviceToken", "The path names no device token.")
    if not _HEX.fullmatch(token):
        raise RefusalError("BadDeviceToken", "The device token is not an even run of hex digits.")
    return token


def _duplicates(request: Request) -> None:
    """Refuse a repeated header (handling-notification-responses: ``DuplicateHeaders``).

    A cookie may come in pieces (RFC 9113, 8.2.3), so it does not count.
    """
    seen: set[str] = set()
    for name, _ in request.headers:
        if name in seen and name != "cookie":
            raise RefusalError("DuplicateHeaders", f"The header {name} was sent more than once.")
        seen.add(name)


# Headers and payload


def _push(
    request: Request, token: str, connection: ClientConnection, key: Key | None, world: RuleState
) -> Push:
    push_type = _push_type(request)
    expires_at, collapse_id = _expiration(request), _collapse_id(request)
    priority = _priority(request, push_type)
    topic = _topic(request, connection, push_type)
    _allowance(topic, push_type, connection, key, world)
    _payload(request, topic, push_type)
    return Push(
        apns_id=_apns_id(request),
        token=token,
        topic=topic,
        payload=request.body,
        received_at=world.now(),
        push_type=push_type.name if push_type else None,
        priority=priority,
        collapse_id=collapse_id,
        expires_at=expires_at,
    )


def _apns_id(request: Request) -> str:
    """Return ``apns-id``, empty when APNs has to generate it; canonical lower case, 8-4-4-4-12."""
    value = request.header(APNS_ID) or ""
    if value and not APNS_ID_PATTERN.fullmatch(value):
        raise RefusalError("BadMessageId", f"apns-id {value!r} is not a lower-case UUID.")
    return value


def _expiration(request: Request) -> int | None:
    """Return ``apns-expiration``: UNIX seconds, 0 for one attempt, None when absent."""
    value = request.header(APNS_EXPIRATION)
    if value is not None and not _DIGITS.fullmatch(value):
        raise RefusalError("BadExpirationDate", f"apns-expiration {value!r} is not UNIX seconds.")
    return None if value is None else int(value)


def _collapse_id(request: Request) -> str | None:
    """Return ``apns-collapse-id``, at most 64 bytes."""
    value = request.header(APNS_COLLAPSE_ID)
    if value is not None and len(value.encode()) > MAX_COLLAPSE_ID_BYTES:
        raise RefusalError(
            "BadCollapseId", f"apns-collapse-id has {len(value.encode())} bytes; 64 are the most."
        )
    return value


def _push_type(request: Request) -> PushType | None:
    """Return ``apns-push-type``; it may be absent, as it is only required for watchOS."""
    value = request.header(APNS_PUSH_TYPE)
    if value is not None and value not in PUSH_TYPES:
        raise RefusalError("InvalidPushType", f"There is no push type {value!r}.")
    return PUSH_TYPES[value] if value else None


def _priority(request: Request, push_type: PushType | None) -> int:
    """Return ``apns-priority``: 10, 5 or 1; ``background`` with 10 is an error.

    Absent it is 10 (sending-notification-requests-to-apns), and so an error of ``background`` too.
    """
    value = request.header(APNS_PRIORITY)
    allowed = push_type.priorities if push_type else PRIORITIES
    if (value or str(DEFAULT_PRIORITY)) not in {str(priority) for priority in allowed}:
        shown = f"apns-priority {value!r}" if value else f"{DEFAULT_PRIORITY}, where none is given,"
        kind = f" for the push type {push_type.name}" if push_type else ""
        raise RefusalError("BadPriority", f"{shown} is not allowed{kind}.")
    return int(value or DEFAULT_PRIORITY)


def _topic(request: Request, connection: ClientConnection, push_type: PushType | None) -> str:
    """Return ``apns-topic``, with the suffix that the push type requires.

    It may be absent with a certificate of a single topic, which is then the default. That a topic
    without the suffix of its push type is a ``BadTopic`` is our choice.
    """
    value = request.header(APNS_TOPIC)
    listed = connection.certificate.topics if connection.certificate else ()
    if value is None and len(listed) == 1:
        value = listed[0]
    if value is None:
        raise RefusalError("MissingTopic", "There is no apns-topic.")
    suffix = push_type.topic_suffix if push_type else ""
    if not _TOPIC.fullmatch(value) or not value.endswith(suffix):
        ending = f" that ends in {suffix}" if suffix else ""
        raise RefusalError("BadTopic", f"apns-topic {value!r} is not a bundle id{ending}.")
    return value


def _bundle_ids(topic: str, push_type: PushType | None) -> set[str]:
    """Return the apps that a topic may belong to; without a push type its suffix decides."""
    if push_type is not None:
        return {topic.removesuffix(push_type.topic_suffix)}
    return {topic, *(topic.removesuffix(kind.topic_suffix) for kind in PUSH_TYPES.values())}


def _allowance(
    topic: str,
    push_type: PushType | None,
    connection: ClientConnection,
    key: Key | None,
    world: RuleState,
) -> None:
    """Refuse a topic that the certificate does not list, or that the key or team may not use.

    ``location`` never works with a certificate (sending-notification-requests-to-apns), nor does
    ``liveactivity`` (Apple's staff, forums/thread/712499). That an app of another team is a
    ``TopicDisallowed`` is our choice.
    """
    bundle_ids = _bundle_ids(topic, push_type)
    if connection.certificate is not None:
        if push_type is not None and push_type.token_authentication_only:
            raise RefusalError("TopicDisallowed", f"{push_type.name} needs a provider token.")
        if topic not in connection.certificate.topics:
            raise RefusalError("TopicDisallowed", f"The certificate does not list {topic}.")
    if key is None:
        return
    if key.topics is not None and not {topic, *bundle_ids} & key.topics:
        raise RefusalError("TopicDisallowed", f"The key {key.key_id} is not for {topic}.")
    for bundle_id in sorted(bundle_ids):
        if not world.owns_topic(key.team_id, bundle_id):
            why = f"{bundle_id} is not an app of team {key.team_id}."
            raise RefusalError("TopicDisallowed", why)


def _payload(request: Request, topic: str, push_type: PushType | None) -> None:
    """Refuse an empty body, and one over 4096 bytes, or 5120 for ``voip``.

    Source: generating-a-remote-notification. A body that is not JSON has no reason in Apple's
    table: it is accepted, and the phone drops it.
    """
    if not request.size:
        raise RefusalError("PayloadEmpty", "The request has no body.")
    kinds = [push_type] if push_type else PUSH_TYPES.values()
    limit = max(kind.max_payload_bytes for kind in kinds if topic.endswith(kind.topic_suffix))
    if request.size > limit:
        raise RefusalError(
            "PayloadTooLarge", f"The payload has {request.size} bytes; {limit} are the most."
        )


# The device token


def _device(push: Push, connection: ClientConnection, world: RuleState) -> None:
    """Refuse a token that is unknown, of another app or kind, or no longer active.

    An app has a token for each kind of push, since PushKit, ActivityKit and others issue their
    own, and the topic has to be that of the token (sending-notification-requests-to-apns). A token
    of the other environment is a ``BadDeviceToken`` like an unknown one; 410 carries the time when
    the token was found inactive for the topic (handling-notification-responses).
    """
    device = world.find_device(push.token)
    if device is None or device.side != connection.side:
        other = f" It lives on the {device.side} side." if device else ""
        raise RefusalError(
            "BadDeviceToken", f"No phone on the {connection.side} side has this token.{other}"
        )
    if device.topic != push.topic:
        why = f"The token is for the topic {device.topic}, not for {push.topic}."
        raise RefusalError("DeviceTokenNotForTopic", why)
    kind = PUSH_TYPES[push.push_type].address_kind if push.push_type else device.kind
    if device.kind != kind:
        why = f"A push of type {push.push_type} is for a token of another kind than {device.kind}."
        raise RefusalError("DeviceTokenNotForTopic", why)
    if device.gone_at is not None:
        raise RefusalError("Unregistered", "The app was removed from the phone.", device.gone_at)
