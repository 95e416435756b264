"""Who counts as one caller: an IPv4 address, or the /64 of an IPv6 address."""

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

_PREFIX: Final = 64


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Return what an address counts as; a text that is no address is returned as it is.

    Whoever has an IPv6 network has all addresses of a /64 at least, so that a limit for each would
    bound nothing. An IPv4 address within IPv6 counts as itself.
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
    """Say whether an address is one of this machine's own."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback
