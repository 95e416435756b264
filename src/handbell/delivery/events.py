"""Events: frozen values passed to hooks, such as logs, metrics, webhooks and your own.

The engine emits an event after the change it reports is stored. A change to thousands at once is
one event with a count, so that reporting costs less than sending. Instants are UNIX seconds.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from handbell.registry.session import Environment

from .delivery import State

CircuitName = Literal["configuration", "service"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something happened, at ``at``, in the app with the id ``app``."""

    app: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationAccepted(Event):
    """A notification and all its work is stored; ``targets`` is None for a broadcast."""

    notification_id: str
    targets: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationsAccepted(Event):
    """Notifications were stored together, in one step; ``targets`` is their total."""

    notification_ids: tuple[str, ...]
    targets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PushesSent(Event):
    """A push service accepted pushes, of one notification or of several that went together.

    ``seconds`` holds how long each took from its hand-over.
    """

    notification_ids: tuple[str, ...]
    environment: Environment
    seconds: tuple[float, ...]
    service: str = "apns"

    @property
    def notification_id(self) -> str | None:
        """The id of the notification, where they are of one only."""
        return self.notification_ids[0] if len(self.notification_ids) == 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFailed(Event):
    """A delivery ended without being accepted.

    ``state`` is failed, dead_letter, expired or cancelled.
    """

    notification_id: str
    number: int
    mail: str | None
    state: State
    reason: str
    status: int | None
    attempts: int
    environment: Environment | None = None
    service: str = "apns"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryHeld(Event):
    """A delivery waits until ``until``: for another attempt, or for its time."""

    notification_id: str
    number: int
    reason: str
    until: float
    attempts: int
    environment: Environment | None = None
    service: str = "apns"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClosed(Event):
    """A session was closed, because the push service says that the device is gone."""

    session_id: int
    mail: str | None
    reason: str
    service: str = "apns"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionQuarantined(Event):
    """A session was put in quarantine, because the push service refuses its token."""

    session_id: int
    mail: str | None
    reason: str
    service: str = "apns"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionMoved(Event):
    """A token turned out to belong to another environment, which is stored."""

    session_id: int
    environment: Environment


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsReleased(Event):
    """Nothing is in flight any more to ``sessions`` that were closed or given to others.

    ``waited`` is how many seconds that took. They may be of several apps: ``app`` is empty.
    """

    sessions: int
    waited: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitOpened(Event):
    """Sending for the app to an environment has stopped; the next probe is at ``probe_at``.

    With ``has_other``, only one of its credentials is refused: another one is used from now on.
    """

    reason: str
    detail: str
    probe_at: float
    environment: Environment | None = None
    topic: str | None = None
    has_other: bool = False
    service: str = "apns"


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitClosed(Event):
    """Sending for the app resumes: the push service accepts it again."""

    environment: Environment | None = None
    topic: str | None = None
    service: str = "apns"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceDown(Event):
    """The push service has an outage, for all apps; the next probe is at ``probe_at``."""

    environment: Environment
    reason: str
    detail: str
    probe_at: float
    service: str = "apns"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceUp(Event):
    """The push service works again, and what its outage held resumes."""

    environment: Environment
    service: str = "apns"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSent(Event):
    """A probe was sent through an open ``circuit``, ``configuration`` or ``service``.

    ``is_passed`` means that this closed it.
    """

    environment: Environment
    circuit: CircuitName
    is_passed: bool
    service: str = "apns"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictLost(Event):
    """A push was refused, but the reason did not arrive; it is sent again."""

    notification_id: str
    number: int
    environment: Environment
    status: int
    service: str = "apns"


Hook = Callable[[Event], object]


_public_names: dict[type[Event], str] = {}


def name_of(kind: type[Event]) -> str:
    """Return an event's public name: ``delivery.failed`` for :class:`DeliveryFailed`."""
    name = _public_names.get(kind)
    if name is None:
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", ".", kind.__name__).lower()
        _public_names[kind] = name
    return name


class Hooks:
    """The hooks of one engine. An error raised by a hook is logged and stops nothing."""

    def __init__(self, *hooks: Hook) -> None:
        self._hooks = list(hooks)

    def add(self, hook: Hook) -> None:
        """Call the hook with every event from now on, in the engine's event loop."""
        self._hooks.append(hook)

    def __bool__(self) -> bool:
        return bool(self._hooks)

    def emit(self, event: Event) -> None:
        """Pass the event to every hook."""
        for hook in self._hooks:
            try:
                hook(event)
            except (Exception, SystemExit):  # noqa: BLE001 - whatever it is, sending goes on
                _log.exception("Event hook failed: event=%s", type(event).__name__)
