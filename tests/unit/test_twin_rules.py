"""Apple's rules as the twin plays them: each reason is reached by the request that deserves it."""

import base64
import json
from dataclasses import dataclass, field, replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from handbell.services.apns.protocol import PUSH_TYPES, PushType
from handbell.services.apns.reasons import REASONS
from handbell.twin.apns.phone import Push
from handbell.twin.apns.provider_token import Key
from handbell.twin.apns.rules import (
    TOKEN_KINDS,
    ClientConnection,
    Device,
    Request,
    RuleRefusal,
    judge,
)
from handbell.twin.certificates import ClientCertificate
from handbell.twin.web_token import describe_authorization

NOW = 1_800_000_000
TEAM, KEY_ID, BUNDLE = "TEAM123456", "KEY1234567", "com.sample.myapp"
TOKEN = "ab" * 32
PATH = f"/3/device/{TOKEN}"
KEYS = {
    name: ec.generate_private_key(ec.SECP256R1()) for name in (KEY_ID, "KEYDEVELOP", "KEYTOPICS1")
}
FRESH = ClientConnection(side="production")


@dataclass
class World:
    """What the twin knows in these tests; ``time`` is its clock."""

    time: float = NOW
    devices: dict[str, Device] = field(default_factory=dict)
    keys: dict[tuple[str, str], Key] = field(default_factory=dict)

    def now(self) -> float:
        """Return the time."""
        return self.time

    def find_key(self, team_id: str, key_id: str) -> Key | None:
        """Return a known key."""
        return self.keys.get((team_id, key_id))

    def find_device(self, token: str) -> Device | None:
        """Return a known device."""
        return self.devices.get(token)

    def owns_topic(self, team_id: str, bundle_id: str) -> bool:
        """Return whose app it is."""
        return bundle_id != "com.other.app" or team_id == "OTHERTEAM1"


def device(token: str, **changes: Any) -> Device:
    """Return a device of the sample app."""
    known = Device(token=token, side="production", team_id=TEAM, bundle_id=BUNDLE)
    return replace(known, **changes)


@pytest.fixture
def world() -> World:
    """Two teams, three keys, four devices."""

    def key(name: str, **limits: Any) -> Key:
        public = KEYS[name].public_key()
        return Key(team_id=TEAM, key_id=name, public_key=public, **limits)

    keys = [
        key(KEY_ID),
        key("KEYDEVELOP", environment="development"),
        key("KEYTOPICS1", topics=frozenset({"com.sample.second"})),
    ]
    devices = [
        device(TOKEN),
        device("cd" * 32, side="development"),
        device("ef" * 80),
        device("0a" * 32, gone_at=1_799_999_999_123),
        device("70" * 32, kind="voip"),
    ]
    return World(
        keys={(one.team_id, one.key_id): one for one in keys}
        | {("OTHERTEAM1", KEY_ID): Key(
            team_id="OTHERTEAM1", key_id=KEY_ID, public_key=KEYS[KEY_ID].public_key()
        )},
        devices={one.token: one for one in devices},
    )  # fmt: skip


def bearer(key_id: str = KEY_ID, *, team: str = TEAM, iat: Any = NOW, signer: str = "") -> str:
    """Return the header with a provider token."""
    token = jwt.encode(
        {"iss": team, "iat": iat},
        KEYS[signer or key_id],
        algorithm="ES256",
        headers={"kid": key_id},
    )
    return f"bearer {token}"


def request(
    path: str = PATH, *, method: str = "POST", body: bytes = b"{}", **headers: Any
) -> Request:
    """Return a good request; a header given as None is left out."""
    said: dict[str, Any] = {
        "authorization": bearer(),
        "apns-topic": BUNDLE,
        "apns-push-type": "alert",
    }
    said |= {name.replace("_", "-"): value for name, value in headers.items()}
    kept = tuple((name, value) for name, value in said.items() if value is not None)
    return Request(method, path, kept, body, len(body))


def reason(asked: Request, world: World, connection: ClientConnection = FRESH) -> str | None:
    """Return the reason of the refusal, None when accepted."""
    outcome, _ = judge(asked, connection, world)
    return outcome.reason if isinstance(outcome, RuleRefusal) else None


REFUSED = [
    ("BadCollapseId", {"apns_collapse_id": "x" * 65}),
    ("BadCollapseId", {"apns_collapse_id": "é" * 33}),
    ("BadDeviceToken", {"path": "/3/device/" + "99" * 32}),
    ("BadDeviceToken", {"path": "/3/device/" + "cd" * 32}),
    ("BadDeviceToken", {"path": "/3/device/abc"}),
    ("BadDeviceToken", {"path": "/3/device/" + "xy" * 32}),
    ("BadExpirationDate", {"apns_expiration": "tomorrow"}),
    ("BadExpirationDate", {"apns_expiration": "-1"}),
    ("BadMessageId", {"apns_id": "42"}),
    ("BadMessageId", {"apns_id": "9A1959ED-1058-4B56-99D4-CA1459786122"}),
    ("BadPriority", {"apns_priority": "7"}),
    ("BadPriority", {"apns_priority": "10", "apns_push_type": "background"}),
    ("BadPriority", {"apns_push_type": "background"}),
    ("BadPriority", {"apns_push_type": "background", "apns_priority": "1"}),
    ("BadTopic", {"apns_topic": "not a bundle id"}),
    ("BadTopic", {"apns_push_type": "voip"}),
    ("DeviceTokenNotForTopic", {"apns_topic": "com.sample.second"}),
    ("DeviceTokenNotForTopic", {"apns_topic": f"{BUNDLE}.voip"}),
    ("InvalidPushType", {"apns_push_type": "shout"}),
    ("MissingDeviceToken", {"path": "/3/device/"}),
    ("MissingDeviceToken", {"path": "/3/device"}),
    ("MissingTopic", {"apns_topic": None}),
    ("MissingTopic", {"apns_topic": ""}),
    ("PayloadEmpty", {"body": b""}),
    ("TopicDisallowed", {"apns_topic": "com.other.app"}),
    ("TopicDisallowed", {"authorization": bearer("KEYTOPICS1")}),
    ("ExpiredProviderToken", {"authorization": bearer(iat=NOW - 3601)}),
    ("ExpiredProviderToken", {"authorization": bearer(iat=NOW + 3601)}),
    ("InvalidProviderToken", {"authorization": "bearer nonsense"}),
    ("InvalidProviderToken", {"authorization": "bearer a.b.c"}),
    ("InvalidProviderToken", {"authorization": bearer(signer="KEYDEVELOP")}),
    ("InvalidProviderToken", {"authorization": bearer(team="UNKNOWN123")}),
    ("InvalidProviderToken", {"authorization": bearer(iat="soon")}),
    ("MissingProviderToken", {"authorization": None}),
    ("MissingProviderToken", {"authorization": ""}),
    ("MissingProviderToken", {"authorization": "bearer "}),
    ("MissingProviderToken", {"authorization": "basic dGVzdA=="}),
    ("BadEnvironmentKeyIdInToken", {"authorization": bearer("KEYDEVELOP")}),
    ("BadPath", {"path": "/"}),
    ("BadPath", {"path": "/3/devices/" + TOKEN}),
    ("BadPath", {"path": PATH + "/more"}),
    ("MethodNotAllowed", {"method": "GET"}),
    ("Unregistered", {"path": "/3/device/" + "0a" * 32}),
    ("PayloadTooLarge", {"body": b"x" * 4097}),
    (
        "PayloadTooLarge",
        {"body": b"x" * 5121, "apns_push_type": "voip", "apns_topic": f"{BUNDLE}.voip"},
    ),
    (
        "PayloadTooLarge",
        {"body": b"x" * 5121, "apns_push_type": None, "apns_topic": f"{BUNDLE}.voip"},
    ),
    ("TopicDisallowed", {"apns_push_type": None, "apns_topic": "com.other.app.voip"}),
    (
        "TopicDisallowed",
        {"apns_push_type": "voip", "apns_topic": "com.other.app.voip"},
    ),
]


@pytest.mark.parametrize(("expected", "wrong"), REFUSED)
def test_each_mistake_gets_its_documented_reason(expected: str, wrong: Any, world: World) -> None:
    """A request with one mistake is refused with the reason Apple gives for it."""
    assert reason(request(**wrong), world) == expected


@pytest.mark.parametrize(
    ("iat", "words"),
    [(NOW - 3601, "3601 seconds ago"), (NOW + 3601, "3601 seconds ahead of the twin's clock")],
)
def test_an_expired_token_is_told_by_how_much(iat: float, words: str, world: World) -> None:
    """The inspector says how old the provider token is, or how far in the future it was issued."""
    outcome, _ = judge(request(authorization=bearer(iat=iat)), FRESH, world)
    assert isinstance(outcome, RuleRefusal)
    assert words in outcome.why


BY_CERTIFICATE = {"BadCertificate", "BadCertificateEnvironment"}
BY_CONNECTION = {"TooManyProviderTokenUpdates", "UnrelatedKeyIdInToken", "DuplicateHeaders"}
BY_FAULT_ALONE = {
    "IdleTimeout",
    "Forbidden",
    "BadEnvironmentKeyInToken",
    "ExpiredToken",
    "TooManyRequests",
    "InternalServerError",
    "ServiceUnavailable",
    "Shutdown",
}


def test_no_reason_is_forgotten() -> None:
    """Each reason of Apple's table is given by a rule tested here, or by a fault on demand."""
    by_request = {expected for expected, _ in REFUSED}
    assert by_request | BY_CERTIFICATE | BY_CONNECTION | BY_FAULT_ALONE == set(REASONS)


VOIP = {"path": "/3/device/" + "70" * 32, "apns_push_type": "voip"}
ACCEPTED: list[dict[str, Any]] = [
    {},
    {"path": f"/3/device/{TOKEN.upper()}"},
    {"path": "/3/device/" + "ef" * 80},
    {"apns_push_type": None},
    {"apns_priority": "1", "apns_expiration": "0", "apns_collapse_id": "é" * 32},
    {"apns_push_type": "background", "apns_priority": "5"},
    {"apns_id": "9a1959ed-1058-4b56-99d4-ca1459786122"},
    {"body": b"x" * 4096},
    {"body": b"x" * 5120, "apns_topic": f"{BUNDLE}.voip", **VOIP},
    {"body": b"x" * 5120, "apns_topic": f"{BUNDLE}.voip", **VOIP, "apns_push_type": None},
    {"authorization": bearer(iat=str(NOW))},
    {"authorization": bearer(iat=NOW - 3600)},
    {"authorization": bearer().replace("bearer", "Bearer")},
]


@pytest.mark.parametrize("right", ACCEPTED)
def test_what_the_pages_allow_is_accepted(right: Any, world: World) -> None:
    """A request at the edge of what is documented is accepted."""
    assert reason(request(**right), world) is None


TYPES = [*PUSH_TYPES.values()]
KINDS = sorted({kind.address_kind for kind in TYPES})


def typed(kind: PushType, *, topic: str | None = None, named: bool = True) -> Request:
    """Return a good request of a push type; ``named`` says whether its header is there."""
    return request(
        apns_push_type=kind.name if named else None,
        apns_topic=topic or BUNDLE + kind.topic_suffix,
        apns_priority=str(kind.default_priority),
    )


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_every_push_type_takes_its_own_topic(kind: PushType, world: World) -> None:
    """Each push type is accepted for a token of its kind, with its suffix and its priority."""
    world.devices[TOKEN] = device(TOKEN, kind=kind.address_kind)
    outcome, _ = judge(typed(kind), FRESH, world)
    assert isinstance(outcome, Push)
    assert outcome.priority == kind.default_priority
    assert reason(typed(kind, named=False), world) is None


@pytest.mark.parametrize("of", KINDS)
@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_a_token_of_another_kind_is_not_for_the_topic(
    kind: PushType, of: str, world: World
) -> None:
    """Whatever the push type, a token that was given out for another one is refused, as Apple does.

    Without the header the topic says what it is.
    """
    world.devices[TOKEN] = device(TOKEN, kind=of)
    fits = kind.address_kind == of
    assert reason(typed(kind), world) == (None if fits else "DeviceTokenNotForTopic")
    has_own_topic = {kind.topic_suffix, TOKEN_KINDS[of]} != {""}
    if has_own_topic and not fits:
        assert reason(typed(kind, named=False), world) == "DeviceTokenNotForTopic"


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind.topic_suffix])
def test_a_push_type_without_its_suffix_has_a_bad_topic(kind: PushType, world: World) -> None:
    """The bundle id alone, or with the suffix of another type, is no topic for it."""
    for topic in (BUNDLE, f"{BUNDLE}.other"):
        assert reason(typed(kind, topic=topic), world) == "BadTopic"


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
@pytest.mark.parametrize("priority", ["0", "1", "2", "5", "9", "10", "11", "010", "5.0", "-5", "x"])
def test_each_push_type_takes_its_priorities_alone(
    kind: PushType, priority: str, world: World
) -> None:
    """What the page does not list for a type is a BadPriority."""
    world.devices[TOKEN] = device(TOKEN, kind=kind.address_kind)
    asked = request(
        apns_push_type=kind.name, apns_topic=BUNDLE + kind.topic_suffix, apns_priority=priority
    )
    allowed = priority in {str(each) for each in kind.priorities}
    assert reason(asked, world) == (None if allowed else "BadPriority")


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_each_push_type_takes_its_bytes_and_no_more(kind: PushType, world: World) -> None:
    """4096 bytes are the most, for VoIP 5120, and none are too few."""
    world.devices[TOKEN] = device(TOKEN, kind=kind.address_kind)
    most = 5120 if kind.name == "voip" else 4096
    for size, expected in ((most, None), (most + 1, "PayloadTooLarge"), (0, "PayloadEmpty")):
        asked = replace(typed(kind), body=b"x" * size, size=size)
        assert reason(asked, world) == expected


def test_a_repeated_header_is_refused_but_cookie_crumbs_are_not(world: World) -> None:
    """DuplicateHeaders is about any header but the cookie, which HTTP/2 may split."""
    good = request()
    twice = replace(good, headers=(*good.headers, ("apns-topic", BUNDLE)))
    crumbs = replace(good, headers=(*good.headers, ("cookie", "a=1"), ("cookie", "b=2")))
    assert reason(twice, world) == "DuplicateHeaders"
    assert reason(crumbs, world) is None


def test_410_carries_the_time_in_milliseconds(world: World) -> None:
    """Only 410 has a timestamp: when the token was found inactive."""
    outcome, _ = judge(request("/3/device/" + "0a" * 32), FRESH, world)
    assert isinstance(outcome, RuleRefusal)
    assert (outcome.reason, outcome.timestamp) == ("Unregistered", 1_799_999_999_123)


def test_a_der_signature_is_taken_too(world: World) -> None:
    """Apple's own shell recipe signs DER, so both forms prove the key."""
    parts = [{"alg": "ES256", "kid": KEY_ID}, {"iss": TEAM, "iat": NOW}]
    signed = b".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=") for p in parts)
    seal = KEYS[KEY_ID].sign(signed, ec.ECDSA(hashes.SHA256()))
    token = (signed + b"." + base64.urlsafe_b64encode(seal).rstrip(b"=")).decode()
    assert reason(request(authorization=f"bearer {token}"), world) is None


def test_another_algorithm_is_not_taken(world: World) -> None:
    """Only ES256 counts, whatever the header claims."""
    token = jwt.encode({"iss": TEAM, "iat": NOW}, "s" * 32, headers={"kid": KEY_ID})
    unsigned = jwt.encode({"iss": TEAM, "iat": NOW}, "", "none", headers={"kid": KEY_ID})
    assert reason(request(authorization=f"bearer {token}"), world) == "InvalidProviderToken"
    assert reason(request(authorization=f"bearer {unsigned}"), world) == "InvalidProviderToken"


def bound(world: World, authorization: str | None = None) -> ClientConnection:
    """Return the connection after a first push."""
    outcome, connection = judge(request(authorization=authorization or bearer()), FRESH, world)
    assert isinstance(outcome, Push)
    return connection


def test_a_connection_belongs_to_its_first_team_and_key(world: World) -> None:
    """Another team's token is invalid on it, another key of the team is unrelated."""
    connection = bound(world)
    other_team = request(authorization=bearer(team="OTHERTEAM1"))
    other_key = request(authorization=bearer("KEYTOPICS1"), apns_topic="com.sample.second")
    assert reason(other_team, world, connection) == "InvalidProviderToken"
    assert reason(other_key, world, connection) == "UnrelatedKeyIdInToken"
    assert reason(other_team, replace(world, time=NOW), FRESH) is None


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "TooManyProviderTokenUpdates"), (1199, "TooManyProviderTokenUpdates"), (1200, None)],
)
def test_a_token_is_renewed_after_twenty_minutes(seconds: int, expected: str, world: World) -> None:
    """A second token issued sooner is refused, and the former one keeps working."""
    connection = bound(world)
    world.time = NOW + seconds
    renewed = request(authorization=bearer(iat=NOW + seconds))
    outcome, after = judge(renewed, connection, world)
    assert (outcome.reason if isinstance(outcome, RuleRefusal) else None) == expected
    assert (after == connection) == (expected is not None)


def test_two_changes_within_twenty_minutes_are_too_many(world: World) -> None:
    """Going back and forth between two old enough tokens is an update each time."""
    connection = bound(world, first := bearer(iat=NOW - 3000))
    _, connection = judge(request(), connection, world)
    world.time = NOW + 60
    again = request(authorization=first)
    assert reason(again, world, connection) == "TooManyProviderTokenUpdates"


def test_the_twenty_minutes_are_counted_per_connection(world: World) -> None:
    """Another connection may begin with another token at any time."""
    bound(world)
    assert reason(request(authorization=bearer(iat=NOW + 1)), world, FRESH) is None


def test_a_connection_stays_expired(world: World) -> None:
    """Once a token expired on a connection, it takes no other; a new connection does."""
    connection = bound(world)
    world.time = NOW + 3601
    outcome, connection = judge(request(), connection, world)
    fresh = request(authorization=bearer(iat=NOW + 3601))
    assert isinstance(outcome, RuleRefusal)
    assert outcome.reason == "ExpiredProviderToken"
    assert reason(fresh, world, connection) == "ExpiredProviderToken"
    assert reason(fresh, world, FRESH) is None


def test_a_revoked_key_stops_working_on_open_connections(world: World) -> None:
    """A key that is no longer known does not live on in a connection's memory."""
    connection = bound(world)
    world.keys.clear()
    assert reason(request(), world, connection) == "InvalidProviderToken"


CERTIFICATE = ClientCertificate((BUNDLE, f"{BUNDLE}.voip"), ("production",))


@pytest.mark.parametrize(
    ("certificate", "asked", "expected"),
    [
        (CERTIFICATE, request(authorization=None), None),
        (CERTIFICATE, request(authorization="bearer ignored"), None),
        (CERTIFICATE, request(authorization=None, apns_topic=None), "MissingTopic"),
        (ClientCertificate((BUNDLE,)), request(authorization=None, apns_topic=None), None),
        (CERTIFICATE, request(authorization=None, apns_topic="com.sample.x"), "TopicDisallowed"),
        (
            ClientCertificate((f"{BUNDLE}.location-query",)),
            request(
                authorization=None,
                apns_push_type="location",
                apns_topic=f"{BUNDLE}.location-query",
            ),
            "TopicDisallowed",
        ),
        (ClientCertificate(()), request(authorization=None), "BadCertificate"),
        (
            ClientCertificate((BUNDLE,), ("development",)),
            request(authorization=None),
            "BadCertificateEnvironment",
        ),
    ],
)
def test_a_certificate_stands_for_its_topics(
    certificate: ClientCertificate, asked: Request, expected: str | None, world: World
) -> None:
    """With a client certificate the topics it lists are allowed, on its side, without a token."""
    assert reason(asked, world, replace(FRESH, certificate=certificate)) == expected


def test_a_refused_push_after_a_valid_token_still_binds(world: World) -> None:
    """The token was valid, so the connection knows whose it is, whatever else was wrong."""
    _, connection = judge(request("/3/device/" + "99" * 32), FRESH, world)
    assert connection.is_authenticated
    assert connection.team_id == TEAM


@given(st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_no_token_breaks_the_rules(token: str) -> None:
    """Whatever stands behind bearer is judged, never an error of ours."""
    world = World(devices={TOKEN: device(TOKEN)})
    asked = request(authorization=f"bearer {token}")
    assert reason(asked, world) in {"InvalidProviderToken", "MissingProviderToken"}
    describe_authorization(f"bearer {token}")


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    )
)
def test_no_claim_breaks_the_rules(claim: Any) -> None:
    """A well signed token may carry any nonsense as its claims."""
    world = World(
        devices={TOKEN: device(TOKEN)},
        keys={
            (TEAM, KEY_ID): Key(team_id=TEAM, key_id=KEY_ID, public_key=KEYS[KEY_ID].public_key())
        },
    )
    parts = [{"alg": "ES256", "kid": KEY_ID}, {"iss": TEAM, "iat": claim}]
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts]
    token = ".".join([*texts, "A" * 86])
    assert reason(request(authorization=f"bearer {token}"), world) == "InvalidProviderToken"


def test_the_signature_is_never_shown() -> None:
    """A header as the page shows it has the claims and no signature."""
    shown = describe_authorization(bearer())
    assert shown.endswith("(signature hidden)")
    assert bearer().rpartition(".")[2] not in shown
    assert TEAM in shown
    assert describe_authorization("secret") == "(hidden)"
