"""Prints what firebase-admin's own encoder makes of each message that is given as its arguments."""

import json
import sys
from datetime import datetime
from typing import Any

from firebase_admin import messaging

TOKEN = "registration-token"


def light(given: dict[str, Any]) -> messaging.LightSettings:
    """Return the light settings of these arguments."""
    return messaging.LightSettings(**given)


def android(given: dict[str, Any]) -> messaging.AndroidConfig:
    """Return the configuration of Android of these arguments."""
    shown = dict(given.pop("notification", {}))
    if "light_settings" in shown:
        shown["light_settings"] = light(shown["light_settings"])
    if "event_timestamp" in shown:
        shown["event_timestamp"] = datetime.fromisoformat(shown["event_timestamp"])
    if "fcm_options" in given:
        given["fcm_options"] = messaging.AndroidFCMOptions(**given["fcm_options"])
    notification = messaging.AndroidNotification(**shown) if shown else None
    return messaging.AndroidConfig(notification=notification, **given)


def encoded(given: dict[str, Any]) -> Any:
    """Return the message of these arguments as it goes over the wire."""
    if "notification" in given:
        given["notification"] = messaging.Notification(**given["notification"])
    if "android" in given:
        given["android"] = android(given["android"])
    return json.loads(str(messaging.Message(token=TOKEN, **given)))


json.dump([encoded(each) for each in json.load(sys.stdin)], sys.stdout)
