import copy
import dataclasses
import enum
import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.creation.notification import SPELLINGS, Notification
from handbell.creation.tap_target import Record
from handbell.creation.values import MAX_DEPTH, CriticalSound
from handbell.errors import NotificationError

REFERENCE = Path(__file__).parents[2] / "docs" / "notification.md"
FIELDS = [field.name for field in dataclasses.fields(Notification)]


class Level(enum.StrEnum):
    """An enumeration whose members are texts, as callers have them."""

    PASSIVE = "passive"


@pytest.mark.parametrize(
    ("given_fields", "expected"),
    [
        ({"title": "a", "body": "b"}, {"title": "a", "body": "b"}),
        ({"body": "b"}, {"body": "b"}),
        (
            {"title": "a", "subtitle": "", "body": "  ", "category": None},
            {"title": "a"},
        ),
        ({"badge": 0}, {"badge": 0}),
        ({"badge": 3.0}, {"badge": 3}),
        ({"badge": 2**31 - 1}, {"badge": 2**31 - 1}),
        ({"silent": True}, {"silent": True}),
        ({"contentAvailable": 1}, {"content_available": True}),
        ({"content-available": True}, {"content_available": True}),
        ({"title": "a", "mutable-content": 1.0}, {"title": "a", "mutable_content": True}),
        ({"title": "a", "mutable_content": 0}, {"title": "a"}),
        ({"title": "a", "imageUrl": "u", "image_url": "u"}, {"title": "a", "image_url": "u"}),
        ({"title": "a", "interruptionLevel": Level.PASSIVE}, None),
        ({"locKey": "K", "locArgs": ["1", ""]}, {"loc_key": "K", "loc_args": ["1", ""]}),
        ({"sound": "default"}, {"sound": "default"}),
        (
            {"sound": {"critical": True, "name": "alarm", "volume": 0.5}},
            {"sound": {"critical": 1, "name": "alarm", "volume": 0.5}},
        ),
        ({"sound": {"critical": 1}}, {"sound": {"critical": 1, "name": "default"}}),
        ({"title": "a", "color": "#1E90FF"}, {"title": "a", "color": "#1e90ff"}),
        ({"title": "a", "userInfo": {}}, {"title": "a"}),
        (
            {"title": "a", "userInfo": {"n": None, "deep": [{"x": 1.5}, True]}},
            {"title": "a", "user_info": {"n": None, "deep": [{"x": 1.5}, True]}},
        ),
        ({"title": "a", "ttl": timedelta(minutes=2)}, {"title": "a", "ttl": 120}),
        ({"title": "a", "ttl": 0}, {"title": "a", "ttl": 0}),
        ({"title": "a", "ttl": 1.2}, {"title": "a", "ttl": 2}),
        ({"title": "a", "expiresAt": 1_800_000_000.9}, {"title": "a", "expires_at": 1_800_000_000}),
        (
            {"title": "a", "expires_at": datetime(2027, 1, 15, 8, tzinfo=UTC)},
            {"title": "a", "expires_at": 1_800_000_000},
        ),
        (
            {
                "title": "a",
                "expires_at": datetime(2027, 1, 15, 9, tzinfo=timezone(timedelta(hours=1))),
            },
            {"title": "a", "expires_at": 1_800_000_000},
        ),
        (
            {"title": "a", "expires_at": "2027-01-15T09:00:00+01:00"},
            {"title": "a", "expires_at": 1_800_000_000},
        ),
        (
            {"title": "a", "expires_at": "2027-01-15T08:00:00Z"},
            {"title": "a", "expires_at": 1_800_000_000},
        ),
        (
            {"event": "update", "contentState": {}, "timestamp": 0},
            {"event": "update", "content_state": {}, "timestamp": 0},
        ),
        ({"push_type": "voip"}, {"push_type": "voip"}),
    ],
)
def test_what_is_read(given_fields: dict[str, Any], expected: dict[str, Any] | None) -> None:
    """A mapping in any spelling becomes the canonical one, and is left as it was."""
    before = copy.deepcopy(given_fields)
    notification = Notification.read(given_fields)
    if expected is not None:
        assert notification.to_dict() == expected
    assert Notification.read(notification.to_dict()) == notification
    assert Notification.read(json.loads(json.dumps(notification.to_dict()))) == notification
    assert given_fields == before
    assert isinstance(hash(notification), int)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('{"title": "a"}', ["is the text", "must be a mapping"]),
        (None, ["is null"]),
        (["title"], ["is a list"]),
        ({}, ["nothing to show and nothing to do"]),
        ({"url": "app://x", "mutable_content": True}, ["nothing to show"]),
        ({"title": "", "body": "b"}, ["`title` is empty"]),
        ({"title": "  \n"}, ["`title` is empty"]),
        ({"titel": "a"}, ["'titel'", "Did you mean `title`?"]),
        ({"title": "a", "imagUrl": "u"}, ["Did you mean `imageUrl`?"]),
        ({"zzzz": "a"}, ["'zzzz'", "docs/notification.md"]),
        ({3: "a"}, ["key", "the number 3"]),
        ({"title": "a", "imageUrl": "u", "image_url": "v"}, ["`imageUrl` and `image_url`"]),
        ({"title": "a", "badge": 1, "content_available": 1, "contentAvailable": True}, ["twice"]),
        ({"title": 3}, ["`title` is the number 3", "a text"]),
        ({"title": ["a"]}, ["`title` is a list"]),
        ({"title": b"a"}, ["`title` is a Python bytes"]),
        ({"title": "a", "badge": True}, ["`badge` is true", "whole number"]),
        ({"title": "a", "badge": 1.5}, ["`badge` is the number 1.5"]),
        ({"title": "a", "badge": -1}, ["`badge` is the number -1"]),
        ({"title": "a", "badge": "1"}, ["`badge` is the text '1'"]),
        ({"title": "a", "badge": float("inf")}, ["`badge` is the number inf"]),
        ({"title": "a", "badge": 99_999_999_999}, ["`badge` is the number", "2,147,483,647"]),
        ({"title": "a", "badge": 2**31}, ["between 0 and"]),
        ({"title": "a", "badge": 2.0**31}, ["between 0 and"]),
        ({"title": "a", "badge": 10**5000}, ["more than 64 bits"]),
        ({"title": "a", "priority": 10**5000}, ["more than 64 bits"]),
        ({"title": "a", "relevance_score": float("nan")}, ["finite"]),
        ({"title": "a", "relevance_score": True}, ["`relevance_score` is true"]),
        ({"title": "a", "mutable_content": "yes"}, ["`mutable_content`", "true or false"]),
        ({"title": "a", "mutable_content": 2}, ["true or false"]),
        ({"title": "a", "loc_args": "x"}, ["`loc_args`", "a list of texts"]),
        ({"loc_key": "k", "loc_args": ["x", 1]}, ["`loc_args`", "a list of texts"]),
        ({"title": "a", "loc_args": ["x"]}, ["without `loc_key`"]),
        ({"title": "a", "sound": 3}, ["`sound`"]),
        ({"title": "a", "sound": {"name": "x"}}, ["`critical: true`", "give its name as text"]),
        ({"title": "a", "sound": {"critical": 1, "volum": 1}}, ["Did you mean `volume`?"]),
        ({"title": "a", "sound": {"critical": 1, "volume": 1.1}}, ["`sound.volume`"]),
        ({"title": "a", "sound": {"critical": 1, "name": ""}}, ["`sound.name`"]),
        ({"title": "a", "color": "red"}, ["`color`", "#1e90ff"]),
        ({"title": "a", "color": "#12345"}, ["`color`"]),
        ({"title": "a", "user_info": []}, ["`user_info` is a list", "a mapping"]),
        ({"title": "a", "user_info": {"aps": {}}}, ["`aps`"]),
        ({"title": "a", "userInfo": {"data": {}}}, ["`data`"]),
        ({"title": "a", "url": "x", "user_info": {"url": "y"}}, ["`user_info.url`"]),
        (
            {"title": "a", "user_info": {"when": datetime.now(UTC)}},
            ["`user_info.when`", "datetime"],
        ),
        ({"title": "a", "user_info": {"a": [1, float("nan")]}}, ["`user_info.a[1]`", "finite"]),
        ({"title": "a", "user_info": {"a": {1: 2}}}, ["`user_info.a`", "Keys are texts"]),
        ({"title": "a", "user_info": {"a": 2**64}}, ["64 bits"]),
        ({"title": "a", "user_info": {"a": "\udc00"}}, ["`user_info.a`", "not valid Unicode"]),
        ({"title": "a", "user_info": {"\udc00": 1}}, ["not valid Unicode"]),
        ({"title": "bell \ud83d"}, ["`title` is not valid Unicode", "at place 6"]),
        ({"title": "a", "expires_at": 1, "ttl": 1}, ["`expires_at` and `ttl`"]),
        ({"title": "a", "expires_at": "2027-01-15T08:00:00"}, ["names no time zone"]),
        ({"title": "a", "expires_at": "tomorrow"}, ["ISO 8601"]),
        ({"title": "a", "expires_at": 1_800_000_000_000}, ["milliseconds"]),
        ({"title": "a", "expires_at": -1}, ["`expires_at`"]),
        ({"title": "a", "expires_at": float("inf")}, ["finite"]),
        ({"title": "a", "expires_at": True}, ["`expires_at` is true"]),
        ({"title": "a", "ttl": -1}, ["`ttl`"]),
        ({"title": "a", "ttl": True}, ["`ttl` is true"]),
        ({"title": "a", "ttl": float("nan")}, ["finite"]),
        ({"title": "a", "ttl": timedelta.max}, ["`ttl`", "between 0 and"]),
        ({"silent": True, "title": "a"}, ["`silent` is set beside `title`"]),
        ({"silent": True, "badge": 0}, ["`silent` is set beside `badge`"]),
    ],
)
def test_what_is_refused(value: Any, words: list[str]) -> None:
    """The error names the field, what it was and what it should be, and stays short."""
    with pytest.raises(NotificationError) as raised:
        Notification.read(value)
    for word in words:
        assert word in str(raised.value)
    assert raised.value.fix
    str(raised.value).encode()
    assert len(str(raised.value)) < 400


def test_naive_datetime_is_refused() -> None:
    """An instant without a zone could be hours off, so it is not guessed."""
    naive = datetime(2027, 1, 15, 8)  # noqa: DTZ001 -- the case under test
    with pytest.raises(NotificationError, match="names no time zone"):
        Notification.read({"title": "a", "expires_at": naive})


def test_deep_broad_and_endless_user_info() -> None:
    """Neither depth, nor breadth, nor a cycle gets further than a clear error."""
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"d": deep}
    endless: list[Any] = []
    endless.append(endless)
    doubled: list[Any] = []
    for _ in range(50):
        doubled = [doubled, doubled]
    for bomb in (deep, {"l": endless}, {"l": doubled}, {"l": [0] * 1_000_000}):
        with pytest.raises(NotificationError, match="`user_info`"):
            Notification.read({"title": "a", "user_info": bomb})


def test_user_info_may_be_deep_up_to_the_limit() -> None:
    """The depth that the reference names is allowed, one more is not."""
    deepest: Any = 1
    for _ in range(MAX_DEPTH - 1):
        deepest = [deepest]
    Notification(title="a", user_info={"x": deepest})
    with pytest.raises(NotificationError, match="deep"):
        Notification(title="a", user_info={"x": [deepest]})


def test_own_copy_of_mappings() -> None:
    """A change of the caller's mapping, or of to_dict's, does not reach the notification."""
    info = {"list": [1]}
    notification = Notification(title="a", user_info=info)
    info["list"].append(2)
    notification.to_dict()["user_info"]["list"].append(3)
    assert notification.user_info == {"list": [1]}


def test_constructor_checks_too() -> None:
    """A notification is valid by construction, not only when read."""
    assert Notification(title="a", subtitle="").subtitle is None
    with pytest.raises(NotificationError):
        Notification(title="")
    with pytest.raises(NotificationError):
        Notification()
    with pytest.raises(NotificationError):
        CriticalSound(volume=2)


def test_critical_sound_as_a_value() -> None:
    """A critical sound built in Python is the one read from its mapping."""
    sound = CriticalSound("alarm", 1)
    read = Notification.read({"sound": {"critical": 1, "name": "alarm", "volume": 1}})
    assert Notification(sound=sound) == read


def test_members_of_text_enumerations_become_texts() -> None:
    """What is kept is a plain text, whatever subclass was given."""
    notification = Notification(title="a", interruption_level=Level.PASSIVE)  # type: ignore[arg-type]
    assert type(notification.interruption_level) is str


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("Employee", {"dataClass": "Employee"}),
        ({"dataClass": "Employee"}, {"dataClass": "Employee"}),
        ({"data_class": "Employee", "entity": None}, {"dataClass": "Employee"}),
        (
            {"dataClass": "Employee", "entity": {"primaryKey": "42"}},
            {"dataClass": "Employee", "entity": {"primaryKey": "42"}, "dataSynchro": True},
        ),
        (
            {"data_class": "Employee", "entity": {"primary_key": 42}},
            {"dataClass": "Employee", "entity": {"primaryKey": 42}, "dataSynchro": True},
        ),
        (
            ("Employee", 42.0),
            {"dataClass": "Employee", "entity": {"primaryKey": 42}, "dataSynchro": True},
        ),
        (
            Record("Employee", "42"),
            {"dataClass": "Employee", "entity": {"primaryKey": "42"}, "dataSynchro": True},
        ),
    ],
)
def test_what_a_target_adds(target: Any, expected: dict[str, Any]) -> None:
    """A class is named alone; a record with its key and, for itself, a synchronisation."""
    notification = Notification(title="a", user_info={"own": 1})
    before = copy.deepcopy(target)
    assert notification.with_target(target).user_info == {"own": 1, **expected}
    assert notification.user_info == {"own": 1}
    assert target == before


@pytest.mark.parametrize("choice", [True, False])
def test_the_callers_data_synchro_wins(choice: bool) -> None:  # noqa: FBT001 -- a table's column
    """Whoever has set dataSynchro keeps it, also when a record is opened."""
    notification = Notification(title="a", user_info={"dataSynchro": choice})
    assert notification.with_target(("Employee", 1)).user_info["dataSynchro"] is choice


@pytest.mark.parametrize(
    "target",
    [
        "",
        "  ",
        None,
        3,
        ("Employee",),
        ("Employee", ""),
        ("Employee", True),
        ("Employee", None),
        ("Employee", 1.5),
        ("Employee", float("inf")),
        ("Employee", 2**70),
        (3, 3),
        ["Employee", 1],
        {},
        {"dataClass": 3},
        {"dataClass": "Employee", "entity": 3},
        {"dataClass": "Employee", "entity": {}},
        {"dataClass": "Employee", "entity": {"key": 3}},
        {"dataClass": "Employee", "primaryKey": 3},
        {"dataClass": "Employee", "data_class": "Company"},
        {"entity": {"primaryKey": 3}},
        "Emp\ud800",
    ],
)
def test_targets_that_cannot_be_opened(target: Any) -> None:
    """What is neither a data class nor a record is a NotificationError with a way out."""
    with pytest.raises(NotificationError) as raised:
        Notification(title="a").with_target(target)
    assert raised.value.fix


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"ttl": 60}, 1_060),
        ({"ttl": 0}, 0),
        ({"expires_at": 5_000}, 5_000),
        ({"expires_at": 0}, 0),
    ],
)
def test_expiry(options: dict[str, int], expected: int | None) -> None:
    """A time to live counts from acceptance; 0 stays 0 and means one attempt."""
    assert Notification(title="a", **options).expiry(1_000.7) == expected  # type: ignore[arg-type]


TEXTS = st.text(min_size=1).filter(str.strip)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3)
    ),
    max_leaves=6,
)
INFO = st.dictionaries(
    st.text().filter(lambda key: key not in ("aps", "data", "handbell", "url")), JSON_VALUES
)
NOTIFICATIONS = st.builds(
    Notification,
    title=TEXTS,
    body=st.none() | st.text(),
    badge=st.none() | st.integers(0, 99),
    sound=st.none() | TEXTS | st.builds(CriticalSound, TEXTS, st.none() | st.floats(0, 1)),
    loc_key=TEXTS,
    loc_args=st.lists(st.text(), max_size=3),
    mutable_content=st.booleans(),
    relevance_score=st.none() | st.floats(0, 1),
    url=st.none() | st.text(),
    user_info=INFO,
    content_state=st.none() | INFO,
    ttl=st.none() | st.integers(0, 1000),
)


@given(NOTIFICATIONS)
def test_round_trip(notification: Notification) -> None:
    """What to_dict writes reads to the same notification, also by way of JSON text."""
    assert Notification.read(notification.to_dict()) == notification
    assert Notification.read(json.loads(json.dumps(notification.to_dict()))) == notification


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.text() | st.integers(), children, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(SPELLINGS)), ANYTHING) | ANYTHING)
def test_no_other_error(value: object) -> None:
    """Whatever is given, it is read or refused with our own error."""
    try:
        notification = Notification.read(value)
    except NotificationError as error:
        assert error.fix  # noqa: PT017 -- most values are refused
    else:
        assert Notification.read(notification.to_dict()) == notification


def test_every_field_has_its_spellings() -> None:
    """Each field is known by its own name, in camel case and in Apple's kebab case."""
    assert set(SPELLINGS.values()) == set(FIELDS)
    for spelling in ("imageUrl", "titleLocArgs", "userInfo", "mutable-content", "expiresAt"):
        assert spelling in SPELLINGS


def test_reference_lists_every_field() -> None:
    """docs/notification.md has one row for each field, with its camel-case spelling."""
    rows = re.findall(
        r"^\| `(\w+)` \| `(\w+)` \|", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(name for name, _ in rows) == sorted(FIELDS)
    for name, camel in rows:
        assert SPELLINGS[camel] == name
        assert "_" not in camel


def test_import_is_light() -> None:
    """Notifications and recipients can be written without loading a heavy library."""
    code = (
        "import sys, handbell.creation.notification, handbell.creation.recipients;"
        "print([m for m in ('sqlalchemy','httpcore','pydantic','h2','email_validator')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
