"""Compose a notification into what a pigeon carries."""

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.errors import NotForServiceError, PayloadTooLargeError
from handbell.gateways.gateway import Message

from .protocol import LONGEST_MESSAGE


def compose(
    notification: Notification,
    *,
    app: App,  # noqa: ARG001 - a loft serves everybody
    now: float,
    notification_id: str = "",  # noqa: ARG001 - a pigeon reports nothing
) -> Message:
    """Return the message: title and body on one line."""
    text = ": ".join(filter(None, (notification.title, notification.body)))
    if not text:
        raise NotForServiceError("A pigeon carries a text", fix="Give a `title` or a `body`")
    payload = text.replace("\n", " ").encode()
    if len(payload) > LONGEST_MESSAGE:
        raise PayloadTooLargeError(
            f"A pigeon carries {LONGEST_MESSAGE} bytes",
            fix="Shorten the text",
            size=len(payload),
            limit=LONGEST_MESSAGE,
        )
    return Message(payload, (), "", "alert", 10, None, notification.expiry(now))


def unsupported(notification: Notification) -> list[str]:
    """Return a sentence for each field that is set and that no pigeon carries."""
    carried = {"title", "body", "ttl", "expires_at"}
    return [f"`{name}` stays at home." for name in notification.to_dict() if name not in carried]
