"""What the text of a setting may be. Each raises ValueError, with words that follow its name."""

import base64
import binascii
import os
import re
import ssl
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from ._mail import read_mail
from ._paths import expanded, is_explicit_path, is_file
from ._proxy import Proxies, read_exceptions
from .services.webpush.hosts import PushHosts

_FERNET_KEY_BYTES: Final = 32
_MAX_PORT: Final = 65_535
_PATH: Final = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_HOST_NAME: Final = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")
_MAKE_KEY: Final = (
    'python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
)


def https_url(url: str) -> str:
    """Return the URL of a push service."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError("it must look like https://host or https://host:port")
    return url.rstrip("/")


def check_authority(path: Path) -> Path:
    """Return the path of a file of trusted certificates.

    Raises ValueError, with a text that follows the name of a setting, for an invalid one.
    """
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:  # also an OSError
        raise ValueError(f"{path} holds no certificates in PEM form") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    return path


def existing_file(path: Path) -> Path:
    """Return the path of a file that is there."""
    if not is_file(expanded(path)):
        # Who gave the key's text for its path must not read it in a log.
        shown = f"file {path}" if is_explicit_path(path) else "such file"
        raise ValueError(f"there is no {shown}")
    return expanded(path)


def broker_url(value: SecretStr) -> SecretStr:
    """Return the URL of a NATS server."""
    if not value.get_secret_value().startswith(("nats://", "tls://")):
        raise ValueError("it must look like nats://host:4222")
    return value


def fernet_keys(secret: SecretStr) -> SecretStr:
    """Return keys of which each is one of Fernet's."""
    for key in secret_keys(secret):
        try:
            size = len(base64.b64decode(key, altchars=b"-_", validate=True))
        except (binascii.Error, ValueError):
            size = 0
        if size != _FERNET_KEY_BYTES:
            raise ValueError(f"each key is 44 characters of base64; make one with: {_MAKE_KEY}")
    return secret


def host_and_port(listen: str) -> str:
    """Return an address to listen on."""
    host, colon, port = listen.strip().rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > _MAX_PORT:
        raise ValueError("it must look like 127.0.0.1:8710 or [::]:8710")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("an IPv6 address stands in brackets: [::1]:8710")
    return listen.strip()


def public_url(url: str) -> str:
    """Return the URL by which others reach a server, or an empty one."""
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.query):
        raise ValueError("it must look like https://push.example.com or with a path behind it")
    return url.rstrip("/")


def root_path(path: str) -> str:
    """Return the path before all others, or an empty one."""
    if path.strip("/") and not _PATH.fullmatch(path.rstrip("/")):
        raise ValueError("it must look like /push")
    return path.rstrip("/")


def host_names(text: str) -> str:
    """Return host names, separated by commas."""
    for each in text.split(","):
        if each.strip() not in ("", "*") and not _HOST_NAME.fullmatch(each.strip()):
            raise ValueError("names look like push.example.com, without scheme and port")
    return text


def networks(text: str) -> str:
    """Return networks, separated by commas."""
    for each in text.split(","):
        if each.strip():
            ip_network(each.strip(), strict=False)
    return text


def smtp_url(secret: SecretStr) -> SecretStr:
    """Return the URL of a mail server."""
    try:
        parts = urlsplit(secret.get_secret_value())
        is_good = parts.scheme in ("smtp", "smtps") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise ValueError("it must look like smtp://user:password@host:587")
    return secret


def postgresql_url(secret: SecretStr) -> SecretStr:
    """Return the URL of a PostgreSQL database."""
    if not secret.get_secret_value().startswith(("postgresql://", "postgresql+psycopg://")):
        raise ValueError("it must look like postgresql://user:password@host/name")
    return secret


def mail_address(text: str) -> str:
    """Return a mail address."""
    read_mail(text)
    return text.strip()


def proxy_url(secret: SecretStr) -> SecretStr:
    """Return the URL of a proxy."""
    Proxies.read(secret.get_secret_value(), "", os.environ)
    return secret


def push_hosts(text: str) -> str:
    """Return the hosts of push services for browsers."""
    PushHosts.read(text)
    return text


def vapid_subject(text: str) -> str:
    """Return whom a push service may write to."""
    parts = urlsplit(text.strip())
    if parts.scheme == "mailto":
        read_mail(parts.path)
    elif parts.scheme != "https" or not parts.hostname:
        raise ValueError("it must look like mailto:push@example.com or https://example.com/contact")
    return text.strip()


def exceptions(text: str) -> str:
    """Return the hosts that are reached without a proxy."""
    read_exceptions(text)
    return text


Url = Annotated[str, AfterValidator(https_url)]
Seconds = Annotated[float, Field(gt=0, le=300)]


def secret_keys(secret: SecretStr) -> list[str]:
    """Return the Fernet keys of a ``secret_key`` setting in their order."""
    return [key.strip() for key in secret.get_secret_value().split(",") if key.strip()]
