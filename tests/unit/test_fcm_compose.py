"""Composing for FCM: each field of a notification, what is refused, and how large it may be."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.creation.template import Template
from handbell.errors import NotForServiceError, NotificationError, PayloadTooLargeError
from handbell.gateways.fcm.compose import HEADERS, TTL_HEAD, compose, unsupported
from handbell.gateways.gateway import Message
from handbell.gateways.wordings import compose_each
from handbell.services.fcm.protocol import (
    ANDROID,
    ANDROID_NOTIFICATION,
    ENUMS,
    RESERVED_DATA_KEYS,
    Kind,
)

NOW = 1_800_000_000.5
APP = App(android_package="com.sample.myapp")


def composed(*, notification_id: str = "", **fields: Any) -> Message:
    """Compose a notification of these fields."""
    notification = Notification.read(fields)
    return compose(notification, app=APP, now=NOW, notification_id=notification_id)


def message_of(*, notification_id: str = "", **fields: Any) -> Any:
    """Return the message of these fields as JSON reads it."""
    return json.loads(composed(notification_id=notification_id, **fields).payload)


TEXT = {"notification": {"title": "a"}}


def android(**members: Any) -> dict[str, Any]:
    """Return a message with a title and these members of ``android.notification``."""
    return {"android": {"notification": members}, **TEXT}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"title": "a", "body": "b"}, {"notification": {"title": "a", "body": "b"}}),
        ({"body": "b", "subtitle": "c"}, {"notification": {"body": "b"}}),
        (
            {"title": "a", "image_url": "https://x.y/z.png"},
            {"notification": {"title": "a", "image": "https://x.y/z.png"}},
        ),
        ({"title": "a", "sound": "default"}, android(sound="default")),
        ({"title": "a", "sound": "van.caf"}, android(sound="van")),
        ({"title": "a", "sound": "a.b.mp3"}, android(sound="a.b")),
        (
            {"title": "a", "sound": {"critical": True, "name": "alarm.aiff", "volume": 0.5}},
            android(sound="alarm"),
        ),
        ({"title": "a", "badge": 0}, android(notification_count=0)),
        ({"title": "a", "badge": 7}, android(notification_count=7)),
        ({"title": "a", "color": "#1E90FF"}, android(color="#1e90ff")),
        (
            {"title": "a", "collapse_id": "order"},
            {
                "android": {"collapse_key": "order", "notification": {"tag": "order"}},
                **TEXT,
            },
        ),
        ({"title": "a", "priority": 10}, {"android": {"priority": "high"}, **TEXT}),
        ({"title": "a", "priority": 5}, {"android": {"priority": "normal"}, **TEXT}),
        ({"title": "a", "priority": 1}, {"android": {"priority": "normal"}, **TEXT}),
        ({"title": "a", "ttl": 60}, {"android": {"ttl": "60s"}, **TEXT}),
        ({"title": "a", "ttl": 0}, {"android": {"ttl": "0s"}, **TEXT}),
        ({"title": "a", "expires_at": 0}, {"android": {"ttl": "0s"}, **TEXT}),
        ({"title": "a", "expires_at": NOW + 90}, {"android": {"ttl": "90s"}, **TEXT}),
        ({"title": "a", "ttl": 90 * 86400}, {"android": {"ttl": "2419200s"}, **TEXT}),
        ({"title": "a", "url": "https://x.y"}, {**TEXT, "data": {"url": "https://x.y"}}),
        ({"title": "a", "category": "ORDER"}, {**TEXT, "data": {"category": "ORDER"}}),
        ({"title": "a", "thread_id": "t"}, {**TEXT, "data": {"thread_id": "t"}}),
        (
            {"title": "a", "user_info": {"text": "é", "n": 1, "f": 0.5, "t": True, "z": None}},
            {**TEXT, "data": {"text": "é", "n": "1", "f": "0.5", "t": "true", "z": "null"}},
        ),
        (
            {"title": "a", "user_info": {"entity": {"primaryKey": "42"}, "list": [1, "é"]}},
            {**TEXT, "data": {"entity": '{"primaryKey":"42"}', "list": '[1,"é"]'}},
        ),
        (
            {"title_loc_key": "order_sent", "title_loc_args": ["4711"]},
            {
                "android": {
                    "notification": {"title_loc_key": "order_sent", "title_loc_args": ["4711"]}
                }
            },
        ),
        (
            {"title": "a", "loc_key": "BODY_1", "loc_args": ["x", ""], "body": "b"},
            {
                "android": {"notification": {"body_loc_key": "BODY_1", "body_loc_args": ["x", ""]}},
                **TEXT,
            },
        ),
        ({"title": "a", "title_loc_key": "order.sent", "title_loc_args": ["x"]}, TEXT),
        ({"silent": True, "user_info": {"k": "v"}}, {"data": {"k": "v"}}),
        ({"content_available": True, "user_info": {"k": "v"}}, {"data": {"k": "v"}}),
        ({"push_type": "background", "url": "https://x.y"}, {"data": {"url": "https://x.y"}}),
        ({"title": "a", "content_available": True}, TEXT),
        ({"badge": 3, "sound": "default", "user_info": {"k": "v"}}, {"data": {"k": "v"}}),
        ({"silent": True}, {}),
        ({"title": "a", "payload": {"aps": {"badge": 1}, "k": 1}}, TEXT),
        ({"title": "a", "push_type": "alert"}, TEXT),
        (
            {"title": "a", "android": {"notification": {"channelId": "orders"}}},
            android(channel_id="orders"),
        ),
        (
            {"title": "a", "android": {"notification": {"title": "for Android"}}},
            android(title="for Android"),
        ),
        (
            {"badge": 1, "android": {"notification": {"body": "for Android"}}},
            {"android": {"notification": {"notification_count": 1, "body": "for Android"}}},
        ),
        (
            {"silent": True, "priority": 5, "android": {"priority": "NORMAL"}},
            {"android": {"priority": "normal"}},
        ),
        (
            {
                "title": "a",
                "android": {"directBootOk": True, "fcmOptions": {"analyticsLabel": "x"}},
            },
            {"android": {"direct_boot_ok": True, "fcm_options": {"analytics_label": "x"}}, **TEXT},
        ),
    ],
    ids=lambda value: "-".join(value)[:60] if isinstance(value, dict) else None,
)
def test_each_field_has_its_place(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """What a notification says stands where FCM wants it, and nothing else does."""
    assert message_of(**fields) == expected


def test_the_id_is_told_and_folds_a_repeat() -> None:
    """It is in the data, for receipts, and the tag where nothing else is: a repeat replaces it."""
    told = message_of(notification_id="ntf_1", title="a")
    assert told["data"] == {"handbell": "ntf_1"}
    assert told["android"] == {"notification": {"tag": "ntf_1"}}
    collapsing = message_of(notification_id="ntf_1", title="a", collapse_id="order")
    assert collapsing["android"]["notification"] == {"tag": "order"}
    given = {"notification": {"tag": "own"}}
    assert message_of(notification_id="n", title="a", android=given)["android"] == given
    assert message_of(notification_id="ntf_1", silent=True) == {"data": {"handbell": "ntf_1"}}


def test_what_is_told_beside_the_message() -> None:
    """Push type, priority, expiry and collapse id are the message's, for the queue."""
    shown = composed(title="a", ttl=60, collapse_id="c")
    assert (shown.push_type, shown.priority, shown.topic) == ("alert", 10, "")
    assert (shown.expires_at, shown.collapse_id, shown.headers) == (int(NOW) + 60, "c", HEADERS)
    assert shown.payload.startswith(TTL_HEAD)
    silent = composed(silent=True)
    assert (silent.push_type, silent.priority, silent.expires_at) == ("background", 5, None)
    assert composed(title="a", ttl=0).expires_at == 0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"title": "a", "user_info": {"from": "x"}}, "`from`"),
        ({"title": "a", "user_info": {"gcm": "x"}}, "`gcm`"),
        ({"title": "a", "user_info": {"message_type": "x"}}, "`message_type`"),
        ({"title": "a", "user_info": {"notification": "x"}}, "`notification`"),
        ({"title": "a", "user_info": {"google.x": "x"}}, "`google.x`"),
        ({"title": "a", "user_info": {"gcm.x": "x"}}, "`gcm.x`"),
        ({"title": "a", "user_info": {"collapse_key": "x"}}, "replaces by its own"),
        ({"title": "a", "category": "a", "user_info": {"category": "b"}}, "`category`"),
        ({"title": "a", "thread_id": "a", "user_info": {"thread_id": 1}}, "`thread_id`"),
        ({"title": "a", "expires_at": NOW - 5}, "`expires_at` was 5 seconds ago"),
        ({"silent": True, "image_url": "https://x.y"}, "`image_url` does nothing"),
        ({"silent": True, "android": {"notification": {"tag": "x"}}}, "nothing to show"),
        ({"title": "a", "priority": 5, "android": {"priority": "high"}}, "`android.priority`"),
        ({"title": "a", "collapse_id": "x", "android": {"collapse_key": "y"}}, "`collapse_id`"),
        (
            {"title": "a", "badge": 1, "android": {"notification": {"notification_count": 2}}},
            "`badge` differ",
        ),
        (
            {"title": "a", "collapse_id": "x", "android": {"notification": {"tag": "y"}}},
            "`android.notification.tag` and `collapse_id` differ",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_fcm_would_refuse_is_refused_here(fields: dict[str, Any], words: str) -> None:
    """The error names the field and says what to do."""
    with pytest.raises(NotificationError) as error:
        composed(**fields)
    assert words in str(error.value)
    assert error.value.fix
    assert not isinstance(error.value, NotForServiceError)


@pytest.mark.parametrize("key", sorted(RESERVED_DATA_KEYS))
def test_a_key_that_fcm_keeps_is_no_matter_elsewhere(key: str) -> None:
    """It is refused where it goes to FCM, not by the notification itself."""
    notification = Notification.read({"title": "a", "user_info": {key: "x"}})
    with pytest.raises(NotificationError):
        compose(notification, app=APP, now=NOW)


START = {
    "event": "start",
    "title": "Ride",
    "attributes_type": "A",
    "attributes": {},
    "content_state": {},
}


@pytest.mark.parametrize(
    "fields",
    [
        START,
        {"push_type": "voip", "user_info": {"k": 1}},
        {"push_type": "location"},
        {"push_type": "widgets", "content_changed": True},
        {"title": "a", "content_changed": True},
        {"badge": 3},
        {"sound": "default"},
        {"subtitle": "b"},
        {"loc_key": "order.sent"},
        {"payload": {"aps": {"alert": "a"}}},
    ],
    ids="-".join,
)
def test_what_only_apples_devices_take_is_left_out(fields: dict[str, Any]) -> None:
    """Such a send reaches the others; the error is one of its own."""
    with pytest.raises(NotForServiceError):
        composed(**fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"title": "a", "body": "b", "color": "#ffffff", "category": "c"}, []),
        ({"title": "a", "subtitle": "b"}, ["`subtitle` is not shown"]),
        (
            {"title": "a", "interruption_level": "passive", "relevance_score": 0.5},
            ["`interruption_level`", "`relevance_score`"],
        ),
        ({"title": "a", "payload": {"k": 1}}, ["`payload`"]),
        ({"title": "a", "title_loc_key": "a.b"}, ["`title_loc_key` is no name"]),
        ({"title": "a", "content_available": True}, ["`content_available`"]),
        ({"user_info": {"a": 1}, "badge": 1, "sound": "x"}, ["`badge`", "`sound`"]),
        ({"title": "a", "sound": {"critical": True, "name": "x"}}, ["`sound` is not played"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_what_does_nothing_on_android_is_told(fields: dict[str, Any], words: list[str]) -> None:
    """A preview says of each such field that it does nothing."""
    told = unsupported(Notification.read(fields))
    assert len(told) == len(words)
    assert all(any(word in sentence for sentence in told) for word in words)


# -- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        lambda size: {"title": "a", "body": "b" * size},
        lambda size: {"title": "é", "body": "b" * size},
        lambda size: {"silent": True, "user_info": {"k": "v" * size}},
        lambda size: {"title": "a", "ttl": 60, "url": "https://x.y/" + "z" * size},
    ],
    ids=["text", "accents", "data", "link"],
)
def test_the_limit_is_4096_bytes(build: Any) -> None:
    """The message as JSON, in UTF-8, without its target; one byte more is an error that tells."""
    spare = 4096 - len(composed(**build(1)).payload)
    assert len(composed(**build(1 + spare)).payload) == 4096
    with pytest.raises(PayloadTooLargeError, match="1 more than the 4,096 that FCM takes") as error:
        composed(**build(2 + spare))
    assert (error.value.size, error.value.limit) == (4097, 4096)


def test_the_largest_field_is_named() -> None:
    """A member of the data by its name."""
    with pytest.raises(PayloadTooLargeError, match=r"`user_info\.big`"):
        composed(title="a", user_info={"big": "x" * 5000, "small": "y"})


def test_texts_are_cut_to_fit() -> None:
    """Where that is allowed, the body is cut in each language, and a warning says how much."""
    notification = Notification.read(
        {"title": "a", "body": "b" * 5000, "shorten": True, "languages": {"fr": {"body": "c"}}}
    )
    wordings = compose_each(compose, notification, app=APP, now=NOW, notification_id="ntf_1")
    assert len(wordings.own.message.payload) <= 4096
    assert "`body` was cut from 5,000" in wordings.warnings[0]
    french = json.loads(wordings.message_for("fr-CA").payload)
    assert french["notification"] == {"title": "a", "body": "c"}


# -- anything ------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.text(min_size=1, max_size=20), VALUES, max_size=5))
def test_data_are_texts_that_tell_the_value(info: dict[str, Any]) -> None:
    """Each value can be read again: a text as it is, anything else from its JSON."""
    try:
        data = message_of(title="a", user_info=info).get("data", {})
    except NotificationError:
        return
    assert data.keys() == info.keys()
    for key, value in info.items():
        assert isinstance(data[key], str)
        assert data[key] == value if isinstance(value, str) else json.loads(data[key]) == value


# -- the hatch -----------------------------------------------------------------------------------

RIGHT: dict[Kind, list[Any]] = {
    Kind.TEXT: ["x"],
    Kind.TEXTS: [["x", ""]],
    Kind.FLAG: [True],
    Kind.WHOLE: [3],
    Kind.COLOR: ["#1e90ff"],
    Kind.INSTANT: ["2027-03-01T09:00:00Z", "2027-03-01T09:00:00.5+01:00"],
    Kind.DURATION: ["3s", "3.5s"],
    Kind.DURATIONS: [["0s", "0.25s"]],
    Kind.NOTIFICATION: [{"title": "x"}],
    Kind.LIGHT: [
        {
            "color": {"red": 0, "green": 0.5, "blue": 1, "alpha": 1},
            "light_on_duration": "1s",
            "light_off_duration": "3.5s",
        }
    ],
    Kind.OPTIONS: [{"analytics_label": "a-b_c.d~%"}],
    Kind.TEXT_MAPPING: [],
    **{kind: list(known) for kind, known in ENUMS.items()},
}
WRONG: dict[Kind, list[Any]] = {
    Kind.TEXT: ["", 7, [], {}],
    Kind.TEXTS: ["x", [1], {}],
    Kind.FLAG: ["yes", 7, []],
    Kind.WHOLE: ["1", -1, 1.5, True],
    Kind.COLOR: ["red", "#12345", 7],
    Kind.INSTANT: ["tomorrow", "2027-03-01", "2027-03-01T09:00:00", 7],
    Kind.DURATION: ["3", "-3s", "3 s", 3],
    Kind.DURATIONS: ["3s", [3], ["x"]],
    Kind.NOTIFICATION: ["x", [], {"x": 1}, {"title": 7}],
    Kind.LIGHT: [{}, "x", {"color": "#ffffff"}, {"x": 1}],
    Kind.OPTIONS: [{}, "x", {"analytics_label": "a b"}, {"other": "x"}],
    Kind.TEXT_MAPPING: [{"a": "b"}],
    **{kind: ["other", "", 7] for kind in ENUMS},
}
MEMBERS = [
    *(pytest.param(("android", name), kind, id=name) for name, kind in ANDROID.items()),
    *(
        pytest.param(("android", "notification", name), kind, id=f"notification-{name}")
        for name, kind in ANDROID_NOTIFICATION.items()
    ),
]


def within(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return a notification with a member of the hatch."""
    beside = {}
    if path[-1].endswith("_loc_args"):
        beside = {path[-1].replace("_args", "_key"): "k"}
    inner = {path[-1]: value, **beside}
    hatch = {path[1]: inner} if len(path) == 3 else inner
    return {"title": "a", "android": hatch}


@pytest.mark.parametrize(("path", "kind"), MEMBERS)
def test_each_member_of_android_is_checked(path: tuple[str, ...], kind: Kind) -> None:
    """A right value is sent as it is; a wrong one is an error with its path."""
    if path != ("android", "ttl"):
        for value in RIGHT[kind]:
            told = message_of(**within(path, value))
            for name in path:
                told = told[name]
            assert told == value
    for value in WRONG[kind]:
        with pytest.raises(NotificationError) as error:
            Notification.read(within(path, value))
        assert ".".join(path) in str(error.value)


@pytest.mark.parametrize(
    ("hatch", "words"),
    [
        ([], "`android` is a list"),
        ({"ttl": "60s"}, "Use the field `ttl`"),
        ({"data": {"a": "b"}}, "Use the field `user_info`"),
        ({"colapse_key": "x"}, "Did you mean `collapse_key`"),
        ({"notification": {"chanel_id": "x"}}, "Did you mean `channel_id`"),
        ({"notification": {"tag": "x", "channelId": "a", "channel_id": "b"}}, "two spellings"),
        ({"notification": {"body_loc_args": ["x"]}}, "without `android.notification.body_loc_key`"),
        ({"notification": {"ticker": "-----BEGIN PRIVATE KEY-----"}}, "holds a private key"),
        ({"notification": {"vibrate_timings": ["1s", "x"]}}, "vibrate_timings[1]"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_hatch_is_told(hatch: Any, words: str) -> None:
    """The error says which member, and what to use instead."""
    with pytest.raises(NotificationError) as error:
        Notification.read({"title": "a", "android": hatch})
    assert words in str(error.value)


def test_the_hatch_is_kept_as_it_was_read() -> None:
    """It goes through storage unchanged, is absent when empty, and says nothing alone."""
    notification = Notification.read(
        {"title": "a", "android": {"notification": {"channelId": "x"}, "priority": "HIGH"}}
    )
    assert notification.android == {"notification": {"channel_id": "x"}, "priority": "high"}
    assert Notification.read(notification.to_dict()) == notification
    assert Notification(title="a", android={}).android is None
    with pytest.raises(NotificationError, match="nothing to show"):
        Notification(android={"notification": {"title": "a"}})


@given(st.dictionaries(st.sampled_from([*ANDROID, "x", ""]), VALUES, max_size=4))
def test_any_hatch_is_read_or_refused(hatch: dict[str, Any]) -> None:
    """Whatever is given, it is sent as JSON or refused in words."""
    try:
        notification = Notification.read({"title": "a", "android": hatch})
    except NotificationError:
        return
    assert json.loads(compose(notification, app=APP, now=NOW).payload)["notification"]


TEXTS_OF_THE_HATCH: dict[str, Any] = {
    "priority": "{{ word }}",
    "notification": {
        "channelId": "{{ word }}",
        "color": "{{ color }}",
        "event_time": "{{ at }}",
        "vibrate_timings": ["1s", "{{ time }}"],
        "visibility": "{{ seen }}",
        "light_settings": {
            "color": {"red": 1},
            "light_on_duration": "{{ time }}",
            "light_off_duration": "1s",
        },
    },
}


def test_the_hatch_of_a_template_holds_expressions() -> None:
    """A template is taken for what it may become; what it becomes is checked like any other."""
    template = Template.read(
        {"notification": {"title": "a", "android": TEXTS_OF_THE_HATCH}}, name="a"
    )
    right = {
        "word": "high",
        "color": "#1e90ff",
        "at": "2027-03-01T09:00:00Z",
        "time": "0.5s",
        "seen": "PUBLIC",
    }
    notification = template.render(right)
    assert notification.android is not None
    assert notification.android["notification"]["vibrate_timings"] == ["1s", "0.5s"]
    with pytest.raises(NotificationError, match=r"`android\.notification\.color`"):
        template.render({**right, "color": "red"})
