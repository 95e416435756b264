"""Composing for an Apple device that is reached through FCM: what APNs takes, in FCM's block."""

import json
from typing import Any

import pytest

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.errors import NotForServiceError, NotificationError, PayloadTooLargeError
from handbell.gateways.apns import compose as apns
from handbell.gateways.composers import composer
from handbell.gateways.fcm import compose_apple
from handbell.services.forms import FCM_APPLE, form_of, forms_of

NOW = 1_800_000_000.5
ID = "01890a5d-ac96-774b-bcce-b302099a8057"
APP = App(android_package="com.sample.myapp")
APPLE_APP = App.read_id("TEAM123456.com.sample.myapp")


def block_of(*, notification_id: str = ID, **fields: Any) -> Any:
    """Return the block for Apple of these fields as JSON reads it."""
    compose = composer(FCM_APPLE).compose
    notification = Notification.read(fields)
    message = compose(notification, app=APP, now=NOW, notification_id=notification_id)
    whole = json.loads(message.payload)
    assert set(whole) == {"apns"}, "nothing of Android's goes along"
    return whole["apns"]


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"title": "a"}, {"apns-push-type": "alert", "apns-collapse-id": ID}),
        ({"title": "a", "collapse_id": "b"}, {"apns-push-type": "alert", "apns-collapse-id": "b"}),
        (
            {"title": "a", "priority": 5},
            {"apns-push-type": "alert", "apns-priority": "5", "apns-collapse-id": ID},
        ),
        (
            {"title": "a", "ttl": 60},
            {"apns-push-type": "alert", "apns-expiration": "1800000060", "apns-collapse-id": ID},
        ),
        (
            {"title": "a", "ttl": 0},
            {"apns-push-type": "alert", "apns-expiration": "0", "apns-collapse-id": ID},
        ),
        (
            {"silent": True, "user_info": {"n": 1}},
            {"apns-push-type": "background", "apns-priority": "5", "apns-collapse-id": ID},
        ),
    ],
)
def test_the_headers_are_apples(fields: dict[str, Any], headers: dict[str, str]) -> None:
    """All but the topic, which FCM knows; a repeat replaces what it repeats."""
    assert block_of(**fields)["headers"] == headers


@pytest.mark.parametrize(
    "fields",
    [
        {"title": "a", "subtitle": "b", "body": "c", "badge": 3, "sound": "van.caf"},
        {"title_loc_key": "order.shipped", "title_loc_args": ["4711"], "badge": 0},
        {"body": "a", "category": "ORDER", "thread_id": "t", "interruption_level": "passive"},
        {"body": "a", "mutable_content": True, "relevance_score": 0.5, "target_content_id": "w"},
        {"body": "a", "sound": {"name": "a", "critical": True, "volume": 0.5}},
        {"title": "a", "url": "app://x", "user_info": {"entity": {"primaryKey": 42}}},
        {"title": "a", "payload": {"aps": {"new-key": 1}, "own": [1]}},
        {"badge": 1},
        {"content_available": True, "user_info": {"n": 1}},
        {"title": "a", "color": "#102030", "android": {"priority": "high"}},
    ],
)
def test_the_payload_is_the_one_that_apns_gets(fields: dict[str, Any]) -> None:
    """Whichever way a device is reached, its app reads the same."""
    notification = Notification.read(fields)
    direct = apns.compose(notification, app=APPLE_APP, now=NOW, notification_id=ID)
    assert block_of(**fields)["payload"] == json.loads(direct.payload)


def test_a_picture_is_where_firebases_extension_looks_for_it() -> None:
    """And where an extension of the app's own finds it, as by APNs."""
    block = block_of(title="a", image_url="https://x.y/z.png")
    assert block["fcm_options"] == {"image": "https://x.y/z.png"}
    assert block["payload"]["data"] == {"media-url": "https://x.y/z.png"}
    assert block["payload"]["aps"]["mutable-content"] == 1
    assert "fcm_options" not in block_of(title="a")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"push_type": "voip", "user_info": {"n": 1}}, NotForServiceError),
        ({"push_type": "widgets", "content_changed": True}, NotForServiceError),
        (
            {"event": "update", "content_state": {"n": 1}, "timestamp": 1_800_000_000},
            NotForServiceError,
        ),
        ({"title": "a", "collapse_id": "é" * 33}, NotificationError),
        ({"title": "a", "body": "x" * 4096}, PayloadTooLargeError),
    ],
)
def test_what_fcm_does_not_hand_on_is_refused(
    fields: dict[str, Any], error: type[NotificationError]
) -> None:
    """Other types of push need a token of Apple's own; the rest is refused as by APNs."""
    with pytest.raises(error):
        block_of(**fields)


def test_only_fcms_sessions_have_a_further_form() -> None:
    """A browser's keys, and whatever another service has beside its token, name none."""
    apple = '{"platform":"apple"}'
    assert form_of("fcm", apple) == FCM_APPLE
    assert forms_of("fcm") == ["fcm", FCM_APPLE]
    assert (form_of("fcm", None), form_of("simulator", None)) == ("fcm", "apns")
    assert (form_of("webpush", '{"auth":"a"}'), form_of("apns", apple)) == ("webpush", "apns")
    assert compose_apple.unsupported(Notification.read({"title": "a", "subtitle": "b"})) == []
