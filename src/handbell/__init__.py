"""Push notifications to people, not to tokens.

::

    from handbell import PushNotification

    push = PushNotification()
    push.send({"title": "This is title", "body": "Here is the content"}, "test@4d.com")

Errors are in :mod:`handbell.errors`, which draws them as one tree.
"""

from ._version import __version__
from .creation.notification import Notification, Record
from .creation.recipients import Recipients
from .errors import HandbellError
from .push import AsyncPushNotification, Auth, PushNotification, Sessions

__all__ = [
    "AsyncPushNotification",
    "Auth",
    "HandbellError",
    "Notification",
    "PushNotification",
    "Recipients",
    "Record",
    "Sessions",
    "__version__",
]
