"""Which push service an address belongs to, and whether it can be one of that service."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from handbell.errors import RegistryError
from handbell.services.address import Address
from handbell.services.service import PushService
from handbell.services.table import SERVICES
from handbell.services.webpush.address import read_subscription

APNS: Final = "apns"
WEB_PUSH: Final = "webpush"

SERVICE_OF_PLATFORM: Final[Mapping[str, str]] = MappingProxyType(
    {platform: service.name for service in SERVICES.values() for platform in service.platforms}
)
"""The service of each platform, unless a session names another one."""

Subscription = Mapping[str, object]
"""A browser's subscription, as its ``toJSON()`` gives it."""

CheckAddress = Callable[[Address, str], None]
"""Raises RegistryError for an address that is not sent to in an environment."""


def read_address(
    given: str | Subscription,
    *,
    service: str | None = None,
    platform: str | None = None,
    known: str = APNS,
) -> Address:
    """Return an address in its canonical form.

    A text is a token of the ``service`` named; else of the ``platform``'s service, or of the
    ``known`` one where no platform is given. Anything else is a browser's subscription. Raises
    :class:`~handbell.errors.RegistryError` if it cannot be one of that service.
    """
    if not isinstance(given, str):
        if service not in (None, WEB_PUSH):
            raise RegistryError(
                f"A subscription is no address of {service_of(service).title}",
                fix="Leave the service out",
            )
        return read_subscription(given)
    if service is None:
        service = known if platform is None else SERVICE_OF_PLATFORM.get(platform, known)
    found = service_of(service)
    check_platform(found, platform)
    return found.read_address(given)


def service_of(name: str) -> PushService:
    """Return a push service by its name. Raises RegistryError for an unknown one."""
    if (found := SERVICES.get(name)) is None:
        raise RegistryError(
            f"{name[:40]!r} is not a push service", fix=f"Use one of {', '.join(SERVICES)}"
        )
    return found


def check_platform(service: PushService, platform: str | None) -> None:
    """Raise RegistryError if the service does not reach a platform.

    Apple's reaches its own alone. The others reach more than is theirs: FCM iPhones, Web Push
    Android.
    """
    if platform is None or service.name != APNS or platform in service.platforms:
        return
    raise RegistryError(
        f"{service.title} does not reach the platform {platform}",
        fix=f"Leave the service out; it is {SERVICE_OF_PLATFORM.get(platform, 'another one')}",
    )


def check_environment(service: PushService, environment: str | None) -> None:
    """Raise RegistryError if no address of the service lives in the environment."""
    if environment is None or environment in service.environments:
        return
    raise RegistryError(
        f"{service.title} has no environment {environment}",
        fix=f"Use one of {', '.join(service.environments)}",
    )


def accept_any(_address: Address, _environment: str) -> None:
    """Accept every address that is one."""
