"""Connecting to NATS, and its failures in words. Needs the extra ``nats``."""

import asyncio
import contextlib
import functools
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from handbell._extras import install
from handbell.errors import QueueUnavailableError, SettingsError

from .broker_address import BrokerAddress
from .broker_login import login

if TYPE_CHECKING:
    from nats.aio.client import Client

CONNECT_SECONDS: Final = 5.0
_ATTEMPT_SECONDS: Final = 2
_CLOSE_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


async def connect(
    address: BrokerAddress, *, seconds: float = CONNECT_SECONDS, **options: Any
) -> "Client":
    """Return a client that is connected; ``options`` are those of ``nats.connect``.

    Raises :class:`~handbell.errors.QueueUnavailableError` where that fails, in ``seconds`` at most.
    """
    client = new_client(address)
    heard: list[Exception] = []

    async def hear(error: Exception) -> None:
        heard[:] = [error]
        _log.debug("Broker: %s", told(error))

    try:
        async with asyncio.timeout(seconds):
            await begin(client, address, hear, **options)
    except Exception as error:  # noqa: BLE001 - nats-py has many for what a server may say
        await disconnect(client)
        # That none of its servers is there says less than why the last one is not.
        raise unavailable(address, told(heard[0] if heard else error)) from None
    return client


async def begin(
    client: "Client",
    address: BrokerAddress,
    hear: Callable[[Exception], Awaitable[None]],
    **options: Any,
) -> None:
    """Connect a client, for as long as ``options``, those of ``nats.connect``, let it try.

    ``hear`` gets each failure on the way.
    """
    await client.connect(
        list(address.servers),
        name=f"handbell {socket.gethostname()} {os.getpid()}",
        connect_timeout=_ATTEMPT_SECONDS,
        error_cb=hear,
        **login(address),
        **options,
    )


async def disconnect(client: "Client") -> None:
    """Close a client, within a second. Raises nothing.

    One whose handshake failed would wait for the end of its connection for ever.
    """
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await client.close()
    # One that was cancelled as it tried takes itself for closed, and is not.
    if client._transport is not None:  # noqa: SLF001 - it has no name
        client._transport.close()  # type: ignore[no-untyped-call]  # noqa: SLF001
        await asyncio.sleep(0)


def new_client(address: BrokerAddress) -> "Client":
    """Return a client; of an address with ``tls`` one that says nothing without encryption.

    nats-py leaves it to the server whether there is TLS, and tells it the password in any case.
    Raises SettingsError where nats-py is missing.
    """
    try:
        from nats.aio.client import Client  # noqa: PLC0415 - of the extra
        from nats.errors import Error  # noqa: PLC0415 - of the extra
    except ModuleNotFoundError:
        raise SettingsError(
            "HANDBELL_ENGINE names a broker, and nats-py is not installed", fix=install("nats")
        ) from None

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


@contextlib.contextmanager
def in_words(address: BrokerAddress) -> Iterator[None]:
    """Raise errors of the client as :class:`~handbell.errors.QueueUnavailableError`."""
    import nats  # noqa: PLC0415 - of the extra

    try:
        yield
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise unavailable(address, told(error)) from error


def is_missing(error: BaseException | None) -> bool:
    """Return whether an error says that there is no such stream, or that one of its parts."""
    from nats.errors import NoRespondersError  # noqa: PLC0415 - of the extra
    from nats.js.errors import NoStreamResponseError, NotFoundError  # noqa: PLC0415

    return isinstance(error, (NoRespondersError, NoStreamResponseError, NotFoundError))


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
