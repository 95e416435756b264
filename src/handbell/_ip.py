"""IP addresses as texts."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address

# What ipaddress does not count as private in every Python from 3.11 on.
_NOT_PUBLIC: Final = (
    ip_network("192.0.0.0/24"),  # protocol assignments, RFC 6890
    ip_network("192.88.99.0/24"),  # 6to4 relays, RFC 7526
    ip_network("2001::/32"),  # Teredo: the address inside is anybody's
    ip_network("2001:db8::/32"),
    ip_network("3fff::/20"),  # documentation, RFC 9637
)
_UNICAST: Final = IPv6Network("2000::/3")  # what IANA has given out as global
_NAT64: Final = IPv6Network("64:ff9b::/96")


def read_ip(text: str) -> Address | None:
    """Parse an IP address; None for other text.

    An IPv4-mapped IPv6 address is returned as the IPv4 address, as by :func:`unmapped`.
    """
    try:
        return unmapped(ip_address(text))
    except ValueError:
        return None


def unmapped(address: Address) -> Address:
    """Return the IPv4 address in an IPv4-mapped IPv6 address; any other one unchanged.

    One with a zone (``%eth0``) is unchanged: what it means is not certain.
    """
    if isinstance(address, IPv4Address) or address.scope_id is not None:
        return address
    return address.ipv4_mapped or address


def is_public(address: str | Address) -> bool:
    """Return whether an address is a public one.

    An IPv6 address that embeds an IPv4 address (mapped, NAT64, 6to4) counts as that one. One
    whose meaning is not certain (Teredo, a zone, not assigned) is not public.
    """
    found = read_ip(address) if isinstance(address, str) else unmapped(address)
    if found is None or any(found in each for each in _NOT_PUBLIC if each.version == found.version):
        return False
    if isinstance(found, IPv4Address):
        return found.is_global and not found.is_multicast and not found.is_reserved
    if found.scope_id is not None:
        return False
    inner = _inner(found)
    return is_public(inner) if inner is not None else found in _UNICAST and found.is_global


def _inner(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour
