"""Subscriptions: what a browser sends is checked, and has one form."""

import json
from base64 import urlsafe_b64encode
from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from handbell._base64url import base64url, read_base64url
from handbell.errors import RegistryError
from handbell.services.webpush.address import SubscriptionKeys, read_address, read_subscription
from handbell.services.webpush.hosts import PushHosts

ENDPOINT = "https://updates.push.services.mozilla.com/wpush/v2/gAAAA-x_y"
# The receiver of RFC 8291's example.
P256DH = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
AUTH = "BTBZMqHH6r4Tts7J_aSIgg"
KEYS = {"p256dh": P256DH, "auth": AUTH}


def _subscription(**changes: Any) -> dict[str, Any]:
    return {"endpoint": ENDPOINT, "expirationTime": None, "keys": KEYS, **changes}


def _changed(member: str, value: Any) -> dict[str, Any]:
    return _subscription(keys={**KEYS, member: value})


def test_a_subscription_becomes_an_address() -> None:
    """The endpoint identifies it, and its keys are details of it."""
    address = read_subscription(_subscription())
    assert (address.service, address.kind, address.token) == ("webpush", "subscription", ENDPOINT)
    assert json.loads(address.details or "") == KEYS
    keys = SubscriptionKeys.of(address.details or "")
    assert (len(keys.public_key), len(keys.secret)) == (65, 16)


@pytest.mark.parametrize(
    ("endpoint", "canonical"),
    [
        pytest.param("https://Push.Example.COM/a", "https://push.example.com/a", id="case"),
        pytest.param("https://push.example.com:443/a", "https://push.example.com/a", id="port"),
        pytest.param("https://push.example.com./a", "https://push.example.com/a", id="root"),
        pytest.param("https://push.example.com/A/%2f?b=C", None, id="path-and-query"),
        pytest.param("https://push.example.com:8443/a", None, id="other-port"),
        pytest.param("https://127.0.0.1:2197/wpush/a", None, id="the-twins"),
    ],
)
def test_an_endpoint_has_one_form(endpoint: str, canonical: str | None) -> None:
    """Two spellings of an endpoint are one address, and its path is left as it is."""
    assert read_address(f" {endpoint} ", KEYS).token == (canonical or endpoint)


def test_padding_makes_no_difference() -> None:
    """Some browsers write keys with padding: the address is the same."""
    padded = {name: value + "=" * (-len(value) % 4) for name, value in KEYS.items()}
    assert read_address(ENDPOINT, padded) == read_address(ENDPOINT, KEYS)


@pytest.mark.parametrize(
    ("subscription", "told"),
    [
        pytest.param(None, "not a JSON object", id="null"),
        pytest.param("text", "not a JSON object", id="text"),
        pytest.param({}, "no `endpoint`", id="empty"),
        pytest.param(_subscription(endpoint=7), "no `endpoint`", id="number"),
        pytest.param({"endpoint": ENDPOINT}, "no `keys`", id="without-keys"),
        pytest.param(_subscription(keys={"auth": AUTH}), "`p256dh`.*missing", id="no-p256dh"),
        pytest.param(_subscription(keys={"p256dh": P256DH}), "`auth`.*missing", id="no-auth"),
        pytest.param(_changed("auth", "AAAA"), "`auth`.*3 bytes, and not 16", id="short-auth"),
        pytest.param(_changed("auth", "*" * 22), "`auth`.*not base64", id="no-base64"),
        pytest.param(_changed("auth", AUTH[:-1] + "h"), "not base64", id="stray-bits"),
        pytest.param(_changed("auth", ["x"]), "`auth`.*missing", id="auth-as-list"),
        pytest.param(
            _changed("p256dh", base64url(b"\x04" * 64)), "64 bytes, and not 65", id="short-key"
        ),
        pytest.param(
            _changed("p256dh", base64url(b"\x04" + b"\x01" * 64)), "not a point", id="off-curve"
        ),
        pytest.param(_changed("p256dh", base64url(b"\0" * 65)), "not a point", id="zeros"),
        pytest.param(_changed("private", "x"), "no `private`", id="further-member"),
        pytest.param(_subscription(endpoint="http://push.example.com/a"), "https://", id="http"),
        pytest.param(_subscription(endpoint="https://a:b@push.example.com/"), "user", id="user"),
        pytest.param(_subscription(endpoint="https://push.example.com/#a"), "fragment", id="hash"),
        pytest.param(_subscription(endpoint="https://bücher.example/a"), "ASCII", id="idn"),
        pytest.param(_subscription(endpoint="https://push.example.com:x/"), "not a URL", id="port"),
        pytest.param(_subscription(endpoint="https://2130706433/"), "neither", id="number-as-host"),
        pytest.param(
            _subscription(endpoint=f"https://{'a.' * 200}example/"), "too long", id="long-host"
        ),
        pytest.param(_subscription(endpoint=f"{ENDPOINT}{'a' * 2000}"), "too long", id="long"),
        pytest.param(_subscription(endpoint="https://push.example.com/a b"), "escaped", id="blank"),
    ],
)
def test_a_wrong_subscription_is_refused_in_words(subscription: object, told: str) -> None:
    """Each fault is named, with what to send instead."""
    with pytest.raises(RegistryError, match=told) as refused:
        read_subscription(subscription)
    assert refused.value.fix


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(
    _JSON
    | st.fixed_dictionaries(
        {"endpoint": st.just(ENDPOINT) | _JSON},
        optional={"keys": st.dictionaries(st.sampled_from(["p256dh", "auth", "x"]), _JSON) | _JSON},
    )
)
def test_whatever_is_sent_is_an_address_or_an_error(subscription: object) -> None:
    """Nothing but ``RegistryError`` comes out of a stranger's JSON."""
    with suppress(RegistryError):
        read_subscription(subscription)


@given(st.integers(1, 2**200), st.binary(min_size=16, max_size=16), st.booleans())
def test_an_address_is_read_back_as_it_was(scalar: int, secret: bytes, padded: bool) -> None:  # noqa: FBT001
    """The keys come out of the details as they came from the browser."""
    public = ec.derive_private_key(scalar, ec.SECP256R1()).public_key()
    point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    write = (lambda data: urlsafe_b64encode(data).decode()) if padded else base64url
    address = read_address(ENDPOINT, {"p256dh": write(point), "auth": write(secret)})
    assert SubscriptionKeys.of(address.details or "") == (point, secret)


@given(st.binary(max_size=100))
def test_base64_is_read_back(data: bytes) -> None:
    """Bytes written in base64 for URLs are read as they were."""
    assert read_base64url(base64url(data)) == data


# -- hosts ---------------------------------------------------------------------------------------

KNOWN = PushHosts.read("")


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://updates.push.services.mozilla.com/wpush/v2/a",
        "https://updates-autopush.stage.mozaws.push.services.mozilla.com/wpush/a",
        "https://fcm.googleapis.com/fcm/send/a:b",
        "https://web.push.apple.com/QGt",
        "https://api.push.apple.com/a",
        "https://wns2-par02p.notify.windows.com/w/?token=BQ%3d",
    ],
)
def test_the_browsers_push_services_are_known(endpoint: str) -> None:
    """Where browsers send their subscriptions to needs no setting."""
    assert KNOWN.target(endpoint, "production").endpoint == endpoint


@pytest.mark.parametrize(
    ("endpoint", "setting", "told"),
    [
        pytest.param("https://push.example.com/a", "", "Add push.example.com to", id="not-added"),
        pytest.param("https://fcm.googleapis.com.evil.example/", "", "not one", id="suffix"),
        pytest.param("https://evilpush.apple.com/", "", "not one", id="no-dot"),
        pytest.param("https://push.apple.com/", "", "not one", id="the-name-itself"),
        pytest.param("https://fcm.googleapis.com:8443/a", "", "8443", id="other-port"),
        pytest.param("https://push.example.com:8443/a", "any", "8443", id="any-other-port"),
        pytest.param("https://push.example.com/a", "push.example.com:8443", "not one", id="port"),
        pytest.param("http://push.example.com/a", "any", "https://", id="http"),
        pytest.param("https://localhost/a", "any", "this machine", id="localhost"),
        pytest.param("https://127.0.0.1/a", "any", "not a public", id="loopback"),
        pytest.param("https://10.1.2.3/a", "any,10.1.2.3", "not a public", id="private-added"),
        pytest.param("https://[::1]/a", "any", "not a public", id="loopback-6"),
        pytest.param("https://169.254.169.254/a", "any", "not a public", id="link-local"),
    ],
)
def test_other_hosts_are_refused(endpoint: str, setting: str, told: str) -> None:
    """A host that nobody named, and any that is not public, is refused with what to do."""
    with pytest.raises(RegistryError) as refused:
        PushHosts.read(setting).target(endpoint, "production")
    assert told in f"{refused.value.what} {refused.value.fix}"


@pytest.mark.parametrize(
    ("endpoint", "setting"),
    [
        ("https://push.example.com/a", "push.example.com"),
        ("https://push.example.com/a", " known , Push.Example.com "),
        ("https://push.example.com:8443/a", "push.example.com:8443"),
        ("https://a.b.example.com/a", "*.example.com"),
        ("https://8.8.8.8/a", "8.8.8.8"),
        ("https://[2606:4700::1111]/a", "[2606:4700:0::1111]"),
        ("https://push.example.com/a", "any"),
        ("https://fcm.googleapis.com/a", "push.example.com"),
    ],
)
def test_a_setting_adds_hosts(endpoint: str, setting: str) -> None:
    """A named host, those below one, or any public one is used besides the known ones."""
    assert PushHosts.read(setting).target(endpoint, "production").endpoint == endpoint


@pytest.mark.parametrize(
    "setting", ["https://push.example.com", "a b", "*", "*.", "push.example.com:99999", "a/b"]
)
def test_a_wrong_setting_is_told(setting: str) -> None:
    """What is no host is named."""
    with pytest.raises(ValueError, match="is not a host"):
        PushHosts.read(setting)


@pytest.mark.parametrize(
    ("endpoint", "seconds"),
    [
        ("https://web.push.apple.com/a", 1),
        ("https://fcm.googleapis.com/a", 0),
        ("https://updates.push.services.mozilla.com/a", 0),
    ],
)
def test_apple_takes_no_ttl_of_0(endpoint: str, seconds: int) -> None:
    """There, now or never is within a second."""
    assert KNOWN.target(endpoint, "production").least_ttl == seconds


def test_the_twins_origin_is_for_its_environment_only() -> None:
    """A twin's endpoint is refused elsewhere, and nothing else is the twin's."""
    twin = PushHosts.read("any", twin="https://127.0.0.1:2197")
    endpoint = "https://127.0.0.1:2197/wpush/a"
    assert twin.target(endpoint, "twin").endpoint == endpoint
    for hosts, other, environment in (
        (twin, endpoint, "production"),
        (twin, "https://127.0.0.1:2198/wpush/a", "twin"),
        (twin, "https://fcm.googleapis.com/a", "twin"),
        (KNOWN, endpoint, "twin"),
    ):
        with pytest.raises(RegistryError):
            hosts.target(other, environment)
