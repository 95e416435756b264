"""What a test process would make once more for each test, though it is the same each time."""

import ssl
from collections.abc import Hashable, MutableMapping
from functools import cache
from typing import Any

import httpx
from sqlalchemy import Connection, Engine, event


@cache
def _trusting_nobody() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def plain_client(url: str = "", **options: Any) -> httpx.Client:
    """Return a client of a server that speaks plain HTTP, whatever the machine's proxies.

    By itself each client would load all authorities of the machine, which takes longer than most
    tests; ``verify`` is for a server that has a certificate.
    """
    options = {"timeout": 10, "verify": _trusting_nobody(), **options}
    return httpx.Client(base_url=url, trust_env=False, **options)


class _Compiled(dict[Hashable, Any]):
    """Compiled statements by the kind of their database, not by the engine that asks first."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(_without_engine(key), default)

    def __setitem__(self, key: Any, compiled: Any) -> None:
        super().__setitem__(_without_engine(key), compiled)


def _without_engine(key: tuple[Any, ...]) -> tuple[Hashable, ...]:
    dialect, *statement = key
    return (type(dialect), *statement)


_COMPILED: MutableMapping[Any, Any] = _Compiled()


@event.listens_for(Engine, "engine_connect")
def _share_statements(connection: Connection) -> None:
    """Have each test's engine find compiled what the ones before it have compiled."""
    connection.execution_options(compiled_cache=_COMPILED)
