"""Everything that can be set from outside, in one frozen value.

Each field of :class:`Settings` is read from the environment variable of the same name with the
prefix ``HANDBELL_``; docs/settings.md lists them and is checked against this module.
"""

import base64
import binascii
import os
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

from platformdirs import user_data_path
from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from .errors import SettingsError

PREFIX: Final = "HANDBELL_"
DATABASE_FILE: Final = "handbell.db"
_FERNET_KEY_BYTES: Final = 32
_MAKE_KEY: Final = (
    'python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
)


def _https(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError("it must look like https://host or https://host:port")
    return url.rstrip("/")


def _existing_file(path: Path) -> Path:
    if not path.expanduser().is_file():
        raise ValueError(f"there is no file {path}")
    return path.expanduser()


def _fernet_keys(secret: SecretStr) -> SecretStr:
    for key in secret_keys(secret):
        try:
            size = len(base64.b64decode(key, altchars=b"-_", validate=True))
        except (binascii.Error, ValueError):
            size = 0
        if size != _FERNET_KEY_BYTES:
            raise ValueError(f"each key is 44 characters of base64; make one with: {_MAKE_KEY}")
    return secret


Url = Annotated[str, AfterValidator(_https)]
Seconds = Annotated[float, Field(gt=0, le=300)]


class Settings(BaseSettings):
    """What an operator may set. :meth:`load` reads it and explains what is wrong.

    The value is frozen; its text never shows the secret key or the database's password.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    home: Path = Field(
        default_factory=lambda: user_data_path("handbell"),
        description="Folder for the database and the secret key; made with mode 700 when missing.",
    )
    database_url: str = Field(
        default="",
        validate_default=True,
        repr=False,
        description="SQLAlchemy URL of the database. Without it: handbell.db in the home folder.",
    )
    secret_key: Annotated[SecretStr, AfterValidator(_fernet_keys)] | None = Field(
        default=None,
        description="Fernet keys that seal credentials, separated by commas: the first seals, "
        "all open. Without it: secret.key in the home folder, made at first use.",
    )
    app: str | None = Field(
        default=None,
        description="App to use where none is named: an app id, a name or a bundle id.",
    )
    apns_production_url: Url | None = Field(
        default=None,
        description="Where production tokens are sent to. Without it: Apple's production host.",
    )
    apns_development_url: Url | None = Field(
        default=None,
        description="Where development tokens are sent to. Without it: Apple's sandbox host.",
    )
    apns_ca_file: Annotated[Path, AfterValidator(_existing_file)] | None = Field(
        default=None,
        description="PEM file of a certificate authority to trust for the APNs addresses above.",
    )
    connect_timeout: Seconds = Field(
        default=10.0,
        description="Seconds to wait for a connection to a push service.",
    )
    request_timeout: Seconds = Field(
        default=30.0,
        description="Seconds to wait for the answer to one push.",
    )
    connections: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Connections per pool; a pool serves one team, key and environment.",
    )
    in_flight: int = Field(
        default=300,
        ge=1,
        le=10_000,
        description="Pushes on their way at once per connection; the server may allow fewer.",
    )

    keep_days: float = Field(
        default=90.0,
        ge=1,
        le=3650,
        description="Days for which notifications and their ended deliveries are kept.",
    )

    webhook_allow_private: bool = Field(
        default=False,
        description="Whether webhooks may call addresses that are not public, and loopback over "
        "plain HTTP: 1 or 0.",
    )

    @field_validator("home")
    @classmethod
    def _expand(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("database_url")
    @classmethod
    def _beside_home(cls, url: str, info: ValidationInfo) -> str:
        if url or "home" not in info.data:
            return url
        return f"sqlite:///{info.data['home'] / DATABASE_FILE}"

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Return the settings of the environment, with what is given here on top.

        An override of None counts as not given. Raises :class:`SettingsError`, which names the
        variable and the fix, for a value that cannot be used and for a variable whose name is
        nearly that of a setting.
        """
        _refuse_misspelt(os.environ)
        try:
            return cls(**{name: value for name, value in overrides.items() if value is not None})
        except ValidationError as error:
            raise _explained(error) from None


def variable(name: str) -> str:
    """Return the environment variable of a field: ``HANDBELL_HOME`` for ``home``."""
    return PREFIX + name.upper()


def secret_keys(secret: SecretStr) -> list[str]:
    """Return the Fernet keys of a ``secret_key`` setting in their order."""
    return [key.strip() for key in secret.get_secret_value().split(",") if key.strip()]


def _refuse_misspelt(environment: "os._Environ[str]") -> None:
    known = {variable(name) for name in Settings.model_fields}
    for given in environment:
        if not given.startswith(PREFIX) or given in known:
            continue
        meant = get_close_matches(given, known, n=1, cutoff=0.9)
        if meant:
            raise SettingsError(
                f"The environment variable {given} is not a setting",
                fix=f"Rename it to {meant[0]}, or remove it",
            )


def _explained(error: ValidationError) -> SettingsError:
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    name = str(problem["loc"][0]) if problem["loc"] else ""
    if name not in Settings.model_fields:
        return SettingsError(
            f"There is no setting named {name}",
            fix=f"Use one of {', '.join(Settings.model_fields)}",
        )
    why = problem["msg"].removeprefix("Value error, ")
    return SettingsError(
        f"The setting {name} ({variable(name)}) cannot be used: {why[:1].lower()}{why[1:]}",
        fix=f"{Settings.model_fields[name].description} Correct {variable(name)}, or remove it",
    )
