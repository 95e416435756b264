"""A notification composed in the forms in which it is to go out, before it is stored."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from handbell._text import short_token
from handbell.apps import app_services
from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.delivery.delivery import GatewayName, Target
from handbell.diagnostic import Diagnostic
from handbell.errors import AppError, NotForServiceError
from handbell.gateways.composers import composer
from handbell.gateways.wordings import Wording, Wordings, compose_each
from handbell.services.forms import VARIANTS, form_of, forms_of, service_name, title_of
from handbell.services.table import SERVICES, service_of

USUAL_ORDER: Final = tuple(SERVICES)
"""The order in which a device is reached by one of several services that the app can send by."""

NOT_FOR_SERVICE = "NotForService"
"""The reason of a recipient whose push service cannot carry a notification."""


@dataclass(slots=True)
class ComposedFor:
    """What goes out in each form, and the forms that cannot carry the notification."""

    wordings: dict[str, Wordings] = field(default_factory=dict)
    refused: dict[str, NotForServiceError] = field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        """Return sentences about shortened fields, each once."""
        found = (one for its in self.wordings.values() for one in its.warnings)
        return list(dict.fromkeys(found))

    def add(
        self,
        form: str,
        notification: Notification,
        *,
        app: App,
        now: float,
        notification_id: str,
    ) -> None:
        """Compose the notification in a form, or note that this one cannot carry it."""
        try:
            self.wordings[form] = compose_each(
                composer(form).compose,
                notification,
                app=app,
                now=now,
                notification_id=notification_id,
            )
        except NotForServiceError as error:
            self.refused[form] = error
        except AppError as error:
            self.refused[form] = NotForServiceError(error.what, fix=error.fix)

    def wording_for(self, target: Target) -> Wording:
        """Return the wording that a target gets, in its form and its language."""
        wordings = self.wordings[form_of(target.gateway, target.details)]
        return wordings.wording_for(target.locale)

    def require_one(self) -> None:
        """Raise NotForServiceError where none of the forms can carry it."""
        if self.refused and not self.wordings:
            raise next(iter(self.refused.values()))


def forms_of_targets(targets: Iterable[Target]) -> list[str]:
    """Return the forms in which targets get a notification, in the order of their services."""
    return list(_in_order(frozenset(map(_form, targets))))


def _form(target: Target) -> str:
    # There is one of these for each target, and most addresses have no details.
    details = target.details
    return target.gateway if details is None else form_of(target.gateway, details)


@lru_cache
def _in_order(gateways: frozenset[str]) -> tuple[str, ...]:
    named = {form if form in VARIANTS else service_of(form).name for form in gateways}
    return tuple(form for name in SERVICES for form in forms_of(name) if form in named)


def forms_for(app: App, others: Iterable[str] = ()) -> list[str]:
    """Return the forms in which a send to everybody may go out, at least one.

    These are Apple's, where the app is known there, and ``others`` that it has sessions of; where
    there is none, those of the services that know the app.
    """
    named = frozenset([*others, *(["apns"] if app.apple_id is not None else [])])
    return list(_in_order(named)) or app_services.services_of(app) or ["apns"]


def compose_for(
    forms: Sequence[str],
    notification: Notification,
    *,
    app: App,
    now: float,
    notification_id: str,
) -> ComposedFor:
    """Return the notification composed in these forms.

    Raises NotificationError for what one of them would refuse, and NotForServiceError where none
    of them can carry it.
    """
    found = ComposedFor()
    for form in forms:
        found.add(form, notification, app=app, now=now, notification_id=notification_id)
    found.require_one()
    return found


def compose_for_targets(
    targets: Sequence[Target],
    notification: Notification,
    *,
    app: App,
    now: float,
    notification_id: str,
    order: Sequence[str] = USUAL_ORDER,
) -> ComposedFor:
    """Return the notification composed in the forms in which these targets get it.

    A device with sessions of several services gets it by the first one in ``order`` that can carry
    it: what the others would make of it is of no matter. Raises as :func:`compose_for` does.
    """
    forms = forms_of_targets(targets)
    if len(forms) == 1:
        return compose_for(forms, notification, app=app, now=now, notification_id=notification_id)
    found = ComposedFor()
    reached_devices: set[tuple[int | None, str]] = set()
    for form in sorted(forms, key=lambda form: order.index(service_name(form))):
        devices = {
            None if one.device_id is None else (one.user_id, one.device_id)
            for one in targets
            if form_of(one.gateway, one.details) == form
        }
        if devices <= reached_devices:
            continue
        found.add(form, notification, app=app, now=now, notification_id=notification_id)
        if form in found.wordings:
            reached_devices |= {device for device in devices if device is not None}
    found.require_one()
    return found


def reached(
    targets: Sequence[Target], composed: ComposedFor, order: Sequence[str] = USUAL_ORDER
) -> tuple[list[Target], list[Diagnostic]]:
    """Return the targets that get a notification, and warnings about those that do not.

    Left out are those whose push service cannot carry it; of one device's sessions with several
    services, that of the first in ``order`` gets it, and there is no warning about the others.
    """
    refused = composed.refused
    kept = [one for one in targets if form_of(one.gateway, one.details) not in refused]
    heard = {(one.user_id, one.device_id) for one in kept if one.device_id is not None}
    warnings = [
        _left_out(one, refused[form])
        for one in targets
        if (form := form_of(one.gateway, one.details)) in refused
        and (one.user_id, one.device_id) not in heard
    ]
    return each_device_once(kept, order), warnings


def shares_devices(targets: Iterable[Target]) -> bool:
    """Return whether a device is among the targets by several push services."""
    gateways: dict[tuple[int | None, str], GatewayName] = {}
    return any(
        gateways.setdefault((one.user_id, one.device_id), one.gateway) != one.gateway
        for one in targets
        if one.device_id is not None
    )


def each_device_once(targets: Sequence[Target], order: Sequence[str] = USUAL_ORDER) -> list[Target]:
    """Return one target for each device that has sessions with several push services."""
    place = {name: number for number, name in enumerate(order)}
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


def forms_left_out(composed: ComposedFor) -> list[Diagnostic]:
    """Return a warning for each form whose sessions a send to everybody leaves out."""
    return [
        Diagnostic(
            f"Sessions with {title_of(form)} are left out: {error.what}",
            reason=NOT_FOR_SERVICE,
        )
        for form, error in composed.refused.items()
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
