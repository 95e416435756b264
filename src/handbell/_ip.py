"""IP addresses as texts."""

from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address


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
