"""Addresses at FCM: what is one, and what is said of what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.errors import RegistryError
from handbell.services.address import Address
from handbell.services.fcm.address import is_fid, read_address

TOKEN = "fGcAnzmpTnW1kA9rU3x2Zq:APA91bH" + "x" * 110
OLD = "APA91b" + "k" * 146
FID = "dQ1zSLrdTQ2hMTAjvzvv1J"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (TOKEN, Address("fcm", TOKEN)),
        (OLD, Address("fcm", OLD)),
        (FID, Address("fcm", FID, "fid")),
        (f" {TOKEN}\n", Address("fcm", TOKEN)),
        ("\ufeff" + FID, Address("fcm", FID, "fid")),
    ],
    ids=["token", "older-token", "installation-id", "blanks", "byte-order-mark"],
)
def test_an_address_is_read(text: str, address: Address) -> None:
    """A token or an installation id is taken as it is, without blanks around it."""
    assert read_address(text) == address
    assert is_fid(address.token) is (address.kind == "fid")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("abc", "has 3 characters, and is cut"),
        ("x" * 5000, "has 5,000 characters"),
        (TOKEN + '"', "characters that none"),
        (TOKEN + " x", "characters that none"),
        (TOKEN + "é", "characters that none"),
        ("0a" * 32, "device token of Apple's"),
        ("https://fcm.googleapis.com/fcm/send/abc", "as browsers have them"),
    ],
    ids=["empty", "blank", "short", "long", "quote", "two-words", "accent", "apples", "endpoint"],
)
def test_what_is_no_address_is_told_in_words(text: str, words: str) -> None:
    """The error says what it is and what to send instead, and does not repeat it."""
    with pytest.raises(RegistryError, match=words) as error:
        read_address(text)
    assert error.value.fix
    assert len(str(error.value)) < 400


def test_a_token_has_no_details() -> None:
    """Keys of a browser do not belong to a device of FCM."""
    with pytest.raises(RegistryError, match="no `auth`"):
        read_address(TOKEN, {"p256dh": "x", "auth": "y"})
    assert read_address(TOKEN, {}) == Address("fcm", TOKEN)


@given(st.text())
def test_what_is_read_is_safe_in_json(text: str) -> None:
    """An address needs no escaping, so that it can be put into a body as it is."""
    try:
        address = read_address(text)
    except RegistryError:
        return
    assert address.token.isascii()
    assert address.token.isprintable()
    assert not set(address.token) & set('"\\')
