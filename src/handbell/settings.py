"""Settings: everything that can be configured, in one frozen value.

Each field of :class:`Settings` is read from the environment variable of the same name with the
prefix ``HANDBELL_``; docs/settings.md lists them and is checked against this module.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Self

from platformdirs import user_data_path
from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from . import setting_values as values
from ._mail import mailbox, read_mail
from ._paths import expanded, is_file
from ._proxy import Proxies
from ._text import parse_fault
from .errors import SettingsError
from .setting_values import Seconds, Url

PREFIX: Final = "HANDBELL_"
DATABASE_FILE: Final = "handbell.db"
CONFIG_FILE: Final = "handbell.toml"
SECRETS: Final = frozenset(
    {"database_url", "engine", "proxy", "secret_key", "signals_url", "smtp_url", "webhook_proxy"}
)
"""The settings that hold a password or a key."""
_USER_INFO: Final = re.compile(r"//[^/\s@]*@")


class Settings(BaseSettings):
    """The settings of an installation, read by :meth:`load`.

    Frozen; its text never contains the secret key or the database's password.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    config: Annotated[Path, AfterValidator(values.existing_file)] | None = Field(
        default=None,
        description="TOML file with any of these settings, named in lower case without the prefix. "
        "Without it: handbell.toml in the home folder, where there is one.",
    )
    home: Path = Field(
        default_factory=lambda: user_data_path("handbell"),
        description="Folder for the database and the secret key; made with mode 700 when missing.",
    )
    database_url: str = Field(
        default="",
        validate_default=True,
        repr=False,
        description="Address of an SQLite or PostgreSQL database, such as "
        "sqlite:////srv/handbell.db or postgresql://user:password@host/name. "
        "Without it: handbell.db in the home folder.",
    )
    signals_url: Annotated[SecretStr, AfterValidator(values.postgresql_url)] | None = Field(
        default=None,
        description="URL of the PostgreSQL server itself, used to listen for changes where the "
        "database URL leads to a pooler such as PgBouncer. Without it: the database URL.",
    )
    engine: Annotated[SecretStr, AfterValidator(values.broker_url)] | None = Field(
        default=None,
        description="Address of a NATS server with JetStream that hands out the work of many "
        "machines: nats://host:4222, or tls://user:password@host:4222; several servers of one "
        "cluster with commas. /NAME after the host tells installations apart. Without it: the "
        "database does.",
    )
    nats_credentials: Path | None = Field(
        default=None, description="File of credentials (.creds) for the NATS server."
    )
    nats_ca_file: Path | None = Field(
        default=None,
        description="PEM file of a certificate authority to trust for the NATS server.",
    )
    nats_replicas: int = Field(
        default=1,
        ge=1,
        le=5,
        description="On how many servers of a NATS cluster the stream is kept, where it is made.",
    )
    secret_key: Annotated[SecretStr, AfterValidator(values.fernet_keys)] | None = Field(
        default=None,
        description="Fernet keys that seal credentials, separated by commas: all open, the "
        "installation's seals; handbell db reseal makes the first one that. Without it: "
        "secret.key in the home folder, made at first use.",
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
    fcm_url: Url | None = Field(
        default=None,
        description="Where pushes to Android are sent to. Without it: Google's host.",
    )
    apns_ca_file: (
        Annotated[
            Path, AfterValidator(values.existing_file), AfterValidator(values.check_authority)
        ]
        | None
    ) = Field(
        default=None,
        description="PEM file of a certificate authority to trust for the addresses above.",
    )
    proxy: Annotated[SecretStr, AfterValidator(values.proxy_url)] | None = Field(
        default=None,
        description="HTTP proxy towards the push services: http://host:3128 or "
        "http://user:password@host:3128; environment takes HTTPS_PROXY and NO_PROXY. The twin and "
        "this machine are never asked through it.",
    )
    no_proxy: Annotated[str, AfterValidator(values.exceptions)] = Field(
        default="",
        description="Hosts and networks to reach without the proxy, separated by commas; a name "
        "includes its subdomains.",
    )
    web_push_hosts: Annotated[str, AfterValidator(values.push_hosts)] = Field(
        default="known",
        description="Push services that browsers' subscriptions may name, separated by commas, "
        "besides those of Apple, Google, Microsoft and Mozilla: hosts, *.example.com for any below "
        "one, host:port for another port than 443; any for every public host.",
    )
    vapid_subject: Annotated[str, AfterValidator(values.vapid_subject)] | None = Field(
        default=None,
        description="Whom a push service for browsers may write to about what is sent: "
        "mailto:push@example.com or https://example.com/contact. Without it: the sender of mails, "
        "or the public URL.",
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
        default=2,
        ge=1,
        le=64,
        description="Connections per pool; a pool serves one team, key and environment.",
    )
    total_connections: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="Limit on the connections of all workers together, for one team, key and "
        "environment; 0 for none. Each worker has an equal share, and at least one.",
    )
    in_flight: int = Field(
        default=1000,
        ge=1,
        le=10_000,
        description="Pushes in flight at once per connection; the push service may allow fewer.",
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
    webhook_proxy: Annotated[SecretStr, AfterValidator(values.proxy_url)] | None = Field(
        default=None,
        description="HTTP proxy by which webhooks are called, written like HANDBELL_PROXY; hosts "
        "in HANDBELL_NO_PROXY are called without it. The proxy resolves their names then, so that "
        "only it can keep them out of your network.",
    )

    listen: Annotated[str, AfterValidator(values.host_and_port)] = Field(
        default="127.0.0.1:8710",
        description="Where the send server listens, host:port; port 0 takes a free one.",
    )
    public_url: Annotated[str, AfterValidator(values.public_url)] = Field(
        default="",
        description="The URL by which others reach the server, with its path; used in mails and "
        "on pages. Without it: where the server listens.",
    )
    root_path: Annotated[str, AfterValidator(values.root_path)] = Field(
        default="",
        description="The path under which a proxy serves Handbell, such as /push. Without it: the "
        "path of the public URL.",
    )
    trusted_proxies: Annotated[str, AfterValidator(values.networks)] = Field(
        default="",
        description="Addresses and networks of proxies whose forwarded headers are trusted, "
        "separated by commas.",
    )
    tls_certificate: Annotated[Path, AfterValidator(values.existing_file)] | None = Field(
        default=None,
        description="PEM file of the server's certificate with its chain, for TLS without a proxy.",
    )
    tls_key: Annotated[Path, AfterValidator(values.existing_file)] | None = Field(
        default=None,
        description="PEM file of the certificate's key. Without it: the certificate's own file.",
    )
    max_body_bytes: int = Field(
        default=1_048_576,
        ge=1024,
        le=1_073_741_824,
        description="Largest body of one request to the server, and longest line of a stream.",
    )
    allowed_hosts: Annotated[str, AfterValidator(values.host_names)] = Field(
        default="",
        description="Host names that the server answers to, separated by commas, besides those "
        "of the public URL and of this machine; *.example.com includes all subdomains, * is any "
        "name. IP addresses, localhost and names without a dot are always allowed.",
    )
    metrics_public: bool = Field(
        default=False,
        description="Whether anybody may read /metrics; otherwise only the metrics key and API "
        "keys that administer every app: 1 or 0.",
    )
    metrics_key: Annotated[SecretStr, Field(min_length=16)] | None = Field(
        default=None,
        description="A key that may read /metrics and nothing else, sent as Authorization: "
        "Bearer; at least 16 characters.",
    )
    smtp_url: Annotated[SecretStr, AfterValidator(values.smtp_url)] | None = Field(
        default=None,
        description="Mail server for the links that prove an address: smtp://user:password@host:587"
        " (with STARTTLS) or smtps://; ?tls=none sends in the clear.",
    )
    mail_from: Annotated[str, AfterValidator(values.mail_address)] | None = Field(
        default=None,
        description="Sender of those mails, an address such as push@example.com.",
    )
    sessions_per_user: int = Field(
        default=50,
        ge=1,
        le=100_000,
        description="How many sessions (devices) a person may have in one app. Beyond that, those "
        "to which no push was ever accepted are closed; then registrations are refused.",
    )
    sign_in_hours: float = Field(
        default=12.0,
        gt=0,
        le=720,
        description="Hours after which an operator has to sign in to the console again.",
    )

    _secrets_file: Path | None = PrivateAttr(default=None)

    @property
    def secrets_file(self) -> Path | None:
        """Return the TOML file, if a password or a key is in it."""
        return self._secrets_file

    @property
    def proxies(self) -> Proxies:
        """Return the proxies for push services."""
        return self._proxies(self.proxy)

    @property
    def web_push_contact(self) -> str | None:
        """Return the subject of VAPID tokens; None where nothing names one."""
        if self.vapid_subject is not None:
            return self.vapid_subject
        if self.mail_from is not None:
            return f"mailto:{mailbox(read_mail(self.mail_from))}"
        return self.public_url if self.public_url.startswith("https://") else None

    @property
    def can_mail(self) -> bool:
        """Whether a mail server and a sender are named."""
        return self.smtp_url is not None and self.mail_from is not None

    @property
    def webhook_proxies(self) -> Proxies:
        """Return the proxies for webhooks."""
        return self._proxies(self.webhook_proxy)

    def _proxies(self, proxy: SecretStr | None) -> Proxies:
        setting = "" if proxy is None else proxy.get_secret_value()
        return Proxies.read(setting, self.no_proxy, os.environ)

    @field_validator("home")
    @classmethod
    def _expand(cls, home: Path) -> Path:
        return expanded(home).absolute()

    @field_validator("database_url")
    @classmethod
    def _beside_home(cls, url: str, info: ValidationInfo) -> str:
        if url or "home" not in info.data:
            return url
        return f"sqlite:///{info.data['home'] / DATABASE_FILE}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read what is given, then the environment; the other sources are not used."""
        return init_settings, env_settings

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Load the settings: overrides, then the environment, then the TOML file.

        An override of None counts as not given. Raises :class:`SettingsError`, naming the variable
        or file and the fix, for an invalid value and for a misspelled setting.
        """
        _refuse_misspelt(os.environ)
        given = {name: value for name, value in overrides.items() if value is not None}
        file = _config_file(given)
        written = {} if file is None else _read_config(file)
        weaker = {
            name: value
            for name, value in written.items()
            if name not in given and not os.environ.get(variable(name))
        }
        try:
            settings = cls(**weaker, **given)
        except ValidationError as error:
            raise _explained(error, file, weaker, given) from None
        if not SECRETS.isdisjoint(written):
            settings._secrets_file = file
        return settings


def variable(name: str) -> str:
    """Return the environment variable of a field: ``HANDBELL_HOME`` for ``home``."""
    return PREFIX + name.upper()


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


def _config_file(given: Mapping[str, Any]) -> Path | None:
    named = given.get("config") or os.environ.get(variable("config"))
    if named:
        return expanded(named)
    home = given.get("home") or os.environ.get(variable("home")) or user_data_path("handbell")
    file = expanded(home) / CONFIG_FILE
    return file if is_file(file) else None


def _read_config(file: Path) -> dict[str, Any]:
    try:
        written = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{file} is not UTF-8: byte {error.start} cannot be read", fix="Save it as UTF-8"
        ) from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f"{file} cannot be read as TOML: {parse_fault(error)}", fix="Correct it there"
        ) from None
    except OSError as error:
        raise SettingsError(
            f"{file} cannot be read: {error.strerror}",
            fix="Name a file that this user may read in HANDBELL_CONFIG",
        ) from None
    for name in written:
        if name not in Settings.model_fields or name == "config":
            meant = get_close_matches(name, Settings.model_fields, n=1, cutoff=0.6)
            raise SettingsError(
                f"{file} names {name}, which is not a setting",
                fix=f"Rename it to {meant[0]}, or remove it" if meant else "Remove it",
            )
    return written


def _explained(
    error: ValidationError, file: Path | None, written: Mapping[str, Any], given: Mapping[str, Any]
) -> SettingsError:
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    name = str(problem["loc"][0]) if problem["loc"] else ""
    if name not in Settings.model_fields:
        return SettingsError(
            f"There is no setting named {name}",
            fix=f"Use one of {', '.join(Settings.model_fields)}",
        )
    # Whoever wrote a proxy's address into another setting must not read its password in a log.
    why = _USER_INFO.sub("//…@", problem["msg"].removeprefix("Value error, "))
    said = f"{why[:1].lower()}{why[1:]}"
    about = Settings.model_fields[name].description
    if name in given:
        return SettingsError(
            f"What was given as {name} cannot be used: {said}",
            fix=f"{about} Correct it, or leave it out",
        )
    where = f"{name} in {file}" if name in written else variable(name)
    shown = where if name in written else f"{name} ({where})"
    return SettingsError(
        f"The setting {shown} cannot be used: {said}",
        fix=f"{about} Correct {where}, or remove it",
    )
