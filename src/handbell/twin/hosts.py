"""The push services' own host names: which side of the twin answers for each.

A client that has them built in reaches the twin by a mapped host or by its proxy, and trusts an
authority that may vouch for these names and no others; see ``host_authority.py``.
"""

from types import MappingProxyType
from typing import Final

HOSTS: Final = MappingProxyType(
    {
        "api.push.apple.com": "production",
        "api.sandbox.push.apple.com": "development",
        "api.development.push.apple.com": "development",
        "fcm.googleapis.com": "fcm",
        "oauth2.googleapis.com": "fcm",
        "updates.push.services.mozilla.com": "webpush",
    }
)
"""The side of the twin for each name."""
PORTS: Final = frozenset({443, 2197})
"""The ports that the services listen on; the second is Apple's other one."""


def side_of(host: str) -> str | None:
    """Return the side that answers for a name, in any case and with a closing dot or without."""
    return HOSTS.get(host.lower().rstrip("."))
