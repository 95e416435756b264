"""firebase-admin's own encoder judges what we compose for FCM."""

import json
from typing import Any

import pytest
from tests.contract.clients.tools import HERE, python_venv, run

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.gateways.fcm.compose import compose

APP = App(android_package="com.sample.myapp")
NOW = 1_800_000_000.0
LIGHT = {
    "color": {"red": 0.0, "green": 1.0, "blue": 0.0, "alpha": 1.0},
    "light_on_duration": "1s",
    "light_off_duration": "3.500000000s",
}

# A notification of ours, and the arguments by which firebase-admin is told the same.
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "texts",
        {"title": "Hello", "body": "Grüße 👋", "image_url": "https://x.y/z.png"},
        {
            "notification": {
                "title": "Hello",
                "body": "Grüße 👋",
                "image": "https://x.y/z.png",
            }
        },
    ),
    (
        "data",
        {"silent": True, "user_info": {"text": "a", "n": 7, "deep": {"k": [1, None]}}},
        {"data": {"text": "a", "n": "7", "deep": '{"k":[1,null]}'}},
    ),
    (
        "delivery",
        {"title": "a", "ttl": 3600, "priority": 10, "collapse_id": "order-4711"},
        {
            "notification": {"title": "a"},
            "android": {
                "ttl": 3600,
                "priority": "high",
                "collapse_key": "order-4711",
                "notification": {"tag": "order-4711"},
            },
        },
    ),
    (
        "now-or-never",
        {"title": "a", "expires_at": 0, "priority": 5},
        {"notification": {"title": "a"}, "android": {"ttl": 0, "priority": "normal"}},
    ),
    (
        "presentation",
        {"title": "a", "sound": "van.caf", "badge": 3, "color": "#1E90FF"},
        {
            "notification": {"title": "a"},
            "android": {
                "notification": {"sound": "van", "notification_count": 3, "color": "#1e90ff"}
            },
        },
    ),
    (
        "resources",
        {
            "title_loc_key": "title_key",
            "title_loc_args": ["x"],
            "loc_key": "body_key",
            "loc_args": ["y", "z"],
        },
        {
            "android": {
                "notification": {
                    "title_loc_key": "title_key",
                    "title_loc_args": ["x"],
                    "body_loc_key": "body_key",
                    "body_loc_args": ["y", "z"],
                }
            }
        },
    ),
    (
        "for-the-app",
        {"title": "a", "url": "https://x.y", "category": "ORDER", "thread_id": "t"},
        {
            "notification": {"title": "a"},
            "data": {"url": "https://x.y", "category": "ORDER", "thread_id": "t"},
        },
    ),
    (
        "hatch",
        {
            "title": "a",
            "android": {
                "directBootOk": True,
                "bandwidth_constrained_ok": True,
                "restricted_satellite_ok": True,
                "restricted_package_name": "com.sample.myapp",
                "fcm_options": {"analytics_label": "spring"},
                "notification": {
                    "title": "b",
                    "body": "c",
                    "icon": "bell",
                    "click_action": "OPEN",
                    "channel_id": "orders",
                    "image": "https://x.y/z.png",
                    "ticker": "d",
                    "sticky": True,
                    "event_time": "2027-03-01T09:00:00.000000Z",
                    "local_only": True,
                    "notification_priority": "PRIORITY_HIGH",
                    "vibrate_timings": ["0.500000000s", "1s"],
                    "default_vibrate_timings": True,
                    "default_sound": True,
                    "default_light_settings": True,
                    "light_settings": LIGHT,
                    "visibility": "PRIVATE",
                    "proxy": "DENY",
                },
            },
        },
        {
            "notification": {"title": "a"},
            "android": {
                "direct_boot_ok": True,
                "bandwidth_constrained_ok": True,
                "restricted_satellite_ok": True,
                "restricted_package_name": "com.sample.myapp",
                "fcm_options": {"analytics_label": "spring"},
                "notification": {
                    "title": "b",
                    "body": "c",
                    "icon": "bell",
                    "click_action": "OPEN",
                    "channel_id": "orders",
                    "image": "https://x.y/z.png",
                    "ticker": "d",
                    "sticky": True,
                    "event_timestamp": "2027-03-01T09:00:00+00:00",
                    "local_only": True,
                    "priority": "high",
                    "vibrate_timings_millis": [500, 1000],
                    "default_vibrate_timings": True,
                    "default_sound": True,
                    "default_light_settings": True,
                    "light_settings": {
                        "color": "#00ff00ff",
                        "light_on_duration_millis": 1000,
                        "light_off_duration_millis": 3500,
                    },
                    "visibility": "private",
                    "proxy": "deny",
                },
            },
        },
    ),
]


@pytest.fixture(scope="module")
def encoded() -> list[Any]:
    """Return what firebase-admin makes of each case."""
    python = python_venv("firebase-admin")
    given = json.dumps([arguments for _, _, arguments in CASES])
    done = run([python, HERE / "firebase-admin" / "encode.py"], given=given)
    assert done.returncode == 0, done.stderr
    messages: list[Any] = json.loads(done.stdout)
    return messages


@pytest.mark.judge("firebase-admin")
@pytest.mark.parametrize("number", range(len(CASES)), ids=[name for name, _, _ in CASES])
def test_google_own_library_makes_the_same_message(number: int, encoded: list[Any]) -> None:
    """The same content, told to both, is the same message on the wire."""
    notification = Notification.read(CASES[number][1])
    ours = json.loads(compose(notification, app=APP, now=NOW).payload)
    assert {"token": "registration-token", **ours} == encoded[number]
