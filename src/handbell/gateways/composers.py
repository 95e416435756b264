"""The composing of each form of a push service, found by name and loaded when it is used."""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import NamedTuple, Protocol

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.services.forms import VARIANTS, service_name
from handbell.services.table import SERVICES

from .gateway import Message


class Compose(Protocol):
    """Turn a notification into the message for every device of one send."""

    def __call__(
        self, notification: Notification, *, app: App, now: float, notification_id: str = ""
    ) -> Message:
        """Return the message for the devices of ``app``.

        ``now`` (UNIX seconds) is when the notification was accepted: ``ttl`` counts from it.
        ``notification_id`` is added to the data as ``handbell``, for receipts. Raises
        :class:`~handbell.errors.NotificationError` for what the service would refuse,
        :class:`~handbell.errors.PayloadTooLargeError` for a payload over its limit, and
        :class:`~handbell.errors.NotForServiceError` for a push type that it cannot carry.
        """


class Composer(NamedTuple):
    """How the messages of one form are made.

    ``unsupported`` returns the names of the fields that are set and that the service ignores.
    """

    compose: Compose
    unsupported: Callable[[Notification], list[str]]


@cache
def composer(form: str) -> Composer:
    """Return the composing of a form: ``compose`` beside its service's client, or the variant's."""
    name = VARIANTS[form].module if form in VARIANTS else "compose"
    module = import_module(f"{SERVICES[service_name(form)].client}.{name}")
    return Composer(module.compose, module.unsupported)
