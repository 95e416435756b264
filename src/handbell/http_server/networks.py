"""Networks for limits per client: an IPv4 address, or the /64 of an IPv6 address."""

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network
from typing import Final

from handbell._ip import read_ip

_PREFIX: Final = 64


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Return an address's network; a text that is not an address is returned unchanged.

    An IPv6 client has at least a whole /64, so a limit per address would be useless. An
    IPv4-mapped address counts as the IPv4 address.
    """
    parsed = read_ip(address.partition("%")[0])
    if parsed is None:
        return address
    if not isinstance(parsed, IPv6Address) or parsed.is_loopback:
        return str(parsed)
    return str(IPv6Network((int(parsed), _PREFIX), strict=False))


def is_loopback(address: str) -> bool:
    """Return whether an address is a loopback address."""
    parsed = read_ip(address.partition("%")[0])
    return parsed is not None and parsed.is_loopback
