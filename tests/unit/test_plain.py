"""What is read at a glance comes to the same as what is read in full."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from handbell.creation.notification import Notification
from handbell.creation.plain import MOST_BYTES, read_plain
from handbell.creation.recipients import Recipients
from handbell.delivery.accept.prepare import is_ordinary

MAIL = "user1@example.com"
HELLO = {"title": "Hello"}

# Blank texts, halves of character pairs, reserved keys and numbers of any size among them.
_TEXTS = st.text(max_size=20) | st.text(st.characters(), max_size=5) | st.sampled_from(["", " \n"])
_NUMBERS = st.integers() | st.integers(-(2**65), 2**65) | st.floats()
_SCALARS = st.none() | st.booleans() | _NUMBERS | _TEXTS
_JSON = st.recursive(
    _SCALARS, lambda some: st.lists(some) | st.dictionaries(_TEXTS, some), max_leaves=5
)
_KEYS = st.sampled_from(["a", "aps", "data", "handbell", "url", "name"]) | _TEXTS
_NAMES = ("title", "subtitle", "body", "url", "thread_id", "category", "sound", "image_url")
_WORDS = st.text(min_size=1, max_size=20)
_NEARLY = st.fixed_dictionaries(
    {"title": _WORDS},
    optional={
        **dict.fromkeys(_NAMES[1:], _WORDS),
        "badge": st.integers(-1, 2**64),
        "user_info": st.dictionaries(_WORDS | _KEYS, _SCALARS, max_size=2),
    },
)
_WILD = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys((*_NAMES, "threadId", "ttl", "template"), _SCALARS),
        "badge": _SCALARS,
        "user_info": _JSON,
    },
)
_NOTIFICATIONS = _NEARLY | _WILD
_SHUFFLED = _NOTIFICATIONS.flatmap(lambda given: st.permutations(list(given.items()))).map(dict)
_LOCALS = st.text("aZ0.+-_é@ \n", max_size=12)
_MAILS = (
    st.builds(
        "{}@{}".format, _LOCALS, st.sampled_from(["example.com", "Sub.Example.org", "x.test"])
    )
    | st.emails()
    | st.sampled_from(["everybody", "booted", "ab" * 32, MAIL])
)


def _in_full(notification: Any, recipients: Any) -> tuple[str, str]:
    """Return what the ledger keeps of a send that is read in full."""
    content = Notification.read(notification)
    assert is_ordinary(content)
    named = Recipients.read(recipients).to_dict()
    return to_json(content.to_dict()).decode(), json.dumps(named, ensure_ascii=False)


@given(_SHUFFLED)
def test_a_plain_notification_is_what_the_full_reading_makes_of_it(written: dict[str, Any]) -> None:
    """The same text in the ledger, and nothing wrong with it; or it is left to the full reading."""
    found = read_plain(written, MAIL)
    if found is not None:
        assert (found.content, found.recipients) == _in_full(written, MAIL)
        assert len(found.content.encode()) <= MOST_BYTES


@given(_MAILS | st.lists(_MAILS, max_size=2) | _JSON)
def test_a_plain_recipient_is_whom_the_full_reading_finds(recipients: Any) -> None:
    """One mail, folded; or it is left to the full reading."""
    found = read_plain(HELLO, recipients)
    if found is not None:
        assert (found.content, found.recipients) == _in_full(HELLO, recipients)
        assert Recipients.read(recipients).mails == (found.mail,)


@pytest.mark.parametrize(
    "written",
    [
        HELLO,
        {"body": 'Grüße, 你好 👋🏽 " \\ \x00'},
        {"title": "Hello", "subtitle": "you", "body": "there", "url": "https://example.com/1"},
        {"thread_id": "orders", "category": "order", "title": "Hello", "badge": 0},
        {"title": "Hello", "user_info": {"order": 17, "paid": True, "sum": -1.5, "by": None}},
        {"badge": 2**31 - 1, "body": "x" * 1400},
        {"title": "Hello", "sound": "default", "image_url": "https://example.com/1.png"},
    ],
)
def test_what_is_plain(written: dict[str, Any]) -> None:
    """The texts of an alert, its badge, and a flat `user_info`."""
    for recipients in (MAIL, [MAIL], " User1@Example.COM "):
        found = read_plain(written, recipients)
        assert found is not None
        assert found.mail == MAIL
        assert (found.content, found.recipients) == _in_full(written, recipients)


@pytest.mark.parametrize(
    ("written", "recipients"),
    [
        ("Hello", MAIL),
        ({}, MAIL),
        ({"badge": 1}, MAIL),
        ({"title": ""}, MAIL),
        ({"title": "Hello", "body": " \n"}, MAIL),
        ({"title": "Hello", "body": None}, MAIL),
        ({"title": "Hello", "body": 1}, MAIL),
        ({"title": "Half \ud83d"}, MAIL),
        ({"title": "x" * MOST_BYTES}, MAIL),
        ({"title": "Hello", "badge": True}, MAIL),
        ({"title": "Hello", "badge": -1}, MAIL),
        ({"title": "Hello", "threadId": "orders"}, MAIL),
        ({"title": "Hello", "silent": True}, MAIL),
        ({"title": "Hello", "sound": {"critical": True}}, MAIL),
        ({"title": "Hello", "template": "order"}, MAIL),
        ({"title": "Hello", "user_info": {}}, MAIL),
        ({"title": "Hello", "user_info": {"a": []}}, MAIL),
        ({"title": "Hello", "user_info": {"aps": 1}}, MAIL),
        ({"title": "Hello", "user_info": {"a": float("nan")}}, MAIL),
        ({"title": "Hello", "user_info": {"a": 2**64}}, MAIL),
        ({"title": "Hello", "url": "a", "user_info": {"url": "b"}}, MAIL),
        (HELLO, "everybody"),
        (HELLO, "ab" * 32),
        (HELLO, "ünicode@example.com"),
        (HELLO, "user1@localhost"),
        (HELLO, [MAIL, "user2@example.com"]),
        (HELLO, []),
        (HELLO, {"mails": MAIL}),
        (HELLO, None),
    ],
)
def test_what_is_left_to_the_full_reading(written: Any, recipients: Any) -> None:
    """Whatever may be wrong, has an option, or is for others than one person."""
    assert read_plain(written, recipients) is None
