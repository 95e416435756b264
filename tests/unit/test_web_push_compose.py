"""A notification as a browser gets it: every member, every header, and what is refused."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.errors import NotForServiceError, NotificationError, PayloadTooLargeError
from handbell.gateways.webpush.compose import compose, seconds_to_live, topic_of, unsupported
from handbell.gateways.wordings import compose_each
from handbell.services.webpush.protocol import MAX_PLAINTEXT_BYTES, TOPIC_PATTERN

NOW = 1_800_000_000.0
APP = App(name="Shop", web_origin="https://shop.example")
APPLES = App(team_id="TEAM123456", bundle_id="com.sample.shop")
ID = "0190d8a2-7a0e-7cc3-b6fd-4dcbdcd5e0f1"


def _composed(app: App = APP, /, **fields: Any) -> dict[str, Any]:
    message = compose(Notification.read(fields), app=app, now=NOW, notification_id=ID)
    composed: dict[str, Any] = json.loads(message.payload)
    return composed


def _headers(**fields: Any) -> dict[str, str]:
    message = compose(Notification.read({"title": "T", **fields}), app=APP, now=NOW)
    return dict(message.headers)


def test_a_notification_is_a_declarative_message() -> None:
    """Safari shows it by itself, and a service worker reads the same JSON."""
    message = _composed(
        title="Order shipped",
        body="Arrives Friday",
        url="https://shop.example/o/42",
        image_url="https://shop.example/o/42.jpg",
        badge=3,
        collapse_id="order-42",
        user_info={"order": 42},
        mutable_content=True,
    )
    assert message == {
        "web_push": 8030,
        "notification": {
            "title": "Order shipped",
            "body": "Arrives Friday",
            "navigate": "https://shop.example/o/42",
            "tag": "order-42",
            "renotify": True,
            "image": "https://shop.example/o/42.jpg",
            "data": {"order": 42, "url": "https://shop.example/o/42", "handbell": ID},
        },
        "app_badge": 3,
        "mutable": True,
    }


@pytest.mark.parametrize(
    ("fields", "member", "value"),
    [
        pytest.param({"body": "B"}, "title", "Shop", id="the-apps-name-as-title"),
        pytest.param({"title": "T"}, "navigate", "https://shop.example/", id="origin"),
        pytest.param(
            {"title": "T", "url": "/o/1"}, "navigate", "https://shop.example/o/1", id="path"
        ),
        pytest.param(
            {"title": "T", "url": "http://a.example/"}, "navigate", "http://a.example/", id="http"
        ),
        pytest.param(
            {"title": "T", "url": "shop://o/1"}, "navigate", "https://shop.example/", id="app-link"
        ),
        pytest.param({"title": "T"}, "tag", ID, id="the-notification-as-tag"),
        pytest.param({"title": "T", "interruption_level": "passive"}, "silent", True, id="passive"),
        pytest.param({"title": "T", "web": {"lang": "de"}}, "lang", "de", id="lang"),
        pytest.param({"title": "T", "web": {"dir": "rtl"}}, "dir", "rtl", id="dir"),
        pytest.param(
            {"title": "T", "web": {"icon": "/i.png"}},
            "icon",
            "https://shop.example/i.png",
            id="icon",
        ),
        pytest.param(
            {"title": "T", "web": {"badge": "https://cdn.example/b.png"}},
            "badge",
            "https://cdn.example/b.png",
            id="badge",
        ),
        pytest.param({"title": "T", "web": {"tag": "mine"}}, "tag", "mine", id="tag"),
        pytest.param({"title": "T", "web": {"silent": True}}, "silent", True, id="silent"),
        pytest.param(
            {"title": "T", "collapse_id": "c", "web": {"renotify": False}},
            "renotify",
            False,
            id="renotify",
        ),
        pytest.param(
            {"title": "T", "web": {"require_interaction": True}},
            "requireInteraction",
            True,
            id="require-interaction",
        ),
        pytest.param({"title": "T", "web": {"vibrate": 200}}, "vibrate", [200], id="vibrate"),
        pytest.param(
            {"title": "T", "web": {"timestamp": 1_800_000_000_000}},
            "timestamp",
            1_800_000_000_000,
            id="timestamp",
        ),
        pytest.param(
            {"title": "T", "web": {"navigate": "/elsewhere"}},
            "navigate",
            "https://shop.example/elsewhere",
            id="navigate",
        ),
        pytest.param(
            {
                "title": "T",
                "web": {"actions": [{"action": "a", "title": "A", "navigate": "/a", "icon": "/i"}]},
            },
            "actions",
            [
                {
                    "action": "a",
                    "title": "A",
                    "navigate": "https://shop.example/a",
                    "icon": "https://shop.example/i",
                }
            ],
            id="actions",
        ),
    ],
)
def test_each_field_has_its_member(fields: dict[str, Any], member: str, value: object) -> None:
    """What a sender says once for every device stands where a browser looks for it."""
    assert _composed(**fields)["notification"][member] == value


def test_an_app_without_a_web_origin_sends_no_declarative_message() -> None:
    """Without an address to open, as with UnifiedPush, the app itself shows what it gets."""
    message = _composed(APPLES, title="T", body="B")
    assert "web_push" not in message
    assert "navigate" not in message["notification"]
    assert _composed(APPLES, title="T", url="https://a.example/")["web_push"] == 8030


def test_what_replaces_nothing_is_not_announced_again() -> None:
    """A repeat of unknown end has the notification's own tag: it replaces the first in silence."""
    assert "renotify" not in _composed(title="T")["notification"]
    quiet = _composed(title="T", collapse_id="c", interruption_level="passive")
    assert "renotify" not in quiet["notification"]


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        pytest.param({}, "urgency", "high", id="default"),
        pytest.param({"priority": 10}, "urgency", "high", id="10"),
        pytest.param({"priority": 5}, "urgency", "normal", id="5"),
        pytest.param({"priority": 1}, "urgency", "low", id="1"),
        pytest.param({}, "ttl", "2592000", id="no-expiry"),
        pytest.param({"ttl": 60}, "ttl", "60", id="ttl"),
        pytest.param({"expires_at": int(NOW) + 90}, "ttl", "90", id="expires-at"),
        pytest.param({"expires_at": 0}, "ttl", "0", id="now-or-never"),
        pytest.param({"expires_at": int(NOW) + 10**7}, "ttl", "2592000", id="beyond-30-days"),
        pytest.param({}, "content-encoding", "aes128gcm", id="encoding"),
        pytest.param({}, "content-type", "application/octet-stream", id="type"),
        pytest.param({"collapse_id": "order-42"}, "topic", topic_of("order-42"), id="topic"),
    ],
)
def test_each_option_has_its_header(fields: dict[str, Any], name: str, value: str) -> None:
    """TTL, Urgency and Topic are what RFC 8030 makes of them."""
    assert _headers(**fields)[name] == value


def test_without_a_collapse_id_nothing_waiting_is_replaced() -> None:
    """There is no Topic."""
    assert "topic" not in _headers()


@given(st.text(min_size=1, max_size=64), st.text(min_size=1, max_size=64))
def test_a_topic_stands_for_any_collapse_id(one: str, other: str) -> None:
    """It has 32 characters that the header takes, and tells two ids apart."""
    assert TOPIC_PATTERN.fullmatch(topic_of(one))
    assert len(topic_of(one)) == 32
    assert (topic_of(one) == topic_of(other)) == (one == other)


@pytest.mark.parametrize(
    ("expires_at", "later", "seconds"),
    [(None, 0, 2_592_000), (0, 0, 0), (100, 40, 60), (100, 200, 0), (10**7, 0, 2_592_000)],
)
def test_the_time_to_live_counts_down(expires_at: int | None, later: float, seconds: int) -> None:
    """What is sent again later has less of its time left."""
    at = expires_at if not expires_at else int(NOW) + expires_at
    assert seconds_to_live(at, NOW + later) == seconds


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"silent": True}, id="silent"),
        pytest.param({"badge": 3}, id="badge-alone"),
        pytest.param({"sound": "default"}, id="sound-alone"),
        pytest.param({"title_loc_key": "T"}, id="key-alone"),
        pytest.param({"title": "T", "push_type": "voip"}, id="voip"),
        pytest.param({"content_available": True, "push_type": "background"}, id="background"),
        pytest.param({"push_type": "controls", "content_changed": True}, id="controls"),
        pytest.param(
            {"event": "update", "content_state": {"a": 1}, "title": "T"}, id="live-activity"
        ),
    ],
)
def test_what_shows_no_text_is_not_for_browsers(fields: dict[str, Any]) -> None:
    """A push that shows nothing costs a page its permission."""
    with pytest.raises(NotForServiceError) as refused:
        _composed(**fields)
    assert "browser" in refused.value.fix


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        pytest.param({"subtitle": "S"}, "`subtitle`", id="subtitle"),
        pytest.param({"sound": "bell.caf"}, "`sound`", id="sound"),
        pytest.param({"thread_id": "t"}, "`thread_id`", id="thread"),
        pytest.param({"category": "c"}, "`web.actions`", id="category"),
        pytest.param({"interruption_level": "critical"}, "`interruption_level`", id="level"),
        pytest.param({"payload": {"a": 1}}, "`payload`", id="payload"),
        pytest.param({"title_loc_key": "K"}, "`title_loc_key`", id="key"),
    ],
)
def test_what_browsers_ignore_is_told(fields: dict[str, Any], told: str) -> None:
    """The preview says what does nothing there."""
    (sentence,) = unsupported(Notification.read({"title": "T", **fields}))
    assert told in sentence
    assert sentence.endswith(".")


def test_nothing_is_told_of_what_is_shown() -> None:
    """Fields that browsers show have no remark."""
    fields = {"title": "T", "body": "B", "badge": 1, "url": "/", "image_url": "/i", "priority": 5}
    notification = Notification.read(
        {**fields, "interruption_level": "passive", "web": {"lang": "de"}}
    )
    assert unsupported(notification) == []


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        pytest.param({"web": {"title": "X"}}, "the field `title`", id="own-field"),
        pytest.param({"web": {"data": {}}}, "the field `user_info`", id="data"),
        pytest.param({"web": {"urgency": "low"}}, "the field `priority`", id="urgency"),
        pytest.param({"web": {"icom": "/i"}}, "icon", id="misspelt"),
        pytest.param({"web": {"dir": "up"}}, "auto, ltr or rtl", id="dir"),
        pytest.param({"web": {"icon": " "}}, "not empty", id="blank"),
        pytest.param({"web": {"silent": "yes"}}, "true or false", id="flag"),
        pytest.param({"web": {"actions": {}}}, "list", id="actions"),
        pytest.param({"web": {"actions": [{"action": "a"}]}}, r"actions\[0\].title", id="action"),
        pytest.param({"web": {"actions": [{"x": 1}]}}, "x", id="unknown-in-action"),
        pytest.param({"web": {"vibrate": [1] * 100}}, "99", id="vibrate"),
        pytest.param({"web": []}, "a mapping", id="list"),
        pytest.param(
            {"web": {"requireInteraction": True, "require_interaction": True}}, "two", id="twice"
        ),
        pytest.param({"collapse_id": "a", "web": {"tag": "b"}}, "differ", id="tag-differs"),
        pytest.param({"url": "/a", "web": {"navigate": "/b"}}, "differ", id="navigate-differs"),
        pytest.param({"image_url": "/a", "web": {"image": "/b"}}, "differ", id="image-differs"),
        pytest.param({"expires_at": 5}, "ago", id="expired"),
        pytest.param({"web": {"silent": True, "vibrate": 1}}, "silent", id="silent-vibrates"),
        pytest.param(
            {"interruption_level": "passive", "web": {"vibrate": 1}},
            "silent",
            id="passive-vibrates",
        ),
    ],
)
def test_a_contradiction_is_refused(fields: dict[str, Any], told: str) -> None:
    """Nothing is said twice with two meanings, and each error names its place."""
    with pytest.raises(NotificationError) as refused:
        _composed(title="T", **fields)
    assert re.search(told, f"{refused.value.what} {refused.value.fix}")


def _filled(size: int, **fields: Any) -> Notification:
    """Return a notification whose message is of this size."""
    empty = compose(Notification.read({"title": "T", "body": "x", **fields}), app=APP, now=NOW)
    body = "x" * (size - len(empty.payload) + 1)
    return Notification.read({"title": "T", "body": body, **fields})


def test_the_largest_message_is_composed() -> None:
    """3,993 bytes pass, one more does not, and the error names the largest field."""
    assert len(compose(_filled(3993), app=APP, now=NOW).payload) == MAX_PLAINTEXT_BYTES
    with pytest.raises(PayloadTooLargeError, match="1 more than the 3,993") as refused:
        compose(_filled(3994), app=APP, now=NOW)
    assert (refused.value.size, refused.value.limit) == (3994, 3993)
    assert "`body`" in refused.value.fix


@settings(max_examples=25)
@given(st.text(min_size=1200, max_size=2500))
def test_a_text_is_cut_to_fit(text: str) -> None:
    """Where the sender allows it, the body is shortened until the message fits."""
    notification = Notification.read({"title": "T", "body": f"a{text}" * 3, "shorten": True})
    wording = compose_each(compose, notification, app=APP, now=NOW, notification_id=ID).own
    assert len(wording.message.payload) <= MAX_PLAINTEXT_BYTES
    json.loads(wording.message.payload)


def test_each_language_has_its_message() -> None:
    """A page in another language gets that text."""
    notification = Notification.read(
        {"title": "Hello", "languages": {"de": {"title": "Hallo"}}, "collapse_id": "c"}
    )
    wordings = compose_each(compose, notification, app=APP, now=NOW)
    assert json.loads(wordings.message_for("de-AT").payload)["notification"]["title"] == "Hallo"
    assert json.loads(wordings.message_for("fr").payload)["notification"]["title"] == "Hello"
