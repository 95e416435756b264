"""Recipients that are devices of other push services than Apple's."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.integration.test_service_sessions import subscription

from handbell.creation.recipients import Recipients
from handbell.errors import RecipientsError
from handbell.services.address import Address

APPLES = "ab" * 32
FCM = "fGc0_x-:APA91b" + "x" * 140
OLD_FCM = "z" * 152
ENDPOINT = "https://push.example/Sub-1"
BROWSER = subscription()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (FCM, [("fcm", FCM)]),
        (f" {FCM} ", [("fcm", FCM)]),
        ("https://Push.Example:443/Sub-1", [("webpush", ENDPOINT)]),
        (BROWSER, [("webpush", ENDPOINT)]),
        ({"service": "fcm", "token": OLD_FCM}, [("fcm", OLD_FCM)]),
        ([BROWSER, FCM, FCM], [("webpush", ENDPOINT), ("fcm", FCM)]),
        ({"device_tokens": [FCM, BROWSER]}, [("fcm", FCM), ("webpush", ENDPOINT)]),
        ({"addresses": BROWSER}, [("webpush", ENDPOINT)]),
    ],
    ids=["fcm", "blanks", "endpoint", "browser", "old-fcm", "list", "tokens", "addresses"],
)
def test_a_device_is_named_by_its_address(value: Any, expected: list[tuple[str, str]]) -> None:
    """As a text where that is certain, else by a mapping; each once."""
    read = Recipients.read(value)
    assert [(one.service, one.token) for one in read.devices] == expected
    assert read.addresses == tuple(token for _, token in expected)
    assert Recipients.read(read.to_dict()) == read
    assert Recipients.read(json.loads(json.dumps(read.to_dict()))) == read


def test_each_kind_has_its_place() -> None:
    """Apple's tokens stay apart: they are what ``device_tokens`` has always held."""
    read = Recipients.read(
        ["a@4d.com", APPLES.upper(), FCM, {"service": "apns", "token": "CD" * 8}]
    )
    assert read.mails == ("a@4d.com",)
    assert read.device_tokens == (APPLES, "cd" * 8)
    assert read.devices == (Address("fcm", FCM),)
    assert read.addresses == (APPLES, "cd" * 8, FCM)


def test_what_is_kept_holds_no_keys() -> None:
    """The ledger and whoever reads it see endpoints alone."""
    kept = Recipients.read([BROWSER, APPLES, {"service": "fcm", "token": OLD_FCM}]).to_record()
    assert kept == {"device_tokens": [APPLES, ENDPOINT, OLD_FCM]}
    assert Recipients(everybody=True).to_record() == {"everybody": True}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (OLD_FCM, "neither a mail address"),
        ({"mails": FCM}, "a device"),
        ({"mails": [BROWSER]}, "must be a text"),
        ({"device_tokens": "a@4d.com"}, "a mail address"),
        ({"service": "pigeon", "token": "x"}, "no push service"),
        ({"service": "fcm"}, "no push service"),
        ({"token": FCM}, "no push service"),
        ({"service": "fcm", "token": "short"}, "cut"),
        ({"service": "fcm", "token": FCM, "colour": "red"}, "'colour'"),
        ([{"mails": ["a@4d.com"]}], "'mails'"),
        ({"endpoint": ENDPOINT}, "keys"),
        ({**BROWSER, "service": "fcm"}, "no push service"),
        ("https://user:pass@push.example/1", "endpoint"),
        ("https://", "endpoint"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else None,
)
def test_what_names_no_device_is_refused(value: Any, why: str) -> None:
    """The error says which item is wrong and how to write it, and never repeats a key."""
    with pytest.raises(RecipientsError, match=why) as caught:
        Recipients.read(value)
    assert caught.value.fix
    assert "auth" not in str(caught.value)


_JSON = st.none() | st.booleans() | st.integers() | st.text(max_size=20)


@given(
    value=st.dictionaries(
        st.sampled_from(["service", "token", "endpoint", "keys", "mails", "x"]),
        _JSON | st.sampled_from(["fcm", "webpush", "apns", FCM, ENDPOINT]),
        max_size=4,
    )
)
def test_any_mapping_is_read_or_refused(value: dict[str, Any]) -> None:
    """What is read can be written and read again."""
    try:
        read = Recipients.read([value])
    except RecipientsError:
        return
    assert Recipients.read(read.to_dict()) == read
