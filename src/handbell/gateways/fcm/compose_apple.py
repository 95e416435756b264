"""Compose a notification for an Apple device that is reached through FCM.

FCM hands the block ``apns`` of a message on to Apple: headers and payload are those that the
device would get by APNs itself. Sources:
https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages#apnsconfig ,
https://firebase.google.com/docs/cloud-messaging/ios/send-image .
"""

from typing import Any

from pydantic_core import to_json

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.errors import NotForServiceError
from handbell.gateways.apns.compose import Content, content_of, headers_of, largest
from handbell.gateways.gateway import Message
from handbell.services.fcm import SERVICE
from handbell.services.fcm.protocol import MAX_PAYLOAD_BYTES

from .compose import HEADERS, too_large


def compose(
    notification: Notification,
    *,
    app: App,  # noqa: ARG001 - a token is for one app, which FCM knows by it
    now: float,
    notification_id: str = "",
) -> Message:
    """Return the message for every Apple device of one send; its target is added when it is sent.

    The arguments are those of :func:`handbell.gateways.apns.compose.compose`, and so is what it
    refuses. The topic is FCM's affair. The notification's id is the collapse id where there is
    none: a repeat replaces what it repeats. Raises
    :class:`~handbell.errors.NotForServiceError` for a push type that FCM does not hand on, and
    :class:`~handbell.errors.PayloadTooLargeError` above the limit of FCM, which is counted as for
    Android.
    """
    _check_push_type(notification.push_type)
    content = content_of(notification, now=now, notification_id=notification_id)
    _check_push_type(content.kind.name)
    payload = to_json({"apns": _block(notification, content, notification_id)})
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise too_large(len(payload), *largest(notification))
    return Message(
        payload=payload,
        headers=HEADERS,
        topic="",
        push_type=content.kind.name,
        priority=content.priority,
        collapse_id=notification.collapse_id,
        expires_at=content.expires_at,
    )


def unsupported(_: Notification) -> list[str]:
    """Return nothing: what APNs takes of a notification FCM hands on, or it is refused."""
    return []


def _block(
    notification: Notification, content: Content, notification_id: str
) -> dict[str, dict[str, Any]]:
    collapse_id = notification.collapse_id or notification_id or None
    block: dict[str, dict[str, Any]] = {
        "headers": dict(headers_of(content, collapse_id)),
        "payload": content.payload,
    }
    if notification.image_url is not None:
        # Firebase's own service extension finds the picture here.
        block["fcm_options"] = {"image": notification.image_url}
    return block


def _check_push_type(name: str | None) -> None:
    if name is not None and name not in SERVICE.push_types:
        raise NotForServiceError(
            f"FCM hands no push of the type {name} on to Apple",
            fix="Register the device with its token of APNs",
        )
