import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.apps.app import App
from handbell.creation.notification import SPELLINGS, Notification
from handbell.errors import NotificationError, PayloadTooLargeError
from handbell.gateways.apns.compose import compose
from handbell.gateways.gateway import Message
from handbell.services.apns.protocol import DEFAULT_PRIORITY, PUSH_TYPES

NOW = 1_800_000_000.5
BUNDLE_ID = "com.sample.myapp"
APP = App(team_id="TEAM123456", bundle_id=BUNDLE_ID)
START = {
    "event": "start",
    "title": "Ride",
    "body": "On its way",
    "attributes_type": "RideAttributes",
    "attributes": {"id": "42"},
    "content_state": {"eta": 7},
}


def composed(**fields: Any) -> Message:
    """Compose a notification of these fields."""
    return compose(Notification.read(fields), app=APP, now=NOW)


def payload_of(**fields: Any) -> Any:
    """Return the payload of these fields as JSON reads it."""
    return json.loads(composed(**fields).payload)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"title": "a", "body": "b"}, {"aps": {"alert": {"title": "a", "body": "b"}}}),
        ({"body": "b", "subtitle": ""}, {"aps": {"alert": {"body": "b"}}}),
        ({"badge": 0}, {"aps": {"badge": 0}}),
        (
            {"title": "a", "sound": "default", "thread_id": "t", "category": "c"},
            {
                "aps": {
                    "alert": {"title": "a"},
                    "thread-id": "t",
                    "category": "c",
                    "sound": "default",
                }
            },
        ),
        (
            {"sound": {"critical": True, "name": "alarm", "volume": 0.5}},
            {"aps": {"sound": {"critical": 1, "name": "alarm", "volume": 0.5}}},
        ),
        (
            {"locKey": "K", "locArgs": ["x"], "titleLocKey": "T", "launchImage": "i"},
            {
                "aps": {
                    "alert": {
                        "loc-key": "K",
                        "loc-args": ["x"],
                        "title-loc-key": "T",
                        "launch-image": "i",
                    }
                }
            },
        ),
        (
            {"title": "a", "interruption_level": "time-sensitive", "relevance_score": 0},
            {
                "aps": {
                    "alert": {"title": "a"},
                    "interruption-level": "time-sensitive",
                    "relevance-score": 0,
                }
            },
        ),
        (
            {"title": "a", "target_content_id": "w", "filter_criteria": "f", "color": "#112233"},
            {"aps": {"alert": {"title": "a"}, "target-content-id": "w", "filter-criteria": "f"}},
        ),
        (
            {"title": "a", "imageUrl": "https://x/y.png"},
            {
                "aps": {"alert": {"title": "a"}, "mutable-content": 1},
                "data": {"media-url": "https://x/y.png"},
            },
        ),
        (
            {"title": "a", "url": "app://x", "user_info": {"n": 1, "url": "app://x"}},
            {"aps": {"alert": {"title": "a"}, "url": "app://x"}, "url": "app://x", "n": 1},
        ),
        (
            {"title": "a", "content_available": True},
            {"aps": {"alert": {"title": "a"}, "content-available": 1}},
        ),
        ({"silent": True, "user_info": {"n": 1}}, {"aps": {"content-available": 1}, "n": 1}),
        ({"push_type": "background"}, {"aps": {"content-available": 1}}),
        ({"push_type": "widgets"}, {"aps": {"content-changed": True}}),
        (
            {"push_type": "controls", "content_changed": True},
            {"aps": {"content-changed": True}},
        ),
        ({"push_type": "location"}, {"aps": {}}),
        ({"push_type": "voip", "user_info": {"call": 7}}, {"aps": {}, "call": 7}),
        (
            {**START, "sound": "default", "inputPushToken": True, "staleDate": 1_800_003_600},
            {
                "aps": {
                    "timestamp": 1_800_000_000,
                    "event": "start",
                    "content-state": {"eta": 7},
                    "stale-date": 1_800_003_600,
                    "attributes-type": "RideAttributes",
                    "attributes": {"id": "42"},
                    "input-push-token": 1,
                    "alert": {"title": "Ride", "body": "On its way", "sound": "default"},
                }
            },
        ),
        (
            {
                "event": "end",
                "content_state": {},
                "timestamp": 7,
                "dismissal_date": 8,
                "titleLocKey": "T",
                "locKey": "K",
                "locArgs": ["x"],
                "relevanceScore": 100,
            },
            {
                "aps": {
                    "timestamp": 7,
                    "event": "end",
                    "content-state": {},
                    "dismissal-date": 8,
                    "relevance-score": 100,
                    "alert": {
                        "title": {"loc-key": "T"},
                        "body": {"loc-key": "K", "loc-args": ["x"]},
                    },
                }
            },
        ),
    ],
)
def test_what_is_written(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each field goes to the place where Apple, or the app, looks for it."""
    assert payload_of(**fields) == expected


@pytest.mark.parametrize(
    ("fields", "push_type", "topic_suffix", "priority"),
    [
        ({"title": "a"}, "alert", "", 10),
        ({"badge": 0}, "alert", "", 10),
        ({"sound": "default"}, "alert", "", 10),
        ({"loc_key": "k"}, "alert", "", 10),
        ({"title": "a", "content_available": True}, "alert", "", 10),
        ({"title": "a", "priority": 1}, "alert", "", 1),
        ({"title": "a", "push_type": "alert", "priority": 5}, "alert", "", 5),
        ({"silent": True}, "background", "", 5),
        ({"content_available": True}, "background", "", 5),
        ({"content_available": True, "priority": 5}, "background", "", 5),
        ({"push_type": "location"}, "location", ".location-query", 10),
        ({"push_type": "voip"}, "voip", ".voip", 10),
        ({"push_type": "complication"}, "complication", ".complication", 10),
        ({"push_type": "fileprovider"}, "fileprovider", ".pushkit.fileprovider", 10),
        ({"push_type": "pushtotalk"}, "pushtotalk", ".voip-ptt", 10),
        ({"push_type": "controls"}, "controls", ".push-type.controls", 10),
        ({"push_type": "widgets"}, "widgets", ".push-type.widgets", 10),
        (START, "liveactivity", ".push-type.liveactivity", 10),
        ({**START, "priority": 5}, "liveactivity", ".push-type.liveactivity", 5),
    ],
)
def test_type_topic_and_priority(
    fields: dict[str, Any], push_type: str, topic_suffix: str, priority: int
) -> None:
    """The push type follows from the content or is given; topic and priority follow from it."""
    message = composed(**fields)
    assert message.push_type == push_type
    assert message.topic == BUNDLE_ID + topic_suffix
    assert message.priority == priority
    # Apple's default goes without saying.
    said = () if priority == DEFAULT_PRIORITY else (("apns-priority", str(priority)),)
    assert message.headers == (
        ("apns-topic", BUNDLE_ID + topic_suffix),
        ("apns-push-type", push_type),
        *said,
        ("content-type", "application/json"),
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ttl": 0}, 0),
        ({"ttl": 60}, 1_800_000_060),
        ({"expires_at": 1_800_000_001}, 1_800_000_001),
        ({"expires_at": 0}, 0),
    ],
)
def test_expiration(options: dict[str, Any], expected: int) -> None:
    """The expiry goes out in UNIX seconds; 0 stays Apple's word for one attempt."""
    message = composed(title="a", **options)
    assert message.expires_at == expected
    assert ("apns-expiration", str(expected)) in message.headers


def test_all_headers_in_order() -> None:
    """The headers come in one fixed order, and none twice."""
    message = composed(title="a", ttl=60, collapse_id="score", priority=5)
    assert message.headers == (
        ("apns-topic", BUNDLE_ID),
        ("apns-push-type", "alert"),
        ("apns-priority", "5"),
        ("apns-expiration", "1800000060"),
        ("apns-collapse-id", "score"),
        ("content-type", "application/json"),
    )
    assert message.collapse_id == "score"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"silent": True, "priority": 10}, ["`priority` is 10", "background", "must be 5"]),
        ({"content_available": True, "priority": 1}, ["must be 5"]),
        ({"title": "a", "priority": 7}, ["`priority` is 7", "10 or 5 or 1"]),
        ({**START, "priority": 1}, ["liveactivity", "10 or 5"]),
        ({"push_type": "background", "title": "a"}, ["`title`", "background"]),
        ({"push_type": "background", "badge": 0}, ["`badge`", "background"]),
        ({"push_type": "background", "sound": "default"}, ["`sound`", "background"]),
        ({"push_type": "background", "image_url": "x"}, ["`image_url`", "background"]),
        ({"silent": True, "mutable_content": True}, ["`mutable_content`", "background"]),
        ({"push_type": "location", "title": "a"}, ["`title`", "location"]),
        ({"push_type": "location", "content_available": 1}, ["`content_available`"]),
        ({"push_type": "alert"}, ["nothing to show"]),
        ({"push_type": "alert", "content_available": True}, ["nothing to show"]),
        ({"push_type": "alert", "silent": True}, ["`silent`", "alert"]),
        ({"push_type": "voip", "silent": True}, ["`silent`", "voip"]),
        ({"push_type": "mdm"}, ["mdm is not supported"]),
        ({"push_type": "bakground"}, ["`push_type` is 'bakground'", "Did you mean background?"]),
        ({"push_type": "x"}, ["must be one of alert, background"]),
        ({"badge": 1, "mutable_content": True}, ["`mutable_content`", "without a text"]),
        ({"sound": "default", "image_url": "x"}, ["`image_url`", "without a text"]),
        ({"content_changed": True}, ["`content_changed`", "`widgets`"]),
        ({"title": "a", "content_changed": True}, ["`widgets`"]),
        ({"push_type": "alert", "title": "a", "content_changed": True}, ["`content_changed`"]),
        ({"push_type": "widgets", "title": "a"}, ["`title`", "widgets"]),
        ({"push_type": "controls", "event": "end"}, ["`event`", "controls"]),
        ({"title": "a", "interruption_level": "timeSensitive"}, ["Did you mean time-sensitive?"]),
        ({"title": "a", "interruption_level": "loud"}, ["passive, active, time-sensitive"]),
        ({"title": "a", "relevance_score": 1.01}, ["`relevance_score` is 1.01"]),
        ({"title": "a", "relevance_score": -1}, ["`relevance_score` is -1"]),
        ({"title": "a", "collapse_id": "x" * 65}, ["65 bytes", "64"]),
        ({"title": "a", "collapse_id": "🔔" * 17}, ["68 bytes"]),
        ({"title": "a", "collapse_id": "a\r\napns-priority: 10"}, ["no header can carry"]),
        ({"title": "a", "collapse_id": " a"}, ["no header can carry"]),
        ({"title": "a", "expires_at": 1_800_000_000}, ["`expires_at` was 0 seconds ago"]),
        ({"title": "a", "expires_at": 1_799_999_000}, ["1,000 seconds ago"]),
        ({"title": "a", "stale_date": 1}, ["`stale_date`", "set `event`"]),
        ({"title": "a", "input_push_token": True}, ["`input_push_token`", "set `event`"]),
        ({"push_type": "alert", **START}, ["`event`", "leave `push_type` out"]),
        ({"push_type": "liveactivity", "title": "a"}, ["`event` is missing"]),
        ({"event": "stop", "content_state": {}}, ["`event` is 'stop'"]),
        ({"event": "update"}, ["`content_state` is missing"]),
        ({**START, "content_state": None}, ["`content_state` is missing"]),
        ({**START, "attributes": None}, ["`attributes` is missing"]),
        ({**START, "attributes_type": None}, ["`attributes_type` is missing"]),
        ({**START, "title": None, "body": None}, ["`title` is missing"]),
        ({"event": "end", "content_state": {}, "attributes": {}}, ["`attributes`", "start"]),
        ({"event": "end", "content_state": {}, "sound": "x"}, ["`sound`", "alert"]),
        ({**START, "sound": {"critical": 1}}, ["no critical sound"]),
        ({**START, "badge": 0}, ["`badge`", "liveactivity"]),
        ({**START, "subtitle": "x"}, ["`subtitle`", "liveactivity"]),
        ({**START, "content_available": True}, ["`content_available`"]),
        ({**START, "image_url": "x"}, ["`image_url`"]),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], words: list[str]) -> None:
    """What Apple would refuse, delay or drop is an error that names the field and the way out."""
    with pytest.raises(NotificationError) as raised:
        composed(**fields)
    for word in words:
        assert word in str(raised.value)
    assert raised.value.fix


def test_collapse_id_of_64_bytes() -> None:
    """The limit is in bytes of UTF-8, and the limit itself is allowed."""
    assert composed(title="a", collapse_id="🔔" * 16).collapse_id == "🔔" * 16


@pytest.mark.parametrize("push_type", [name for name in PUSH_TYPES if name != "mdm"])
def test_every_push_type_can_be_composed(push_type: str) -> None:
    """Each type that Apple lists has a way through, apart from mdm."""
    needed: dict[str, dict[str, Any]] = {"alert": {"title": "a"}, "liveactivity": START}
    assert composed(push_type=push_type, **needed.get(push_type, {})).push_type == push_type


@pytest.mark.parametrize("filler", ["a", "é", "€", "🔔", '"', "\\", "a\n"])
@pytest.mark.parametrize(("push_type", "limit"), [("alert", 4096), ("voip", 5120)])
def test_the_limit_itself_passes_and_one_byte_more_fails(
    filler: str, push_type: str, limit: int
) -> None:
    """The payload's bytes are counted as they go out, whatever characters they are of."""
    frame = len(composed(title="a", push_type=push_type).payload) - 1
    each = len(json.dumps(filler, ensure_ascii=False).encode()) - 2
    whole, rest = divmod(limit - frame, each)
    title = filler * whole + "x" * rest
    assert len(composed(title=title, push_type=push_type).payload) == limit
    with pytest.raises(PayloadTooLargeError) as raised:
        composed(title=title + "x", push_type=push_type)
    assert (raised.value.size, raised.value.limit) == (limit + 1, limit)
    assert "1 more than" in str(raised.value)


def test_an_emoji_across_the_limit() -> None:
    """An emoji that begins within the limit and ends beyond counts with all its four bytes."""
    frame = len(composed(title="a").payload) - 1
    title = "x" * (4096 - frame - 2)
    with pytest.raises(PayloadTooLargeError) as raised:
        composed(title=title + "🔔")
    assert raised.value.size == 4098


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"title": "a", "body": "x" * 5000}, "`body`"),
        ({"title": "a", "user_info": {"small": 1, "notes": "x" * 5000}}, "`user_info.notes`"),
        ({**START, "content_state": {"map": "x" * 5000}}, "`content_state.map`"),
    ],
)
def test_too_large_names_the_largest_field(fields: dict[str, Any], field: str) -> None:
    """The error says by how much it is too large, and where the bytes are."""
    with pytest.raises(PayloadTooLargeError) as raised:
        composed(**fields)
    assert field in raised.value.fix
    assert f"{raised.value.size - raised.value.limit:,} more" in str(raised.value)


def test_bytes_are_compact_utf_8() -> None:
    """Nothing is escaped that need not be, and no blank is spent."""
    assert composed(body="Hé 🔔").payload == '{"aps":{"alert":{"body":"Hé 🔔"}}}'.encode()


def test_a_notification_that_has_an_id_tells_it_to_the_device() -> None:
    """The id stands beside ``aps``, and counts among the bytes."""
    notification = Notification(title="a")
    told = compose(notification, app=APP, now=NOW, notification_id="0123456789abcde")
    assert told.payload == b'{"aps":{"alert":{"title":"a"}},"handbell":"0123456789abcde"}'


def test_composing_changes_nothing() -> None:
    """The notification is the same after it was composed, so that it can be composed again."""
    notification = Notification(title="a", url="u", image_url="i", user_info={"n": [1]})
    before = copy.deepcopy(notification)
    first = compose(notification, app=APP, now=NOW)
    assert notification == before
    assert compose(notification, app=APP, now=NOW) == first


TEXTS = st.text(max_size=6)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "title": TEXTS,
        "body": st.text(),
        "loc_key": TEXTS,
        "badge": st.integers(0, 9),
        "sound": st.sampled_from(["default", {"critical": 1}]),
        "silent": st.booleans(),
        "content_available": st.booleans(),
        "mutable_content": st.booleans(),
        "content_changed": st.booleans(),
        "event": st.sampled_from(["start", "update", "end", "other"]),
        "content_state": st.dictionaries(TEXTS, st.floats(allow_nan=False)),
        "attributes": st.dictionaries(TEXTS, st.integers(0, 9)),
        "attributes_type": TEXTS,
        "priority": st.sampled_from([1, 5, 10, 7]),
        "push_type": st.sampled_from([*PUSH_TYPES, "other"]),
        "interruption_level": st.sampled_from(["active", "critical", "other"]),
        "relevance_score": st.floats(),
        "collapse_id": st.text(max_size=70),
        "url": TEXTS,
        "image_url": TEXTS,
        "user_info": st.dictionaries(TEXTS, st.text() | st.lists(st.booleans())),
        "ttl": st.integers(0, 9),
    },
)
UNTYPED: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from(sorted(SPELLINGS)),
    st.booleans() | st.integers() | st.floats() | st.text() | st.just({}) | st.just([]),
)


@given(FIELDS | UNTYPED)
def test_composes_or_says_why(fields: dict[str, Any]) -> None:
    """Whatever is read becomes a message within the limits, or a NotificationError."""
    try:
        message = composed(**fields)
    except NotificationError as error:
        assert error.fix  # noqa: PT017 -- most combinations are refused
        return
    kind = PUSH_TYPES[message.push_type]
    assert len(message.payload) <= kind.max_payload_bytes
    assert message.priority in kind.priorities
    names = [name for name, _ in message.headers]
    assert len(names) == len(set(names))
    assert all(value.isprintable() for _, value in message.headers)
    assert isinstance(json.loads(message.payload)["aps"], dict)


@given(
    st.text(),
    st.dictionaries(st.text().filter(lambda key: key not in ("aps", "data", "handbell")), TEXTS),
)
def test_size_is_that_of_the_json(body: str, info: dict[str, str]) -> None:
    """What goes out is the plain JSON of the payload, in UTF-8, no byte more."""
    message = composed(badge=1, body=body, user_info=info)
    again = json.dumps(json.loads(message.payload), ensure_ascii=False, separators=(",", ":"))
    assert message.payload == again.encode()
