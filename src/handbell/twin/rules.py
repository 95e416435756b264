"""Apple's rules: what APNs answers to a request. Pure: a request, a connection, what is known.

Sources are pages below https://developer.apple.com/documentation/usernotifications/ ; where they
are silent the docstring says "our choice". In which order APNs checks is not documented: here path
and method, then authentication, headers, payload, and the device token last (our choice).

Some reasons say that Apple is in trouble or busy, or knows more than we do (``Forbidden``,
``ExpiredToken``, ``TooManyRequests``, 5xx): no rule gives those, only a fault on demand.
"""

import re
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Protocol

from handbell.gateways.apns.protocol import (
    APNS_COLLAPSE_ID,
    APNS_EXPIRATION,
    APNS_ID,
    APNS_ID_PATTERN,
    APNS_PRIORITY,
    APNS_PUSH_TYPE,
    APNS_TOPIC,
    AUTHORIZATION,
    DEFAULT_PRIORITY,
    DEVICE_PATH,
    MAX_COLLAPSE_ID_BYTES,
    PRIORITIES,
    PROVIDER_TOKEN_MAX_AGE_SECONDS,
    PROVIDER_TOKEN_MIN_REFRESH_SECONDS,
    PUSH_TYPES,
    PushType,
)

from .certificates import ClientCertificate
from .phone import Push
from .provider_token import BadTokenError, Claims, Key

_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2}){4,256}")
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,255}")
_DIGITS: Final = re.compile(r"[0-9]{1,15}")

TOKEN_KINDS: Final = MappingProxyType(
    {kind.address_kind: kind.topic_suffix for kind in PUSH_TYPES.values()}
)
"""The kinds of device tokens, with the suffix that their topics put on the bundle id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What is known of a device token; ``gone_at`` (UNIX ms) once its app was uninstalled.

    ``kind`` is the kind of token: the one for ``alert`` takes no ``voip``, and the reverse.
    """

    token: str
    side: str
    team_id: str
    bundle_id: str
    kind: str = "alert"
    gone_at: int | None = None

    @property
    def topic(self) -> str:
        """The one topic that this token is for."""
        return self.bundle_id + TOKEN_KINDS[self.kind]


class World(Protocol):
    """What the rules may ask."""

    def now(self) -> float:
        """Return the time in UNIX seconds."""

    def find_key(self, team_id: str, key_id: str) -> Key | None:
        """Return the key of that team and id."""

    def find_device(self, token: str) -> Device | None:
        """Return the device of that token, in lower case."""

    def owns_topic(self, team_id: str, bundle_id: str) -> bool:
        """Return whether the team may push to the app; True when nobody is known to own it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What APNs remembers of one connection: who it belongs to, and the provider token in use.

    ``issued_at`` is the token's ``iat``, ``updated_at`` when it last replaced another one.
    """

    side: str
    certificate: ClientCertificate | None = None
    team_id: str | None = None
    key_id: str | None = None
    token: str | None = field(default=None, repr=False)
    issued_at: float = 0.0
    updated_at: float | None = None
    is_expired: bool = False

    @property
    def is_authenticated(self) -> bool:
        """Whether a valid provider token, or a push certificate, was seen on it."""
        return self.token is not None or self.certificate is not None


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came: header names in lower case, ``size`` of the whole body in bytes."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes
    size: int

    def header(self, name: str) -> str | None:
        """Return the value of a header, None when it is absent or empty."""
        return next((value for key, value in self.headers if key == name), None) or None

    @property
    def device_token(self) -> str | None:
        """The token that the path names, in lower case, well-formed or not."""
        if not self.path.startswith(DEVICE_PATH):
            return None
        return self.path.removeprefix(DEVICE_PATH).lower() or None


@dataclass(frozen=True, slots=True)
class Refused:
    """The push is refused: the documented reason, and why in a plain sentence.

    ``timestamp`` (UNIX ms) comes with 410 alone.
    """

    reason: str
    why: str
    timestamp: int | None = None


Judgement = tuple[Push | Refused, Connection]


def judge(request: Request, connection: Connection, world: World) -> Judgement:
    """Return the push, or why it is refused, and what the connection remembers afterwards."""
    try:
        token = _path(request)
        _duplicates(request)
        connection, key = _authenticate(request, connection, world)
        push = _push(request, token, connection, key, world)
        _device(push, connection, world)
    except _ExpiredError as expired:
        return expired.refused, replace(connection, is_expired=True)
    except _RefusalError as refusal:
        return refusal.refused, connection
    return push, connection


class _RefusalError(Exception):
    def __init__(self, reason: str, why: str, timestamp: int | None = None) -> None:
        super().__init__(reason)
        self.refused = Refused(reason, why, timestamp)


class _ExpiredError(_RefusalError):
    pass


def _path(request: Request) -> str:
    """Return the token of ``POST /3/device/<token>`` (sending-notification-requests-to-apns).

    The length of a token is not fixed, so 4 to 256 bytes of hex count as well-formed (our choice).
    """
    token = request.device_token
    is_bare = request.path.rstrip("/") == DEVICE_PATH.rstrip("/")
    if "/" in (token or "") or (token is None and not is_bare):
        raise _RefusalError("BadPath", f"The path is not {DEVICE_PATH}<device token>.")
    if request.method != "POST":
        raise _RefusalError("MethodNotAllowed", f"The method is {request.method}, not POST.")
    if token is None:
        raise _RefusalError("MissingDeviceToken", "The path names no device token.")
    if not _HEX.fullmatch(token):
        raise _RefusalError("BadDeviceToken", "The device token is not an even run of hex digits.")
    return token


def _duplicates(request: Request) -> None:
    """Refuse a repeated header (handling-notification-responses: ``DuplicateHeaders``).

    A cookie may come in pieces (RFC 9113, 8.2.3), so it does not count.
    """
    seen: set[str] = set()
    for name, _ in request.headers:
        if name in seen and name != "cookie":
            raise _RefusalError("DuplicateHeaders", f"The header {name} was sent more than once.")
        seen.add(name)


# Authentication


def _authenticate(
    request: Request, connection: Connection, world: World
) -> tuple[Connection, Key | None]:
    """Return the connection bound to who has proved himself, and the key he used.

    On a connection with a client certificate ``authorization`` is ignored
    (sending-notification-requests-to-apns).
    """
    if connection.certificate is not None:
        _certificate(connection.certificate, connection.side)
        return connection, None
    token = _bearer(request)
    if connection.is_expired:
        raise _ExpiredError(
            "ExpiredProviderToken",
            "A provider token expired on this connection: open a new one.",
        )
    if token != connection.token:
        connection = _provider_token(token, connection, world)
    key = world.find_key(connection.team_id or "", connection.key_id or "")
    if key is None:
        raise _RefusalError("InvalidProviderToken", "The key is no longer known: was it revoked?")
    _age(connection.issued_at, world.now())
    return connection, key


def _certificate(certificate: ClientCertificate, side: str) -> None:
    """Refuse a client certificate that is not for pushing, or is for the other environment."""
    if not certificate.topics:
        raise _RefusalError("BadCertificate", "The client certificate lists no topics.")
    if certificate.sides and side not in certificate.sides:
        raise _RefusalError(
            "BadCertificateEnvironment", f"The client certificate is not for {side}."
        )


def _bearer(request: Request) -> str:
    scheme, _, token = (request.header(AUTHORIZATION) or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _RefusalError(
            "MissingProviderToken", "There is no 'authorization: bearer ...' and no certificate."
        )
    return token.strip()


def _provider_token(token: str, connection: Connection, world: World) -> Connection:
    """Return the connection with another provider token, if it is valid and may be changed.

    ES256 with ``kid``, ``iss`` and ``iat``, at most an hour away; one connection belongs to one
    team and one key (establishing-a-token-based-connection-to-apns). A connection refuses further
    tokens once one expired on it: seen by the authors of pushy. That it is bound by the first
    valid token, and not by the first push, is our choice.
    """
    try:
        said = Claims.read(token)
    except BadTokenError as error:
        raise _RefusalError("InvalidProviderToken", str(error)) from None
    key = world.find_key(said.team_id, said.key_id)
    if key is None:
        raise _RefusalError(
            "InvalidProviderToken",
            f"The key {said.key_id} of team {said.team_id} is not known to the twin.",
        )
    if not said.is_signed_by(key):
        raise _RefusalError(
            "InvalidProviderToken", f"The signature was not made by the key {key.key_id}."
        )
    _age(said.issued_at, world.now())
    if key.environment not in (None, connection.side):
        raise _RefusalError(
            "BadEnvironmentKeyIdInToken",
            f"The key {key.key_id} is limited to {key.environment}; this is {connection.side}.",
        )
    _binding(said, connection)
    return _renewed(token, said, connection, world.now())


def _binding(said: Claims, connection: Connection) -> None:
    if connection.team_id not in (None, said.team_id):
        raise _RefusalError(
            "InvalidProviderToken",
            f"The connection belongs to team {connection.team_id}, not to {said.team_id}.",
        )
    if connection.key_id not in (None, said.key_id):
        raise _RefusalError(
            "UnrelatedKeyIdInToken",
            f"The connection was opened with the key {connection.key_id}, not {said.key_id}.",
        )


def _renewed(token: str, said: Claims, connection: Connection, now: float) -> Connection:
    """Return the connection with the new token, unless it is renewed too often.

    Not more than once in 20 minutes (establishing-a-token-based-connection-to-apns), counted per
    connection. We read: neither two tokens issued less than that apart, nor two changes within it.
    """
    limit = PROVIDER_TOKEN_MIN_REFRESH_SECONDS
    is_first = connection.token is None
    is_early = not is_first and abs(said.issued_at - connection.issued_at) < limit
    is_repeated = connection.updated_at is not None and now - connection.updated_at < limit
    if is_early or is_repeated:
        raise _RefusalError(
            "TooManyProviderTokenUpdates",
            "The provider token was renewed less than 20 minutes after the former one.",
        )
    return replace(
        connection,
        team_id=said.team_id,
        key_id=said.key_id,
        token=token,
        issued_at=said.issued_at,
        updated_at=None if is_first else now,
    )


def _age(issued_at: float, now: float) -> None:
    """Refuse a token whose ``iat`` is more than an hour from now, in either direction."""
    age = int(now - issued_at)
    if abs(now - issued_at) > PROVIDER_TOKEN_MAX_AGE_SECONDS:
        when = f"{age} seconds ago" if age > 0 else f"{-age} seconds ahead of the twin's clock"
        raise _ExpiredError(
            "ExpiredProviderToken", f"The provider token was issued {when}; 3600 is the most."
        )


# Headers and payload


def _push(
    request: Request, token: str, connection: Connection, key: Key | None, world: World
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
    """Return ``apns-id``, empty when APNs shall make one; canonical lower case, 8-4-4-4-12."""
    value = request.header(APNS_ID) or ""
    if value and not APNS_ID_PATTERN.fullmatch(value):
        raise _RefusalError("BadMessageId", f"apns-id {value!r} is not a lower-case UUID.")
    return value


def _expiration(request: Request) -> int | None:
    """Return ``apns-expiration``: UNIX seconds, 0 for one attempt, None when absent."""
    value = request.header(APNS_EXPIRATION)
    if value is not None and not _DIGITS.fullmatch(value):
        raise _RefusalError("BadExpirationDate", f"apns-expiration {value!r} is not UNIX seconds.")
    return None if value is None else int(value)


def _collapse_id(request: Request) -> str | None:
    """Return ``apns-collapse-id``, at most 64 bytes."""
    value = request.header(APNS_COLLAPSE_ID)
    if value is not None and len(value.encode()) > MAX_COLLAPSE_ID_BYTES:
        raise _RefusalError(
            "BadCollapseId", f"apns-collapse-id has {len(value.encode())} bytes; 64 are the most."
        )
    return value


def _push_type(request: Request) -> PushType | None:
    """Return ``apns-push-type``; it may be absent, as it is only required for watchOS."""
    value = request.header(APNS_PUSH_TYPE)
    if value is not None and value not in PUSH_TYPES:
        raise _RefusalError("InvalidPushType", f"There is no push type {value!r}.")
    return PUSH_TYPES[value] if value else None


def _priority(request: Request, push_type: PushType | None) -> int:
    """Return ``apns-priority``: 10, 5 or 1; ``background`` with 10 is an error.

    Absent it is 10 (sending-notification-requests-to-apns), and so an error of ``background`` too.
    """
    value = request.header(APNS_PRIORITY)
    allowed = push_type.priorities if push_type else PRIORITIES
    if (value or str(DEFAULT_PRIORITY)) not in {str(priority) for priority in allowed}:
        said = f"apns-priority {value!r}" if value else f"{DEFAULT_PRIORITY}, where none is given,"
        kind = f" for the push type {push_type.name}" if push_type else ""
        raise _RefusalError("BadPriority", f"{said} is not allowed{kind}.")
    return int(value or DEFAULT_PRIORITY)


def _topic(request: Request, connection: Connection, push_type: PushType | None) -> str:
    """Return ``apns-topic``, with the suffix that the push type asks for.

    It may be absent with a certificate of a single topic, which is then the default. That a topic
    without the suffix of its push type is a ``BadTopic`` is our choice.
    """
    value = request.header(APNS_TOPIC)
    listed = connection.certificate.topics if connection.certificate else ()
    if value is None and len(listed) == 1:
        value = listed[0]
    if value is None:
        raise _RefusalError("MissingTopic", "There is no apns-topic.")
    suffix = push_type.topic_suffix if push_type else ""
    if not _TOPIC.fullmatch(value) or not value.endswith(suffix):
        ending = f" that ends in {suffix}" if suffix else ""
        raise _RefusalError("BadTopic", f"apns-topic {value!r} is not a bundle id{ending}.")
    return value


def _bundle_ids(topic: str, push_type: PushType | None) -> set[str]:
    """Return the apps that a topic may be of; without a push type its ending may say which."""
    if push_type is not None:
        return {topic.removesuffix(push_type.topic_suffix)}
    return {topic, *(topic.removesuffix(kind.topic_suffix) for kind in PUSH_TYPES.values())}


def _allowance(
    topic: str,
    push_type: PushType | None,
    connection: Connection,
    key: Key | None,
    world: World,
) -> None:
    """Refuse a topic that the certificate does not list, or the key or its team may not use.

    ``location`` never works with a certificate (sending-notification-requests-to-apns), nor does
    ``liveactivity`` (Apple's staff, forums/thread/712499). That an app of another team is a
    ``TopicDisallowed`` is our choice.
    """
    bundle_ids = _bundle_ids(topic, push_type)
    if connection.certificate is not None:
        if push_type is not None and push_type.token_authentication_only:
            raise _RefusalError("TopicDisallowed", f"{push_type.name} needs a provider token.")
        if topic not in connection.certificate.topics:
            raise _RefusalError("TopicDisallowed", f"The certificate does not list {topic}.")
    if key is None:
        return
    if key.topics is not None and not {topic, *bundle_ids} & key.topics:
        raise _RefusalError("TopicDisallowed", f"The key {key.key_id} is not for {topic}.")
    for bundle_id in sorted(bundle_ids):
        if not world.owns_topic(key.team_id, bundle_id):
            why = f"{bundle_id} is not an app of team {key.team_id}."
            raise _RefusalError("TopicDisallowed", why)


def _payload(request: Request, topic: str, push_type: PushType | None) -> None:
    """Refuse an empty body, and one over 4096 bytes, or 5120 for ``voip``.

    Source: generating-a-remote-notification. A body that is not JSON has no reason in Apple's
    table: it is accepted, and the phone drops it.
    """
    if not request.size:
        raise _RefusalError("PayloadEmpty", "The request has no body.")
    kinds = [push_type] if push_type else PUSH_TYPES.values()
    limit = max(kind.max_payload_bytes for kind in kinds if topic.endswith(kind.topic_suffix))
    if request.size > limit:
        raise _RefusalError(
            "PayloadTooLarge", f"The payload has {request.size} bytes; {limit} are the most."
        )


# The device token


def _device(push: Push, connection: Connection, world: World) -> None:
    """Refuse a token that is unknown here, of another app or kind, or no longer active.

    An app has a token for each kind of push, as PushKit, ActivityKit and others give out their own,
    and the topic has to be that of the token (sending-notification-requests-to-apns). A token of
    the other environment is a ``BadDeviceToken`` like an unknown one; 410 carries when the token
    was found inactive for the topic (handling-notification-responses).
    """
    device = world.find_device(push.token)
    if device is None or device.side != connection.side:
        other = f" It lives on the {device.side} side." if device else ""
        raise _RefusalError(
            "BadDeviceToken", f"No phone on the {connection.side} side has this token.{other}"
        )
    if device.topic != push.topic:
        why = f"The token is for the topic {device.topic}, not for {push.topic}."
        raise _RefusalError("DeviceTokenNotForTopic", why)
    kind = PUSH_TYPES[push.push_type].address_kind if push.push_type else device.kind
    if device.kind != kind:
        why = f"A push of type {push.push_type} is for a token of another kind than {device.kind}."
        raise _RefusalError("DeviceTokenNotForTopic", why)
    if device.gone_at is not None:
        raise _RefusalError("Unregistered", "The app was removed from the phone.", device.gone_at)
