"""Where a broker is, and what its stream is to be like."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import SplitResult, unquote, urlsplit

from handbell.errors import SettingsError

PREFIX: Final = "handbell"
SQL: Final = "sql"
"""The engine of rows in the database, which needs no broker."""

_PORT: Final = 4222
_SCHEMES: Final = ("nats", "tls")
_PREFIX: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_LOOKS: Final = "Write nats://host:4222, or tls://user:password@host:4222; several with commas"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """The address of a NATS server, or of several of one cluster.

    ``prefix`` tells the installations on one broker apart: the beginning of the subjects and the
    name of the stream. ``user`` and ``password`` are for all servers; a user alone is a token.
    ``replicas`` is on how many servers of a cluster the stream is kept, where it is made. Its text
    and the servers have no password.
    """

    servers: tuple[str, ...]
    user: str = field(default="", repr=False)
    password: str | None = field(default=None, repr=False)
    prefix: str = PREFIX
    credentials_file: Path | None = None
    ca_file: Path | None = None
    replicas: int = 1

    @classmethod
    def read(
        cls,
        text: str,
        *,
        credentials_file: Path | None = None,
        ca_file: Path | None = None,
        replicas: int = 1,
    ) -> Self:
        """Return the address in a setting: ``nats://host:4222/prefix``, or several with commas.

        Raises :class:`~handbell.errors.SettingsError` for anything else.
        """
        read = [_parts_of(one.strip()) for one in text.split(",")]
        prefixes = {parts.path.strip("/") or PREFIX for parts in read}
        logins = {(parts.username, parts.password) for parts in read if parts.username}
        if len(logins) > 1:
            raise SettingsError(
                "HANDBELL_ENGINE names several users",
                fix="Write one user and password; they are for all servers of the cluster",
            )
        prefix = prefixes.pop()
        if prefixes or not _PREFIX.fullmatch(prefix):
            raise SettingsError(
                "HANDBELL_ENGINE names no stream that can be used after the host",
                fix="Write one name in lower case for all servers, such as /handbell",
            )
        user, password = logins.pop() if logins else (None, None)
        return cls(
            servers=tuple(f"{parts.scheme}://{_host_of(parts)}" for parts in read),
            user=unquote(user or ""),
            password=None if password is None else unquote(password),
            prefix=prefix,
            credentials_file=credentials_file,
            ca_file=ca_file,
            replicas=replicas,
        )

    @property
    def is_tls(self) -> bool:
        """Whether connections are encrypted: all of them, where one server is named with tls."""
        return any(one.startswith("tls:") for one in self.servers)

    def __str__(self) -> str:
        """Return the servers."""
        return ", ".join(urlsplit(one).netloc for one in self.servers)


def _parts_of(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        is_read = parts.scheme in _SCHEMES and parts.hostname and (parts.port or _PORT)
    except ValueError:
        is_read = None
    if not is_read or parts.query or parts.fragment:
        raise SettingsError("HANDBELL_ENGINE is no address of NATS", fix=_LOOKS)
    return parts


def _host_of(parts: SplitResult) -> str:
    host = parts.hostname or ""
    return f"{f'[{host}]' if ':' in host else host}:{parts.port or _PORT}"
