"""The kinds of credentials, each of one push service."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from handbell.errors import CredentialError
from handbell.fixes import Action
from handbell.services.apns import credential as apns
from handbell.services.apns.credential import AuthKey, Certificate
from handbell.services.fcm.credential import ServiceAccount
from handbell.services.table import SERVICES
from handbell.services.webpush.credential import VapidKey

Credential = AuthKey | Certificate | ServiceAccount | VapidKey


class CredentialKind(NamedTuple):
    """A kind of credential: its service, and how it is read from what the vault kept."""

    service: str
    title: str
    type: type[Credential]
    unpack: Callable[[bytes], Credential]


KINDS: Final[Mapping[str, CredentialKind]] = MappingProxyType(
    {
        "key": CredentialKind("apns", "key", AuthKey, apns.unpack),
        "certificate": CredentialKind("apns", "certificate", Certificate, apns.unpack),
        "service-account": CredentialKind(
            "fcm", "service account", ServiceAccount, ServiceAccount.unpack
        ),
        "vapid": CredentialKind("webpush", "web push key", VapidKey, VapidKey.unpack),
    }
)
"""Every kind of credential by its name in the database."""

ADDED_BY: Final[Mapping[str, Action]] = MappingProxyType(
    {
        "apns": Action.ADD_KEY,
        "fcm": Action.ADD_SERVICE_ACCOUNT,
        "webpush": Action.MAKE_WEB_PUSH_KEYS,
    }
)
"""How an app without a credential of a service gets one."""


def title_of(kind: str) -> str:
    """Return how people call a kind of credential."""
    return KINDS[kind].title if kind in KINDS else kind


def served(service: str) -> str:
    """Return where a credential of a service is used that no environment limits."""
    found = SERVICES.get(service)
    return "both environments" if found and found.has_environments else "every environment"


def kind_of(credential: Credential) -> str:
    """Return the name of a credential's kind."""
    return next(name for name, kind in KINDS.items() if isinstance(credential, kind.type))


def pack(credential: Credential) -> bytes:
    """Return a credential as text, secret included, for the vault to seal."""
    if isinstance(credential, AuthKey | Certificate):
        return apns.pack(credential)
    return credential.pack().encode()


def unpack(kind: str, packed: bytes) -> Credential:
    """Return the credential from :func:`pack`'s text."""
    found = KINDS.get(kind)
    if found is None:
        raise CredentialError(
            f"A credential of the kind {kind[:40]!r} is not known to this version",
            fix="Upgrade Handbell, or remove it",
        )
    return found.unpack(packed)
