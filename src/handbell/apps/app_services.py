"""Which push services an app is set up for."""

from collections.abc import Iterable
from typing import Final

from handbell.services.table import SERVICES

from .app import App
from .credential_store import StoredCredential

_KNOWN_BY: Final = {"apns": "team_id", "fcm": "android_package", "webpush": "web_origin"}
"""The member of an app that says that a service knows it."""


def services_of(app: App, credentials: Iterable[StoredCredential] = ()) -> list[str]:
    """Return the services that know an app or that it has a credential of, in their order."""
    held = {one.service for one in credentials}
    return [name for name in SERVICES if name in held or _is_known(app, name)]


def _is_known(app: App, service: str) -> bool:
    member = _KNOWN_BY.get(service)
    return member is not None and getattr(app, member) is not None
