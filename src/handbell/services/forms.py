"""The forms in which devices get a notification: one for each push service, and variants of it.

FCM reaches Apple's devices too. These take what Apple's take by APNs, and none of Android's fields.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from .table import SERVICES, service_of


class Variant(NamedTuple):
    """A further form of a push service.

    It is for sessions of the service on these ``platforms``, whose addresses have ``details``
    where they are read for a send. ``title`` is what people read, ``module`` composes it, beside
    the service's own ``compose``.
    """

    service: str
    platforms: tuple[str, ...]
    details: str
    title: str
    module: str


FCM_APPLE: Final = "fcm_apple"

VARIANTS: Final[Mapping[str, Variant]] = MappingProxyType(
    {
        FCM_APPLE: Variant(
            service="fcm",
            platforms=SERVICES["apns"].platforms,
            details='{"platform":"apple"}',
            title="FCM, Apple's devices",
            module="compose_apple",
        )
    }
)
"""Every further form by its name."""

_BY_DETAILS: Final = {(one.service, one.details): name for name, one in VARIANTS.items()}


def form_of(gateway: str, details: str | None) -> str:
    """Return the form in which an address behind a gateway gets a notification."""
    service = service_of(gateway).name
    return service if details is None else _BY_DETAILS.get((service, details), service)


def forms_of(service: str) -> list[str]:
    """Return the forms of a push service, its own first."""
    return [service, *(name for name, one in VARIANTS.items() if one.service == service)]


def service_name(form: str) -> str:
    """Return the name of the push service of a form."""
    return VARIANTS[form].service if form in VARIANTS else form


def title_of(form: str) -> str:
    """Return what people read for a form."""
    return VARIANTS[form].title if form in VARIANTS else SERVICES[form].title
