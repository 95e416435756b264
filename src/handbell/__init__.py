"""Push notifications to people, not to tokens.

::

    from handbell import PushNotification

    push = PushNotification()
    push.send({"title": "This is title", "body": "Here is the content"}, "test@4d.com")

Errors are in :mod:`handbell.errors`, which draws them as one tree.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from ._version import __version__
from .creation.notification import Notification, Record
from .creation.recipients import Recipients
from .errors import HandbellError
from .push import AsyncPushNotification, Auth, PushNotification, Sessions

if TYPE_CHECKING:
    from .delivery.delivery import Delivery
    from .delivery.response import Response

__all__ = [
    "AsyncPushNotification",
    "Auth",
    "Delivery",
    "HandbellError",
    "Notification",
    "PushNotification",
    "Recipients",
    "Record",
    "Response",
    "Sessions",
    "__version__",
]

_WITH_THE_ENGINE: Final = {"Delivery": "delivery.delivery", "Response": "delivery.response"}


def __getattr__(name: str) -> Any:
    """Return what a send answers with, which is loaded with the engine: import stays light."""
    if name not in _WITH_THE_ENGINE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WITH_THE_ENGINE[name]}"), name)
