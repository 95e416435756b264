"""Networks for limits per client: an IPv4 address, or the /64 of an IPv6 address."""

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

_PREFIX: Final = 64


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Return an address's network; a text that is not an address is returned unchanged.

    An IPv6 client has at least a whole /64, so a limit per address would be useless. An
    IPv4-mapped address counts as the IPv4 address.
    """
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    if parsed.is_loopback:
        return str(parsed)
    return str(IPv6Network((int(parsed), _PREFIX), strict=False))


def is_loopback(address: str) -> bool:
    """Return whether an address is a loopback address."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback
