"""A notification composed for the push services that it is to go by, before it is stored."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from handbell._text import short_token
from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.delivery.delivery import GatewayName, Target
from handbell.diagnostic import Diagnostic
from handbell.errors import AppError, NotForServiceError
from handbell.gateways.composers import composer
from handbell.gateways.wordings import Wordings, compose_each
from handbell.services.table import SERVICES, service_of

NOT_FOR_SERVICE = "NotForService"
"""The reason of a recipient whose push service cannot carry a notification."""


@dataclass(slots=True)
class ComposedFor:
    """What goes to each push service, and the services that cannot carry the notification."""

    wordings: dict[str, Wordings] = field(default_factory=dict)
    refused: dict[str, NotForServiceError] = field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        """Return sentences about shortened fields, each once."""
        found = (one for its in self.wordings.values() for one in its.warnings)
        return list(dict.fromkeys(found))


def services_of(targets: Iterable[Target]) -> list[str]:
    """Return the push services that targets are reached by, in their order."""
    return list(_in_order(frozenset([target.gateway for target in targets])))


@lru_cache
def _in_order(gateways: frozenset[GatewayName]) -> tuple[str, ...]:
    named = {service_of(gateway).name for gateway in gateways}
    return tuple(name for name in SERVICES if name in named)


def services_for(app: App, others: Iterable[str] = ()) -> list[str]:
    """Return the push services that a send to everybody may go by.

    These are Apple's, where the app is known there, and ``others`` that it has sessions of.
    """
    named = {*others, *(["apns"] if app.apple_id is not None else [])}
    return [name for name in SERVICES if name in named]


def compose_for(
    services: Sequence[str],
    notification: Notification,
    *,
    app: App,
    now: float,
    notification_id: str,
) -> ComposedFor:
    """Return the notification composed for these push services.

    Raises NotificationError for what one of them would refuse, and NotForServiceError where none
    of them can carry it.
    """
    found = ComposedFor()
    for service in services:
        try:
            found.wordings[service] = compose_each(
                composer(service).compose,
                notification,
                app=app,
                now=now,
                notification_id=notification_id,
            )
        except NotForServiceError as error:
            found.refused[service] = error
        except AppError as error:
            found.refused[service] = NotForServiceError(error.what, fix=error.fix)
    if found.refused and not found.wordings:
        raise next(iter(found.refused.values()))
    return found


def reached(
    targets: Sequence[Target], composed: ComposedFor
) -> tuple[list[Target], list[Diagnostic]]:
    """Return the targets that get a notification, and warnings about those that do not.

    Left out are those whose push service cannot carry it; of one device's sessions with several
    services, the first service's gets it.
    """
    kept: list[Target] = []
    warnings: list[Diagnostic] = []
    for target in targets:
        error = composed.refused.get(service_of(target.gateway).name)
        if error is None:
            kept.append(target)
        else:
            warnings.append(_left_out(target, error))
    return each_device_once(kept), warnings


def each_device_once(targets: Sequence[Target]) -> list[Target]:
    """Return one target for each device that has sessions with several push services."""
    place = {name: number for number, name in enumerate(SERVICES)}
    first: dict[tuple[int | None, str], Target] = {}
    for target in targets:
        if target.device_id is not None:
            key = target.user_id, target.device_id
            former = first.setdefault(key, target)
            if place.get(target.gateway, 0) < place.get(former.gateway, 0):
                first[key] = target
    return [
        target
        for target in targets
        if target.device_id is None
        or target.gateway == first[target.user_id, target.device_id].gateway
    ]


def services_left_out(composed: ComposedFor) -> list[Diagnostic]:
    """Return a warning for each push service whose sessions a send to everybody leaves out."""
    return [
        Diagnostic(
            f"Sessions with {SERVICES[service].title} are left out: {error.what}",
            reason=NOT_FOR_SERVICE,
        )
        for service, error in composed.refused.items()
    ]


def _left_out(target: Target, error: NotForServiceError) -> Diagnostic:
    device = short_token(target.address)
    label = f"{target.mail} ({device})" if target.mail else device
    return Diagnostic(
        f"{label} was left out: {error.what}",
        recipient=target.mail or target.address,
        reason=NOT_FOR_SERVICE,
        fix=error.fix,
    )
