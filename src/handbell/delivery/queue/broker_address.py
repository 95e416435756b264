"""Where a broker is, and what its stream is to be like."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from handbell.errors import SettingsError

PREFIX: Final = "handbell"
SQL: Final = "sql"
"""The engine of rows in the database, which needs no broker."""

_SCHEMES: Final = ("nats", "tls")
_PREFIX: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_LOOKS: Final = "Write nats://host:4222, or tls://user:password@host:4222; several with commas"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """The address of a NATS server, or of several of one cluster.

    ``prefix`` tells the installations on one broker apart: the beginning of the subjects and the
    name of the stream. ``replicas`` is on how many servers of a cluster the stream is kept, where
    it is made. Its text has no password.
    """

    servers: tuple[str, ...]
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
        servers: list[str] = []
        prefixes: set[str] = set()
        for one in (part.strip() for part in text.split(",")):
            try:
                parts = urlsplit(one)
                is_read = parts.scheme in _SCHEMES and parts.hostname and (parts.port or 4222)
            except ValueError:
                is_read = None
            if not is_read or parts.query or parts.fragment:
                raise SettingsError("HANDBELL_ENGINE is no address of NATS", fix=_LOOKS)
            servers.append(parts._replace(path="").geturl())
            prefixes.add(parts.path.strip("/") or PREFIX)
        prefix = prefixes.pop()
        if prefixes or not _PREFIX.fullmatch(prefix):
            raise SettingsError(
                "HANDBELL_ENGINE names no stream that can be used after the host",
                fix="Write one name in lower case for all servers, such as /handbell",
            )
        return cls(
            servers=tuple(servers),
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
        """Return the servers, without user and password."""
        hosts = (urlsplit(one) for one in self.servers)
        return ", ".join(f"{one.hostname}:{one.port or 4222}" for one in hosts)
