"""The exact request that a send would make, for whoever wants to look first."""

from collections.abc import Callable
from dataclasses import dataclass

from handbell._text import shortened
from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.gateways.apns.payload import compose
from handbell.gateways.apns.protocol import AUTHORIZATION, DEVICE_PATH
from handbell.gateways.gateway import Message

from .delivery import Target
from .dispatch import Plan
from .ids import NO_ID


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The request that a send would make for one target, or the warning why there is none.

    ``headers`` are complete but for the secret in ``authorization``, and for the ``apns-id``, which
    a delivery gets when it is stored.
    """

    recipient: str
    warning: str | None = None
    method: str = "POST"
    url: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    payload: str = ""
    size: int = 0


def preview(
    app: App,
    notification: Notification,
    plan: Plan,
    *,
    describe_host: Callable[[str], str],
    now: float,
) -> list[Preview]:
    """Return the exact request per target, and a preview with a warning for whoever has none.

    ``describe_host`` gives the address of an environment. Raises NotificationError when the
    notification cannot be sent. Nothing is stored or sent.
    """
    message = compose(notification, bundle_id=app.bundle_id, now=now, notification_id=NO_ID)
    return [
        *(Preview(recipient="", warning=warning) for warning in plan.warnings),
        *(_preview(app, target, message, describe_host) for target in plan.targets),
    ]


def _preview(
    app: App, target: Target, message: Message, describe_host: Callable[[str], str]
) -> Preview:
    label = f"{target.mail} ({shortened(target.address)})" if target.mail else target.address
    text, size = message.payload.decode(), len(message.payload)
    if target.gateway == "simulator":
        command = f"xcrun simctl push {target.address} {app.bundle_id} -"
        return Preview(recipient=label, method="run", url=command, payload=text, size=size)
    return Preview(
        recipient=label,
        url=f"{describe_host(target.environment)}{DEVICE_PATH}{target.address}",
        headers=((AUTHORIZATION, "bearer (hidden)"), *message.headers),
        payload=text,
        size=size,
    )
