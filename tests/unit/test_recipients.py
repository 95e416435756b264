import dataclasses
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell._mail import fold_mail, read_mail
from handbell.creation.recipients import EVERYBODY, Recipients
from handbell.errors import RecipientsError

TOKEN = "7023d9205074199d1c16fc00d24354e778137675aabbccddeeff001122334455"
UDID = "12345678-ABCD-1234-ABCD-123456789ABC"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("test@4d.com", {"mails": ["test@4d.com"]}),
        ("user@example.com", {"mails": ["user@example.com"]}),
        ("Jane.DOE@Example.COM", {"mails": ["jane.doe@example.com"]}),
        ("a+b@example.com", {"mails": ["a+b@example.com"]}),
        ("  padded@example.com\n", {"mails": ["padded@example.com"]}),
        ("ops@localhost", {"mails": ["ops@localhost"]}),
        ("printer@office.local", {"mails": ["printer@office.local"]}),
        ("robot@unit.TEST", {"mails": ["robot@unit.test"]}),
        ("nobody@mail.invalid", {"mails": ["nobody@mail.invalid"]}),
        ("anna@straße.de", {"mails": ["anna@straße.de"]}),
        ("anna@xn--strae-oqa.de", {"mails": ["anna@straße.de"]}),
        (TOKEN, {"device_tokens": [TOKEN]}),
        (TOKEN.upper(), {"device_tokens": [TOKEN]}),
        ("abcdef01", {"device_tokens": ["abcdef01"]}),
        ("ab" * 80, {"device_tokens": ["ab" * 80]}),
        ("0f" * 256, {"device_tokens": ["0f" * 256]}),
        ("booted", {"simulators": ["booted"]}),
        (UDID.lower(), {"simulators": [UDID]}),
        (
            ["b@example.com", TOKEN, "a@example.com", "booted", "B@example.com", TOKEN.upper()],
            {
                "mails": ["b@example.com", "a@example.com"],
                "device_tokens": [TOKEN],
                "simulators": ["booted"],
            },
        ),
        (("a@example.com",), {"mails": ["a@example.com"]}),
        ({"a@example.com"}, {"mails": ["a@example.com"]}),
        (
            {"mails": "a@example.com", "deviceTokens": [TOKEN], "simulators": ["booted", UDID]},
            {
                "mails": ["a@example.com"],
                "device_tokens": [TOKEN],
                "simulators": ["booted", UDID],
            },
        ),
        ({"device_tokens": TOKEN, "mails": None, "simulators": []}, {"device_tokens": [TOKEN]}),
        ({"everybody": True}, {"everybody": True}),
    ],
)
def test_who_is_named(value: Any, expected: dict[str, Any]) -> None:
    """Each kind of recipient is recognised, folded, and kept once in its order."""
    recipients = Recipients.read(value)
    assert recipients.to_dict() == expected
    assert Recipients.read(recipients.to_dict()) == recipients
    assert Recipients.read(recipients) is recipients


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("nobody", ["'nobody'", "neither a mail address, a device token nor a simulator"]),
        ("", ["empty"]),
        ("abcdefabc", ["odd number of hex digits (9)"]),
        ("abcdef", ["8 to 512 hex digits", "this has 6"]),
        ("ab" * 257, ["8 to 512 hex digits", "this has 514"]),
        ("<abcd1234 abcd1234>", ["without blanks and angle brackets"]),
        ("a@x..com", ["two periods in a row"]),
        ("user@", ["There must be something after the @-sign"]),
        ("user@intranet", ["It should have a period"]),
        ("Jane <jane@example.com>", ["without the name and the angle brackets"]),
        ("a@example.com, b@example.com", ["as a list of texts"]),
        ("a@example.com;b@example.com", ["as a list of texts"]),
        ("\ud800@example.com", ["unsafe characters"]),
        ("x" * 100_000, ["and more"]),
        ("@" * 100_000, ["too long"]),
        (["a@example.com", "b@example.com", "wrong"], ["`recipients[2]`", "'wrong'"]),
        (["a@example.com", 3], ["`recipients[1]`", "int"]),
        ({"mails": ["a@example.com", TOKEN]}, ["`mails[1]`", "under `device_tokens`"]),
        ({"device_tokens": "a@example.com"}, ["`device_tokens`", "under `mails`"]),
        ({"mails": 3}, ["`mails`", "a text or a list of texts"]),
        ({"mail": "a@example.com"}, ["'mail'", "Did you mean `mails`?"]),
        ({"tags": "vip"}, ["'tags'", "Known are mails, device_tokens, simulators"]),
        ({3: "a@example.com"}, ["Unknown key"]),
        ({"deviceTokens": TOKEN, "device_tokens": TOKEN}, ["two spellings"]),
        ({"everybody": 1}, ["true or false"]),
        ({"everybody": True, "mails": "a@example.com"}, ["Everybody and somebody"]),
        ([], ["Nobody is named"]),
        ({}, ["Nobody is named"]),
        ({"mails": []}, ["Nobody is named"]),
        (None, ["null"]),
        (b"a@example.com", ["bytes"]),
        (True, ["bool"]),
    ],
)
def test_who_cannot_be_understood(value: Any, words: list[str]) -> None:
    """The error says where the item is, what it is, why it is refused, and a way out."""
    with pytest.raises(RecipientsError) as raised:
        Recipients.read(value)
    for word in words:
        assert word in str(raised.value)
    assert raised.value.fix
    assert len(str(raised.value)) < 500


def test_constructor_checks_too() -> None:
    """Recipients are valid by construction, not only when read."""
    assert Recipients(mails=("A@Example.com", "a@example.com")).mails == ("a@example.com",)
    with pytest.raises(RecipientsError):
        Recipients(mails=("nobody",))
    with pytest.raises(RecipientsError):
        Recipients()


def test_everybody_is_one_value() -> None:
    """Everybody is said by a constant, and equal to what is read."""
    assert Recipients.read({"everybody": True}) == EVERYBODY
    assert EVERYBODY.everybody


def test_recipients_are_frozen() -> None:
    """Nothing can be added behind a check."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        EVERYBODY.mails = ("a@example.com",)  # type: ignore[misc]


LOCAL_PARTS = st.text("abcXYZ019+-_", min_size=1, max_size=12)
MAILS = st.builds("{}@{}.com".format, LOCAL_PARTS, st.text("abcXYZ019", min_size=1, max_size=9))
TOKENS = st.text("0123456789abcdefABCDEF", min_size=4, max_size=40).map(lambda half: half + half)
PEOPLE = st.lists(MAILS | TOKENS | st.sampled_from(["booted", UDID]), min_size=1)

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None))
    | st.binary()
    | MAILS
    | TOKENS,
    lambda children: (
        st.lists(children)
        | st.dictionaries(
            st.sampled_from(["mails", "deviceTokens", "simulators", "everybody"]) | st.text(),
            children,
        )
        | st.dictionaries(st.integers(), children)
    ),
    max_leaves=8,
)


@given(ANYTHING)
def test_no_other_error(value: object) -> None:
    """Whatever is given, it is read or refused with our own error."""
    try:
        recipients = Recipients.read(value)
    except RecipientsError as error:
        assert error.fix  # noqa: PT017 -- most values are refused
    else:
        assert Recipients.read(recipients.to_dict()) == recipients


@given(PEOPLE)
def test_order_is_kept_and_nobody_twice(people: list[str]) -> None:
    """Each kind holds its recipients in the order of their first naming."""
    recipients = Recipients.read(people)
    mails = [read_mail(text) for text in people if "@" in text]
    tokens = [text.lower() for text in people if "@" not in text and text not in ("booted", UDID)]
    assert recipients.mails == tuple(dict.fromkeys(mails))
    assert recipients.device_tokens == tuple(dict.fromkeys(tokens))


@given(PEOPLE)
def test_reading_again_changes_nothing(people: list[str]) -> None:
    """Folding is idempotent: what was read reads to itself."""
    first = Recipients.read(people)
    flat = [*first.mails, *first.device_tokens, *first.simulators]
    assert Recipients.read(flat) == first


@given(st.text(st.characters(codec=None)) | st.emails())
def test_folding_mails_is_total_and_idempotent(text: str) -> None:
    """Any text folds, once and for all; a valid address to the form in which it is looked up."""
    folded = fold_mail(text)
    assert fold_mail(folded) == folded
    with suppress(ValueError):
        assert read_mail(text) == folded


def test_folding_keeps_different_people_apart() -> None:
    """Two domains that only a case-folding would merge stay two."""
    assert fold_mail("anna@straße.de") != fold_mail("anna@strasse.de")
