"""Sample keys, which only a twin accepts, and the sample app created with one.

Nobody added that app explicitly, so it gives way to any app that is added.
"""

import hashlib
import secrets
from collections.abc import Iterable
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from sqlalchemy import Connection, select

from handbell.services.apns.credential import AuthKey
from handbell.services.fcm.credential import ServiceAccount
from handbell.services.webpush.credential import VapidKey
from handbell.storage.tables import credentials

from .app import App
from .credential_kinds import Credential

# Without similar letters and digits, so that no real key has the same prefix.
_ALPHABET: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_KEY_ID_LENGTH: Final = 10
_PROJECT_DIGITS: Final = 12
_RSA_BITS: Final = 2048
_OF_TWIN: Final = "T"
_OF_SAMPLE: Final = "TWIN"


def make_key(team_id: str, *, is_of_sample: bool = False) -> AuthKey:
    """Return a new key unknown to Apple; the twin accepts it.

    ``is_of_sample`` marks a key that was created with its app.
    """
    beginning = _OF_SAMPLE if is_of_sample else _OF_TWIN
    rest = (secrets.choice(_ALPHABET) for _ in range(_KEY_ID_LENGTH - len(beginning)))
    return AuthKey(
        team_id=team_id,
        key_id=beginning + "".join(rest),
        private_key=ec.generate_private_key(ec.SECP256R1()),
    )


def make_credentials(app: App, *, is_of_sample: bool = False) -> list[Credential]:
    """Return new credentials of an app for the twin: one of each service that knows it.

    An app without any is given a web push key. ``is_of_sample`` is as for :func:`make_key`.
    """
    made: list[Credential] = []
    if app.team_id is not None:
        made.append(make_key(app.team_id, is_of_sample=is_of_sample))
    if app.android_package is not None:
        made.append(make_service_account(app))
    if app.web_origin is not None or not made:
        made.append(VapidKey.make())
    return made


def make_service_account(app: App) -> ServiceAccount:
    """Return a new service account unknown to Google, of a project made up for the app."""
    project = f"twin-{hashlib.sha256(app.id.encode()).hexdigest()[:_PROJECT_DIGITS]}"
    return ServiceAccount(
        client_email=f"handbell@{project}.iam.gserviceaccount.com",
        project_id=project,
        private_key=rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS),
        private_key_id=_OF_TWIN + secrets.token_hex(_KEY_ID_LENGTH),
    )


def without_samples(connection: Connection, apps: Iterable[App]) -> list[App]:
    """Return the apps that were added explicitly: those with any other key, or with none.

    What is for the twin says nothing but for Apple's keys: it is made when it is needed.
    """
    table = credentials
    columns = (table.c.app_id, table.c.environment, table.c.key_id)
    telling = (table.c.service == "apns") | table.c.environment.is_distinct_from("twin")
    kinds: dict[int, set[bool]] = {}
    for row, environment, key_id in connection.execute(select(*columns).where(telling)):
        is_of_sample = environment == "twin" and key_id.startswith(_OF_SAMPLE)
        kinds.setdefault(row, set()).add(is_of_sample)
    return [app for app in apps if app.row is None or kinds.get(app.row) != {True}]
