"""How an app proves itself where the registry does not know it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from ._text import nearest
from .errors import AppError, CredentialError

if TYPE_CHECKING:
    from .apps.app import App
    from .services.apns.credential import AuthKey
    from .system import System

_CAMEL_CASE: Final = {
    "bundleId": "bundle_id",
    "teamId": "team_id",
    "authKey": "auth_key",
    "keyId": "key_id",
    "isDevelopment": "is_development",
}


@dataclass(slots=True, kw_only=True)
class Auth:
    """How an app proves itself to Apple, without an entry in the registry.

    ``auth_key`` is the path or the text of ``AuthKey_XXX.p8``; ``key_id`` is needed when the file
    name does not say it. ``is_development`` starts with Apple's development hosts wherever it is
    not known yet in which environment a device lives. Whoever is given one keeps a copy: many
    senders may be made of the same.
    """

    bundle_id: str | None = None
    team_id: str | None = None
    auth_key: str | Path | None = field(default=None, repr=False)
    key_id: str | None = None
    is_development: bool = False

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Self:
        """Return the auth object that a mapping describes, in either spelling.

        Raises AppError for an unknown or a missing member.
        """
        known = cls.__dataclass_fields__
        given = {_CAMEL_CASE.get(name, name): member for name, member in value.items()}
        for name in given:
            if name not in known:
                near = nearest(name, known)
                hint = f"Did you mean {near!r}?" if near else f"Known: {', '.join(known)}."
                raise AppError(f"The auth object has an unknown member {name!r}", fix=hint)
        missing = [name for name in ("bundle_id", "team_id", "auth_key") if not given.get(name)]
        if missing:
            raise AppError(
                f"The auth object lacks {' and '.join(missing)}",
                fix="It needs bundle_id, team_id and auth_key (a path or the key's text)",
            )
        return cls(**given)


def own_auth(app: str | Auth | Mapping[str, Any] | None, *, is_development: bool) -> Auth:
    """Return a sender's own auth object: what it was given is never changed."""
    if isinstance(app, Auth):
        return replace(app, is_development=app.is_development or is_development)
    auth = Auth.read(app) if isinstance(app, Mapping) else Auth()
    auth.is_development = auth.is_development or is_development
    return auth


def find_unregistered(system: "System", auth: Auth) -> "tuple[App, AuthKey]":
    """Return the app of an auth object that has a key, and the key.

    Its ``key_id`` is filled in. Raises CredentialError for one that lacks a member, or whose key
    cannot be read.
    """
    from .apps.app import App  # noqa: PLC0415 - heavy
    from .services.apns.credential import read_auth_key  # noqa: PLC0415 - heavy

    if auth.auth_key is None or auth.team_id is None or auth.bundle_id is None:
        raise CredentialError(
            "The auth object lacks its key, team id or bundle id",
            fix="Set auth_key, team_id and bundle_id",
        )
    app = App(team_id=auth.team_id, bundle_id=auth.bundle_id)
    key = read_auth_key(auth.auth_key, team_id=auth.team_id, key_id=auth.key_id)
    auth.key_id = key.key_id
    # Sessions of an app that the registry knows are found even so.
    return system.apps.by_ids([app.id]).get(app.id, app), key
