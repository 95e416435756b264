"""Every push service that Handbell knows: the only list of them."""

from typing import Final

from . import apns, fcm, webpush
from .service import PushService

SERVICES: Final[dict[str, PushService]] = {
    service.name: service for service in (apns.SERVICE, fcm.SERVICE, webpush.SERVICE)
}
"""Every push service by its name, in the order in which a device is reached by one of several."""


def service_of(gateway: str) -> PushService:
    """Return the push service behind a gateway; Xcode's Simulator stands in for Apple's."""
    return SERVICES.get(gateway, apns.SERVICE)
