"""A connection to NATS that is made beside the work, and again for as long as it takes."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from handbell.errors import QueueUnavailableError

from .broker_address import BrokerAddress
from .broker_connection import CONNECT_SECONDS, begin, disconnect, new_client, told, unavailable

if TYPE_CHECKING:
    from nats.aio.client import Client

_RECONNECT_SECONDS: Final = 0.5
_PING_SECONDS: Final = 5

_log = logging.getLogger(__name__)


class KeptConnection:
    """One process's connection to a broker, made again for as long as it takes.

    Whoever accepts sends does not wait for a broker that is away: only the first connection is
    waited for, until each server has refused it once. ``on_loss`` is called when it is lost or
    missed, ``on_return`` when it is made after that. It belongs to one event loop at a time. Raises
    SettingsError where nats-py is missing.
    """

    def __init__(
        self,
        address: BrokerAddress,
        *,
        on_return: Callable[[], None] = lambda: None,
        on_loss: Callable[[], None] = lambda: None,
    ) -> None:
        new_client(address)  # before anything is stored that nobody could publish
        self._address = address
        self._on_return = on_return
        self._on_loss = on_loss
        self._client: Client | None = None
        self._making: asyncio.Task[None] | None = None
        self._is_told = asyncio.Event()
        self._deadline = 0.0
        self._refusals = 0
        self._is_made = self._is_over = False
        self._why = ""

    async def client(self) -> "Client":
        """Return what is connected; raises QueueUnavailableError where nothing is."""
        client = self._client
        if client is None or self._is_over or (self._is_made and client.is_closed):
            await self.close()
            client = self._begin()
        left = self._deadline - asyncio.get_running_loop().time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, left)):
                await self._is_told.wait()
        if not client.is_connected:
            raise self._missing(self._why or "nothing came in time")
        return client

    def connected(self) -> "Client":
        """Return what is connected now; raises QueueUnavailableError where nothing is."""
        if self._client is None or not self._client.is_connected:
            raise self._missing("the connection is lost")
        return self._client

    def _missing(self, why: str) -> QueueUnavailableError:
        self._on_loss()
        return unavailable(self._address, why)

    async def close(self) -> None:
        """Close it. Raises nothing."""
        client, self._client = self._client, None
        making, self._making = self._making, None
        if making is not None:
            making.cancel()
            await asyncio.wait([making])
        if client is not None:
            await disconnect(client)

    def _begin(self) -> "Client":
        client = self._client = new_client(self._address)
        loop = asyncio.get_running_loop()
        self._is_told = asyncio.Event()
        self._deadline = loop.time() + CONNECT_SECONDS
        self._refusals, self._why = 0, ""
        self._is_made = self._is_over = False
        self._making = loop.create_task(self._make(client))
        return client

    async def _make(self, client: "Client") -> None:
        try:
            await begin(
                client,
                self._address,
                self._hear,
                max_reconnect_attempts=-1,
                reconnect_time_wait=_RECONNECT_SECONDS,
                ping_interval=_PING_SECONDS,
                disconnected_cb=self._note_loss,
                reconnected_cb=self._note_return,
            )
        except Exception as error:  # noqa: BLE001 - told to whoever asks, and tried again then
            self._why, self._is_over = told(error), True
            return
        finally:
            self._is_told.set()
        self._is_made = True
        if self._refusals >= len(self._address.servers):
            await self._note_return()

    async def _hear(self, error: Exception) -> None:
        self._why = told(error)
        self._refusals += 1
        if self._refusals >= len(self._address.servers):
            self._is_told.set()
        _log.debug("Broker: %s", self._why)

    async def _note_loss(self) -> None:
        if self._client is not None:
            self._why = "the connection is lost"
            _log.warning("Connection to the broker lost: broker=%s", self._address)
            self._on_loss()

    async def _note_return(self) -> None:
        _log.info("Connected to the broker again: broker=%s", self._address)
        self._on_return()
