"""An address: how a push service knows one device of one app."""

from typing import NamedTuple


def origin_of(url: str) -> str:
    """Return scheme, host and port of a checked URL."""
    return "/".join(url.split("/", 3)[:3])


class Address(NamedTuple):
    """The address of a device at a push service, checked and in its canonical form.

    ``token`` identifies it: a device token, a registration token, a subscription's endpoint.
    ``kind`` is its form: ``device``, ``fid`` or ``subscription``. ``details`` is canonical JSON of
    what else belongs to it, such as the keys of a browser's subscription, or None.
    """

    service: str
    token: str
    kind: str = "device"
    details: str | None = None
