"""Every push service that Handbell knows: the only list of them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from . import apns, fcm, webpush
from .service import PushService

SERVICES: Final[Mapping[str, PushService]] = MappingProxyType(
    {service.name: service for service in (apns.SERVICE, fcm.SERVICE, webpush.SERVICE)}
)
"""Every push service by its name, in the order in which a device is reached by one of several."""
