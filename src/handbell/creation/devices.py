"""Devices that are named by their addresses at other push services than Apple's."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from handbell.errors import RegistryError
from handbell.services.address import Address

MEMBERS: Final = frozenset({"service", "token", "endpoint", "keys", "expirationTime"})
"""The members of a device that is named by a mapping."""

# As Google's servers have given them out for years; older ones look like anything.
_FCM_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{6,64}:APA91[A-Za-z0-9_-]{60,}")
_HTTPS: Final = "https://"
_FIX: Final = (
    "Name a device by a browser's subscription, or by its service and token: "
    '{"service": "fcm", "token": "..."}'
)


def is_device(given: Mapping[Any, Any]) -> bool:
    """Return whether a mapping names a device, and no lists of recipients."""
    return not MEMBERS.isdisjoint(given)


def read_device(given: Mapping[Any, Any]) -> Address:
    """Return the address of a device: a browser's subscription, or ``service`` and ``token``.

    Raises :class:`~handbell.errors.RegistryError` for anything else.
    """
    from handbell.services.table import SERVICES  # noqa: PLC0415 - heavy
    from handbell.services.webpush.address import read_subscription  # noqa: PLC0415 - heavy

    unknown = next((str(name) for name in given if name not in MEMBERS), None)
    if unknown is not None:
        raise RegistryError(f"It has an unknown member {unknown[:40]!r}", fix=_FIX)
    service, token = given.get("service"), given.get("token")
    if "endpoint" in given and service in (None, "webpush"):
        return read_subscription(given)
    if not isinstance(service, str) or service not in SERVICES or not isinstance(token, str):
        raise RegistryError("It names no push service with a token", fix=_FIX)
    return SERVICES[service].read_address(token)


def device_of(text: str) -> Address | None:
    """Return the device that a text certainly names, None for any other text.

    It is a registration token as FCM gives them out today, or the endpoint of a subscription, whose
    keys the registry knows. Raises :class:`~handbell.errors.RegistryError` for an endpoint that
    cannot be one.
    """
    if _FCM_TOKEN.fullmatch(text):
        return Address("fcm", text)
    if not text.startswith(_HTTPS):
        return None
    from handbell.services.webpush.hosts import EndpointTarget  # noqa: PLC0415 - heavy

    endpoint = EndpointTarget.read(text, allow_private=True).endpoint
    return Address("webpush", endpoint, "subscription")


def written(device: Address) -> str | dict[str, Any]:
    """Return what reads to the same address again."""
    if device.details is not None:
        return {"endpoint": device.token, "keys": json.loads(device.details)}
    if device.kind == "subscription" or _FCM_TOKEN.fullmatch(device.token):
        return device.token
    return {"service": device.service, "token": device.token}
