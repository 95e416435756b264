"""``payload``: what a sender wants in the payload that no field of ours has."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.errors import NotificationError, PayloadTooLargeError
from handbell.gateways.apns.compose import compose

APP = App(team_id="TEAM123456", bundle_id="a.b")
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


def sent(**fields: Any) -> tuple[dict[str, Any], str]:
    """Return the payload that a device gets, and the push type."""
    message = compose(Notification.read(fields), app=APP, now=0, notification_id="n")
    return json.loads(message.payload), message.push_type


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda key: key not in {"aps", "handbell"}),
        _VALUES,
        max_size=4,
    ),
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda key: key not in {"alert", "badge", "sound"}),
        _VALUES,
        max_size=4,
    ),
)
def test_members_go_out_as_they_are_given(beside: dict[str, Any], inside: dict[str, Any]) -> None:
    """Whatever JSON can carry stands in the payload as it was given, and the fields beside it."""
    payload, push_type = sent(title="Hello", payload={**beside, "aps": inside})
    expected = {**inside, "alert": {"title": "Hello"}}
    assert payload == {**beside, "aps": expected, "handbell": "n"}
    assert push_type == "alert"


@pytest.mark.parametrize(
    ("payload", "push_type"),
    [
        ({"aps": {"alert": "Hi"}}, "alert"),
        ({"aps": {"badge": 0}}, "alert"),
        ({"aps": {"sound": "x"}, "k": 1}, "alert"),
        ({"aps": {"content-available": 1}}, "background"),
        ({"k": 1}, "background"),
    ],
)
def test_the_payload_alone_says_what_it_is(payload: dict[str, Any], push_type: str) -> None:
    """Without any field beside it the push type follows what the payload shows."""
    told, kind = sent(payload=payload)
    assert kind == push_type
    assert {**payload.get("aps", {})}.items() <= told["aps"].items()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"title": "a", "payload": {"aps": {"alert": "b"}}}, "payload.aps.alert"),
        ({"badge": 1, "payload": {"aps": {"badge": 2}}}, "payload.aps.badge"),
        ({"title": "a", "user_info": {"k": 1}, "payload": {"k": 2}}, "payload.k"),
        ({"title": "a", "image_url": "https://x.y", "payload": {"data": 1}}, "payload.data"),
        ({"push_type": "background", "payload": {"aps": {"sound": "x"}}}, "push type background"),
        ({"title": "a", "payload": {"handbell": "other"}}, "`handbell`"),
        ({"title": "a", "payload": {"aps": []}}, "payload.aps"),
        ({"title": "a", "payload": []}, "payload"),
        ({"title": "a", "payload": {"k": float("nan")}}, "payload.k"),
        ({"title": "a", "payload": {"k": object()}}, "payload.k"),
        ({"title": "a", "payload": {1: 2}}, "Keys are texts"),
        ({"title": "a", "user_info": {"aps": {}}}, "`payload`"),
        ({"title": "a", "user_info": {"data": {}}}, "`payload`"),
    ],
)
def test_what_contradicts_or_cannot_be_sent_is_refused(fields: dict[str, Any], words: str) -> None:
    """The error names the member; what Handbell writes itself leads to ``payload``."""
    with pytest.raises(NotificationError) as raised:
        sent(**fields)
    assert words in str(raised.value)


@pytest.mark.parametrize("place", ["k", "aps", "list", "key"])
def test_no_private_key_goes_out(place: str) -> None:
    """A key that was put into a payload by mistake is refused and not repeated."""
    key = "-----BEGIN EC PRIVATE KEY-----\nsecretsecret\n-----END EC PRIVATE KEY-----"
    payloads: dict[str, dict[str, Any]] = {
        "k": {"k": key},
        "aps": {"aps": {"x": key}},
        "list": {"x": [[key]]},
        "key": {"x": {key: 1}},
    }
    with pytest.raises(NotificationError, match="private key") as raised:
        sent(title="a", payload=payloads[place])
    assert "secretsecret" not in str(raised.value)


def test_its_size_counts() -> None:
    """What is over the limit is refused, and the largest member is named."""
    with pytest.raises(PayloadTooLargeError, match=r"payload\.big"):
        sent(title="a", payload={"big": "x" * 4096})


def test_it_is_kept_and_read_again() -> None:
    """The ledger's form of a notification carries it."""
    notification = Notification.read({"payload": {"aps": {"alert": "x"}, "k": [1]}})
    assert Notification.read(json.loads(json.dumps(notification.to_dict()))) == notification


@pytest.mark.parametrize(
    "secret",
    [
        "-----BEGIN EC PRIVATE KEY-----",
        f"Bearer hbk_abcd1234_{'x' * 32}",
        f"hbs_{'Aa1b' * 8}",
    ],
)
@pytest.mark.parametrize("place", ["value", "list", "key", "aps"])
def test_a_secret_is_refused_and_not_repeated(secret: str, place: str) -> None:
    """A private key, a key of ours or a session's secret, wherever it stands."""
    payload: dict[str, dict[str, Any]] = {
        "value": {"a": {"b": secret}},
        "list": {"a": [1, [secret]]},
        "key": {secret: 1},
        "aps": {"aps": {"x": secret}},
    }
    with pytest.raises(NotificationError, match="secret belongs") as caught:
        Notification.read({"title": "x", "payload": payload[place]})
    assert secret not in str(caught.value)
