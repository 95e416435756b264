"""Connecting to NATS, and its failures in words. Needs the extra ``nats``."""

import asyncio
import contextlib
import functools
import logging
import os
import socket
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from handbell._extras import install
from handbell.errors import QueueUnavailableError, SettingsError

from .broker_address import BrokerAddress

if TYPE_CHECKING:
    from nats.aio.client import Client

CONNECT_SECONDS: Final = 5.0
_ATTEMPT_SECONDS: Final = 2
_CLOSE_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


async def connect(
    address: BrokerAddress, *, seconds: float = CONNECT_SECONDS, **options: Any
) -> "Client":
    """Connect to a broker; ``options`` are those of ``nats.connect``.

    Raises :class:`~handbell.errors.QueueUnavailableError` where that fails, in ``seconds`` at most.
    """
    try:
        import nats  # noqa: PLC0415 - of the extra
    except ModuleNotFoundError:
        raise SettingsError(
            "HANDBELL_ENGINE names a broker, and nats-py is not installed", fix=install("nats")
        ) from None
    heard: list[Exception] = []

    async def hear(error: Exception) -> None:
        heard[:] = [error]
        _log.debug("Broker: %s", told(error))

    client = _client(address)
    try:
        async with asyncio.timeout(seconds):
            await client.connect(
                list(address.servers),
                name=f"handbell {socket.gethostname()} {os.getpid()}",
                connect_timeout=_ATTEMPT_SECONDS,
                error_cb=hear,
                **_secrets(address),
                **options,
            )
    except (OSError, TimeoutError, nats.errors.Error) as error:
        await disconnect(client)
        # That none of its servers is there says less than why the last one is not.
        raise unavailable(address, told(heard[0] if heard else error)) from None
    return client


async def disconnect(client: "Client") -> None:
    """Close a client, within a second. Raises nothing.

    One whose handshake failed would wait for the end of its connection for ever.
    """
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await client.close()


def _client(address: BrokerAddress) -> "Client":
    """Return a client; of an address with ``tls`` one that says nothing without encryption.

    nats-py leaves it to the server whether there is TLS, and tells it the password in any case.
    """
    from nats.aio.client import Client  # noqa: PLC0415 - of the extra
    from nats.errors import Error  # noqa: PLC0415 - of the extra

    class EncryptedClient(Client):
        def _connect_command(self) -> bytes:
            if not self._server_info.get("tls_required"):
                raise Error("it offers no TLS, which the address asks for")
            return super()._connect_command()

    if not address.is_tls:
        return Client()
    _drop_warnings()
    return EncryptedClient()


@functools.cache
def _drop_warnings() -> None:
    """Leave out what asyncio says of each end of a connection that nats-py encrypted later."""
    logging.getLogger("asyncio").addFilter(lambda record: "eof_received" not in str(record.msg))


def _secrets(address: BrokerAddress) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if address.credentials_file is not None:
        options["user_credentials"] = str(address.credentials_file)
    if address.is_tls:
        ca_file = None if address.ca_file is None else str(address.ca_file)
        options["tls"] = ssl.create_default_context(cafile=ca_file)
    return options


@contextlib.contextmanager
def in_words(address: BrokerAddress) -> Iterator[None]:
    """Raise errors of the client as :class:`~handbell.errors.QueueUnavailableError`."""
    import nats  # noqa: PLC0415 - of the extra

    try:
        yield
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise unavailable(address, told(error)) from error


def unavailable(address: BrokerAddress, why: str) -> QueueUnavailableError:
    """Return the error that a broker does not answer."""
    return QueueUnavailableError(
        f"The broker {address} does not answer: {why}",
        fix="Check HANDBELL_ENGINE, and that NATS runs there with JetStream",
    )


def told(error: BaseException) -> str:
    """Return what an error of the client says, on one line and without its prefix."""
    if hasattr(error, "err_code") and error.err_code is None:
        return "JetStream is not enabled there, or has no leader"
    text = getattr(error, "description", None) or getattr(error, "strerror", None) or str(error)
    return text.removeprefix("nats: ").strip(" '") or "nothing came in time"
