"""Push notifications to people, not to tokens.

::

    from handbell import PushNotification

    push = PushNotification()
    push.send({"title": "This is title", "body": "Here is the content"}, "test@4d.com")

Every name that a caller needs is here; other modules may change with any version. Errors are in
:mod:`handbell.errors`, which draws them as one tree.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from . import _moved
from ._extras import install
from ._version import __version__
from .auth import Auth
from .creation.notification import Notification
from .creation.recipients import Recipients
from .creation.tap_target import Record
from .diagnostic import Diagnostic
from .errors import HandbellError, SettingsError
from .push import AsyncPushNotification, PushNotification
from .sessions import AsyncSessions, Sessions

if TYPE_CHECKING:
    from .delivery.deliveries import Deliveries
    from .delivery.delivery import Delivery
    from .delivery.delivery import State as DeliveryState
    from .delivery.events import (
        CircuitClosed,
        CircuitOpened,
        DeliveryFailed,
        DeliveryHeld,
        Event,
        Hook,
        NotificationAccepted,
        NotificationsAccepted,
        ProbeSent,
        PushesSent,
        ServiceDown,
        ServiceUp,
        SessionClosed,
        SessionMoved,
        SessionQuarantined,
        SessionsReleased,
        VerdictLost,
    )
    from .delivery.ledger.why import Story
    from .delivery.observe.logs import Logs as Logs
    from .delivery.observe.metrics import Metrics as Metrics
    from .delivery.response import Response
    from .delivery.urgency import Urgency
    from .registry.session import Environment, Platform, RegisteredSession, Session
    from .registry.session import Status as SessionStatus
    from .settings import Settings

__all__ = [
    "AsyncPushNotification",
    "AsyncSessions",
    "Auth",
    "CircuitClosed",
    "CircuitOpened",
    "Deliveries",
    "Delivery",
    "DeliveryFailed",
    "DeliveryHeld",
    "DeliveryState",
    "Diagnostic",
    "Environment",
    "Event",
    "HandbellError",
    "Hook",
    "Notification",
    "NotificationAccepted",
    "NotificationsAccepted",
    "Platform",
    "ProbeSent",
    "PushNotification",
    "PushesSent",
    "Recipients",
    "Record",
    "RegisteredSession",
    "Response",
    "ServiceDown",
    "ServiceUp",
    "Session",
    "SessionClosed",
    "SessionMoved",
    "SessionQuarantined",
    "SessionStatus",
    "Sessions",
    "SessionsReleased",
    "Settings",
    "Story",
    "Urgency",
    "VerdictLost",
    "__version__",
]

_EVENTS: Final = "delivery.events"
_LOADED_LATER: Final = {
    "CircuitClosed": _EVENTS,
    "CircuitOpened": _EVENTS,
    "Deliveries": "delivery.deliveries",
    "Delivery": "delivery.delivery",
    "DeliveryFailed": _EVENTS,
    "DeliveryHeld": _EVENTS,
    "DeliveryState": "delivery.delivery:State",
    "Environment": "registry.session",
    "Event": _EVENTS,
    "Hook": _EVENTS,
    "NotificationAccepted": _EVENTS,
    "NotificationsAccepted": _EVENTS,
    "Platform": "registry.session",
    "ProbeSent": _EVENTS,
    "PushesSent": _EVENTS,
    "RegisteredSession": "registry.session",
    "Response": "delivery.response",
    "ServiceDown": _EVENTS,
    "ServiceUp": _EVENTS,
    "Session": "registry.session",
    "SessionClosed": _EVENTS,
    "SessionMoved": _EVENTS,
    "SessionQuarantined": _EVENTS,
    "SessionStatus": "registry.session:Status",
    "SessionsReleased": _EVENTS,
    "Settings": "settings",
    "Story": "delivery.ledger.why",
    "Urgency": "delivery.urgency",
    "VerdictLost": _EVENTS,
}
"""Where the names are that come with the engine: import stays light."""

_OF_THE_SERVER: Final = {"Logs": "delivery.observe.logs", "Metrics": "delivery.observe.metrics"}
"""What is public and needs the extra ``server``: ``import *`` works without it."""

_moved.install()


def __getattr__(name: str) -> Any:
    """Return a name that is loaded when somebody asks for it."""
    place = _LOADED_LATER.get(name) or _OF_THE_SERVER.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, there = place.partition(":")
    try:
        value = getattr(import_module(f"{__name__}.{module}"), there or name)
    except ModuleNotFoundError as error:
        if name not in _OF_THE_SERVER:
            raise
        fix = install("server")
        raise SettingsError(f"{name} needs {error.name}, which is not there", fix=fix) from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return every name, also of what is not loaded yet: for those who look what there is."""
    return sorted({*globals(), *__all__, *_OF_THE_SERVER})
