"""Sample keys, which only a twin accepts, and the sample app created with one.

Nobody added that app explicitly, so it gives way to any app that is added.
"""

import secrets
from collections.abc import Iterable
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection, select

from handbell.services.apns.credential import AuthKey
from handbell.storage.tables import credentials

from .app import App

# Without similar letters and digits, so that no real key has the same prefix.
_ALPHABET: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_KEY_ID_LENGTH: Final = 10
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


def without_samples(connection: Connection, apps: Iterable[App]) -> list[App]:
    """Return the apps that were added explicitly: those with any other key, or with none."""
    table = credentials
    columns = (table.c.app_id, table.c.environment, table.c.key_id)
    kinds: dict[int, set[bool]] = {}
    for row, environment, key_id in connection.execute(select(*columns)):
        is_of_sample = environment == "twin" and key_id.startswith(_OF_SAMPLE)
        kinds.setdefault(row, set()).add(is_of_sample)
    return [app for app in apps if app.row is None or kinds.get(app.row) != {True}]
