"""A notification composed for the push services that it is to go by, before it is stored."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from handbell._text import short_token
from handbell.apps import app_services
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

    def add(
        self,
        service: str,
        notification: Notification,
        *,
        app: App,
        now: float,
        notification_id: str,
    ) -> None:
        """Compose the notification for a push service, or note that this one cannot carry it."""
        try:
            self.wordings[service] = compose_each(
                composer(service).compose,
                notification,
                app=app,
                now=now,
                notification_id=notification_id,
            )
        except NotForServiceError as error:
            self.refused[service] = error
        except AppError as error:
            self.refused[service] = NotForServiceError(error.what, fix=error.fix)

    def require_one(self) -> None:
        """Raise NotForServiceError where none of the push services can carry it."""
        if self.refused and not self.wordings:
            raise next(iter(self.refused.values()))


def services_of(targets: Iterable[Target]) -> list[str]:
    """Return the push services that targets are reached by, in their order."""
    return list(_in_order(frozenset([target.gateway for target in targets])))


@lru_cache
def _in_order(gateways: frozenset[GatewayName]) -> tuple[str, ...]:
    named = {service_of(gateway).name for gateway in gateways}
    return tuple(name for name in SERVICES if name in named)


def services_for(app: App, others: Iterable[str] = ()) -> list[str]:
    """Return the push services that a send to everybody may go by, at least one.

    These are Apple's, where the app is known there, and ``others`` that it has sessions of; where
    there is none, those that know the app.
    """
    named = {*others, *(["apns"] if app.apple_id is not None else [])}
    found = [name for name in SERVICES if name in named]
    return found or app_services.services_of(app) or ["apns"]


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
        found.add(service, notification, app=app, now=now, notification_id=notification_id)
    found.require_one()
    return found


def compose_for_targets(
    targets: Sequence[Target],
    notification: Notification,
    *,
    app: App,
    now: float,
    notification_id: str,
) -> ComposedFor:
    """Return the notification composed for the push services that these targets get it by.

    A device with sessions of several services gets it by the first one that can carry it: what the
    others would make of it is of no matter. Raises as :func:`compose_for` does.
    """
    services = services_of(targets)
    if len(services) == 1:
        return compose_for(
            services, notification, app=app, now=now, notification_id=notification_id
        )
    found = ComposedFor()
    reached_devices: set[tuple[int | None, str]] = set()
    for service in services:
        devices = {
            None if one.device_id is None else (one.user_id, one.device_id)
            for one in targets
            if service_of(one.gateway).name == service
        }
        if devices <= reached_devices:
            continue
        found.add(service, notification, app=app, now=now, notification_id=notification_id)
        if service in found.wordings:
            reached_devices |= {device for device in devices if device is not None}
    found.require_one()
    return found


def reached(
    targets: Sequence[Target], composed: ComposedFor
) -> tuple[list[Target], list[Diagnostic]]:
    """Return the targets that get a notification, and warnings about those that do not.

    Left out are those whose push service cannot carry it; of one device's sessions with several
    services, the first service's gets it, and there is no warning about the others.
    """
    refused = composed.refused
    kept = [one for one in targets if service_of(one.gateway).name not in refused]
    heard = {(one.user_id, one.device_id) for one in kept if one.device_id is not None}
    warnings = [
        _left_out(one, refused[service_of(one.gateway).name])
        for one in targets
        if service_of(one.gateway).name in refused and (one.user_id, one.device_id) not in heard
    ]
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
