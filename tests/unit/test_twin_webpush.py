"""The rules of the twin's push service for browsers, and what a virtual browser does."""

import base64
import json
from dataclasses import replace
from typing import Any, Final

import http_ece
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from handbell.twin.phone import Phone
from handbell.twin.webpush.encryption import BrowserKeys, DecryptionError, decode, encode
from handbell.twin.webpush.phone import arrive, messages_of, open_message, show
from handbell.twin.webpush.refusal import RefusalError
from handbell.twin.webpush.rules import MAX_WAITING, RuleState, judge
from handbell.twin.webpush.subscriptions import ENDPOINT_PATH, PushMessage, SubscriptionStore
from handbell.twin.wire.exchange import Request

ORIGIN: Final = "https://127.0.0.1:2199"
NOW: Final = 1_800_000_000.0
KEY: Final = ec.generate_private_key(ec.SECP256R1())
OTHER: Final = ec.generate_private_key(ec.SECP256R1())
BODY: Final = b"x" * 120


def public(key: ec.EllipticCurvePrivateKey) -> str:
    """Return a public key as VAPID's ``k`` has it."""
    return encode(key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))


def vapid(key: ec.EllipticCurvePrivateKey = KEY, *, k: str | None = None, **claims: Any) -> str:
    """Return an ``Authorization`` header; a claim of None is left out."""
    said = {"aud": ORIGIN, "exp": NOW + 3600, "sub": "mailto:push@example.com"} | claims
    token = jwt.encode(
        {name: value for name, value in said.items() if value is not None}, key, "ES256"
    )
    return f"vapid t={token}, k={k or public(key)}"


class Scene:
    """One subscription, restricted to KEY, and requests to it."""

    def __init__(self, key: str | None = public(KEY)) -> None:
        self.store = SubscriptionStore()
        self.endpoint = self.store.subscribe(ORIGIN, "browser", key=key).endpoint

    def request(self, body: bytes = BODY, method: str = "POST", **headers: str | None) -> Request:
        """Return a request that would be accepted, but for what is given."""
        said: dict[str, str | None] = {
            "ttl": "60",
            "authorization": vapid(),
            "content-encoding": "aes128gcm" if body else None,
        }
        said |= {name.replace("_", "-"): value for name, value in headers.items()}
        sent = tuple((name, value) for name, value in said.items() if value is not None)
        path = self.endpoint.removeprefix(ORIGIN)
        return Request(method, path, sent, body, len(body))

    def judge(self, request: Request) -> PushMessage:
        """Judge a request by the rules."""
        return judge(request, RuleState(now=NOW, origin=ORIGIN, find=self.store.find))


REFUSED: Final[dict[str, tuple[dict[str, Any], int, int]]] = {
    "no authorization": ({"authorization": None}, 401, 109),
    "another scheme": ({"authorization": "bearer abc"}, 401, 109),
    "no key": ({"authorization": "vapid t=a.b.c"}, 401, 109),
    "not a token": ({"authorization": f"vapid t=abc, k={public(KEY)}"}, 401, 109),
    "not a point": ({"authorization": vapid(k="AAAA")}, 403, 109),
    "another signature": ({"authorization": vapid(OTHER, k=public(KEY))}, 403, 109),
    "another sender": ({"authorization": vapid(OTHER)}, 403, 109),
    "another audience": ({"authorization": vapid(aud="https://example.com")}, 403, 109),
    "audience with a path": ({"authorization": vapid(aud=ORIGIN + "/")}, 403, 109),
    "expired": ({"authorization": vapid(exp=NOW)}, 403, 109),
    "over a day": ({"authorization": vapid(exp=NOW + 24 * 3600 + 1)}, 403, 109),
    "no expiry": ({"authorization": vapid(exp=None)}, 403, 109),
    "no subject": ({"authorization": vapid(sub=None)}, 403, 109),
    "subject is no URI": ({"authorization": vapid(sub="push@example.com")}, 403, 109),
    "no TTL": ({"ttl": None}, 400, 111),
    "negative TTL": ({"ttl": "-1"}, 400, 112),
    "TTL is a word": ({"ttl": "soon"}, 400, 112),
    "unknown urgency": ({"urgency": "now"}, 400, 110),
    "two urgencies": ({"urgency": "low, high"}, 400, 110),
    "long topic": ({"topic": "a" * 33}, 400, 113),
    "topic beyond the alphabet": ({"topic": "a b"}, 400, 113),
    "no encoding": ({"content_encoding": None}, 400, 110),
    "old encoding": ({"content_encoding": "aesgcm"}, 400, 110),
    "4097 bytes": ({"body": b"x" * 4097}, 413, 104),
    "GET": ({"method": "GET"}, 405, 999),
}


@pytest.mark.parametrize(("said", "status", "errno"), REFUSED.values(), ids=REFUSED.keys())
def test_what_a_push_service_refuses(said: dict[str, Any], status: int, errno: int) -> None:
    """Each breach of RFC 8030 or RFC 8292 has its status, and autopush's error number."""
    scene = Scene()
    with pytest.raises(RefusalError) as refused:
        scene.judge(scene.request(**said))
    assert (refused.value.status, refused.value.errno) == (status, errno)


ACCEPTED: Final[dict[str, tuple[dict[str, Any], int]]] = {
    "least": ({}, 60),
    "4096 bytes": ({"body": b"x" * 4096}, 60),
    "no body": ({"body": b""}, 60),
    "TTL 0": ({"ttl": "0"}, 0),
    "TTL is shortened": ({"ttl": "99999999"}, 30 * 24 * 3600),
    "all headers": ({"urgency": "very-low", "topic": "a" * 32}, 60),
    "a day": ({"authorization": vapid(exp=NOW + 24 * 3600)}, 60),
    "scheme in capitals": ({"authorization": vapid().replace("vapid", "Vapid")}, 60),
    "https subject": ({"authorization": vapid(sub="https://example.com/contact")}, 60),
}


@pytest.mark.parametrize(("said", "ttl"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_what_a_push_service_accepts(said: dict[str, Any], ttl: int) -> None:
    """A request within the limits is accepted, with the TTL that the service keeps to."""
    scene = Scene()
    assert scene.judge(scene.request(**said)).ttl == ttl


def test_a_repeated_header_is_refused() -> None:
    """One of two TTLs would have to be guessed."""
    scene = Scene()
    request = scene.request()
    with pytest.raises(RefusalError, match="more than once"):
        scene.judge(replace(request, headers=(*request.headers, ("ttl", "5"))))


def test_an_unknown_subscription_is_404_and_an_ended_one_410() -> None:
    """The dead and the never born are told apart, the former to its own sender only."""
    scene = Scene()
    unknown = replace(scene.request(), path=f"{ENDPOINT_PATH}unknown")
    elsewhere = replace(scene.request(), path="/3/device/00")
    scene.store.end(scene.endpoint)
    found = {}
    for name, request in {
        "unknown": unknown,
        "elsewhere": elsewhere,
        "ended": scene.request(),
        "ended, another's": scene.request(authorization=vapid(OTHER)),
    }.items():
        with pytest.raises(RefusalError) as refused:
            scene.judge(request)
        found[name] = refused.value.status
    assert found == {"unknown": 404, "elsewhere": 404, "ended": 410, "ended, another's": 403}


def test_a_subscription_without_a_key_takes_anybodys_messages() -> None:
    """VAPID is voluntary; what is sent must be right all the same."""
    scene = Scene(key=None)
    assert scene.judge(scene.request(authorization=None)).ttl == 60
    assert scene.judge(scene.request(authorization=vapid(OTHER))).ttl == 60
    with pytest.raises(RefusalError):
        scene.judge(scene.request(authorization=vapid(OTHER, exp=NOW - 1)))


# What waits


def message(name: str, *, topic: str | None = None, ttl: int = 60, at: float = NOW) -> PushMessage:
    """Return a message of the first subscription."""
    return PushMessage(
        id=name,
        endpoint="",
        body=BODY,
        encoding="aes128gcm",
        ttl=ttl,
        urgency="normal",
        topic=topic,
        received_at=at,
    )


def test_messages_wait_in_their_order_until_they_are_acknowledged() -> None:
    """A topic replaces what waits under it; what has expired is gone."""
    store = SubscriptionStore()
    endpoint = store.subscribe(ORIGIN, "browser", "channel").endpoint
    for made in (
        message("short", ttl=5),
        message("first", topic="news"),
        message("plain"),
        message("second", topic="news", at=NOW + 1),
    ):
        store.put(replace(made, endpoint=endpoint), NOW)
    found = [item.id for _, item in store.waiting("browser", NOW + 5)]
    assert found == ["plain", "second"]
    assert [item.id for item in store.acknowledge("browser", ["plain", "unknown"])] == ["plain"]
    assert store.withdraw("second")
    assert not store.withdraw("second")
    assert store.waiting("browser", NOW) == []


def test_a_browser_that_repeats_itself_keeps_its_endpoint() -> None:
    """Another key under the same channel is another subscription, and ends the first."""
    store = SubscriptionStore()
    first = store.subscribe(ORIGIN, "browser", "channel", key="a")
    assert store.subscribe(ORIGIN, "browser", "channel", key="a") == first
    second = store.subscribe(ORIGIN, "browser", "channel", key="b")
    ended = store.find(first.endpoint)
    assert ended is not None
    assert ended.is_gone
    store.forget("browser")
    assert store.of_channel("browser", "channel") is None
    assert second.endpoint != first.endpoint


# What a browser does


def encrypted(keys: BrowserKeys, plain: bytes) -> bytes:
    """Return what a sender makes of a text; http-ece is not ours."""
    private = ec.generate_private_key(ec.SECP256R1())
    made: bytes = http_ece.encrypt(
        plain, private_key=private, dh=keys.public, auth_secret=keys.auth, version="aes128gcm"
    )
    return made


def test_the_vector_of_rfc_8291_is_decrypted() -> None:
    """The example in section 5 comes out as it went in."""
    secret = int.from_bytes(decode("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"))
    keys = BrowserKeys(
        ec.derive_private_key(secret, ec.SECP256R1()), decode("BTBZMqHH6r4Tts7J_aSIgg")
    )
    body = decode(
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS"
        "6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qu"
        "lcy4a-fN"
    )
    assert keys.decrypt(body) == b"When I grow up, I want to be a watermelon"


@given(plain=st.binary(min_size=1, max_size=3993))
def test_what_http_ece_encrypts_is_decrypted(plain: bytes) -> None:
    """Any message up to the limit, with the zeros at its end; http-ece makes none of nothing."""
    keys = BrowserKeys.make()
    assert keys.decrypt(encrypted(keys, plain)) == plain


BROKEN: Final = {
    "empty": b"",
    "short": b"x" * 80,
    "key id": b"x" * 200,
    "other keys": encrypted(BrowserKeys.make(), b"hello"),
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
def test_what_cannot_be_decrypted_is_said(body: bytes) -> None:
    """A body of another form, or for other keys, is an error with a sentence."""
    with pytest.raises(DecryptionError, match=r"\.$"):
        BrowserKeys.make().decrypt(body)


@given(place=st.integers(min_value=0, max_value=200), keep=st.integers(min_value=0, max_value=206))
def test_no_change_of_a_body_passes(place: int, keep: int) -> None:
    """A body that was cut or changed anywhere is a decryption error, and nothing else."""
    keys = BrowserKeys.make()
    body = encrypted(keys, b"x" * 104)
    changed = bytearray(body)
    changed[place] ^= 1
    for broken in (bytes(changed), body[:keep]):
        if place in range(16, 20) and broken == bytes(changed):
            continue  # the declared record size may be any that is large enough
        with pytest.raises(DecryptionError):
            keys.decrypt(broken)


def browser(*, is_on: bool = True) -> Phone:
    """Return a virtual browser."""
    return Phone(
        id="browser",
        name="Browser",
        app="shop",
        app_name="Shop",
        side="webpush",
        token="endpoint",
        service="webpush",
        is_on=is_on,
    )


def shown(**members: Any) -> bytes:
    """Return a declarative message."""
    notification = {"title": "Hello", "navigate": "https://shop.example/"} | members
    return json.dumps({"web_push": 8030, "notification": notification, "app_badge": 3}).encode()


KEYS: Final = BrowserKeys.make()


def received(phone: Phone, plain: bytes, **said: Any) -> Any:
    """Return what a browser makes of a text."""
    made = replace(message("m1", **said), body=encrypted(KEYS, plain))
    return arrive(phone, made, open_message(made, KEYS), NOW)


def test_a_declarative_message_is_shown() -> None:
    """Its members become the card's; the badge is the page's."""
    arrival = received(
        browser(),
        shown(
            body="World",
            tag="t",
            image="https://shop.example/a.png",
            silent=True,
            actions=[{"action": "a", "title": "Track"}, "no"],
            data={"handbell": "n1"},
        ),
    )
    card = arrival.card
    assert (card.id, card.push_id, card.title, card.body) == ("t", "n1", "Hello", "World")
    assert (card.url, card.image_url) == ("https://shop.example/", "https://shop.example/a.png")
    assert (card.sound, card.actions, arrival.phone.badge) == (None, ("Track",), 3)


def test_a_tag_replaces_the_card() -> None:
    """Two of one tag are one card, two without are two."""
    phone = browser()
    for tag in ("a", "a", "b"):
        phone = received(phone, shown(tag=tag)).phone
    assert [(card.id, card.replaced) for card in phone.cards] == [("b", 0), ("a", 1)]


SILENT: Final = {
    "not JSON": b"hello",
    "a list": b"[]",
    "no title": b'{"notification": {"body": "x"}}',
    "nested": b"[" * 3000,
}


@pytest.mark.parametrize("plain", SILENT.values(), ids=SILENT.keys())
def test_what_has_no_title_is_not_shown(plain: bytes) -> None:
    """The push is accepted, and nothing appears."""
    arrival = received(browser(), plain)
    assert (arrival.what, arrival.card) == ("silent", None)


def test_a_message_for_other_keys_is_said_to_be_one() -> None:
    """The inspector says why nothing appears."""
    arrival = arrive(browser(), message("m1"), open_message(message("m1"), KEYS), NOW)
    assert arrival.what == "silent"
    assert "cannot decrypt" in arrival.why


def test_a_closed_browser_gets_its_messages_later() -> None:
    """All of them but those of TTL 0, those that were replaced, and those that expired."""
    phone = browser(is_on=False)
    assert received(phone, shown(), ttl=0).what == "discarded"
    for tag, topic, ttl in (("a", "x", 60), ("b", "x", 60), ("c", None, 5), ("d", None, 60)):
        phone = received(phone, shown(tag=tag), topic=topic, ttl=ttl).phone
    assert [item.topic for item in messages_of(phone)] == ["x", None, None]
    phone = replace(phone, is_on=True)
    for item in messages_of(phone):
        phone = show(phone, open_message(item, KEYS), item.id, NOW).phone
    assert [card.id for card in phone.cards] == ["d", "c", "b"]


def test_a_subscription_holds_so_many_messages_and_no_more() -> None:
    """One more is 429; what has expired does not count."""
    scene = Scene()
    found = scene.store.find(scene.endpoint)
    assert found is not None
    full = replace(found, waiting=tuple(message(str(one)) for one in range(MAX_WAITING)))
    request = scene.request(authorization=vapid(exp=NOW + 3600))
    with pytest.raises(RefusalError) as refused:
        judge(request, RuleState(now=NOW, origin=ORIGIN, find=lambda _: full))
    assert refused.value.status == 429
    assert judge(request, RuleState(now=NOW + 60, origin=ORIGIN, find=lambda _: full)).ttl == 60


def test_base64url_is_read_with_and_without_padding() -> None:
    """Browsers write none; Firefox pads the key that it passes on."""
    assert decode(base64.urlsafe_b64encode(b"\xff\xfe").decode()) == decode("__4") == b"\xff\xfe"
