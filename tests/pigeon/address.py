"""Addresses of the pigeon post: the ring of a pigeon."""

from collections.abc import Mapping

from handbell.errors import RegistryError
from handbell.services.address import Address

from .protocol import RING


def read_address(token: str, details: Mapping[str, str] | None = None) -> Address:
    """Return the address of a ring, in upper case."""
    ring = token.strip().upper()
    if details or not RING.fullmatch(ring):
        raise RegistryError(f"{token[:20]!r} is no ring", fix="Read it from the pigeon's leg")
    return Address("pigeon", ring)
