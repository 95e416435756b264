"""The connection of one process to NATS JetStream: the stream of work, and its consumers.

It belongs to one event loop. Needs the extra ``nats``.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from time import time
from typing import TYPE_CHECKING, Final

from pydantic_core import to_json

from handbell.errors import QueueUnavailableError

from .broker_address import BrokerAddress
from .broker_connection import connect, disconnect, in_words, unavailable
from .stream_state import Counts, read_counts, read_written_at
from .work_messages import Kind, WorkMessage, consumers

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription
    from nats.js import JetStreamContext

ACK_SECONDS: Final = 30.0
"""After how long a message that nobody extends is given to another worker: twice a lease."""

DUPLICATE_SECONDS: Final = 120.0
_ANSWER_SECONDS: Final = 2
_RECONNECT_SECONDS: Final = 0.5
_MOST_UNACKNOWLEDGED: Final = 50_000
_PULL_ENDS: Final = frozenset({"404", "408", "409"})
_HEARTBEAT: Final = "100"

_log = logging.getLogger(__name__)


class Broker:
    """One stream of work on a NATS server, or on a cluster of them.

    It connects at its first use, makes the stream and its consumers where they are missing, and
    connects again by itself after a loss. Every method raises
    :class:`~handbell.errors.QueueUnavailableError` while the broker does not answer.
    ``now`` gives UNIX seconds.
    """

    def __init__(self, address: BrokerAddress, *, now: Callable[[], float] = time) -> None:
        self.address = address
        self._now = now
        self._away_since: float | None = None
        self._client: Client | None = None
        self._stream: JetStreamContext | None = None
        self._pulls: dict[str, tuple[str, Subscription, asyncio.Lock]] = {}
        self._opening = asyncio.Lock()
        self._wakers: list[Callable[[], None]] = []

    @property
    def prefix(self) -> str:
        """The beginning of its subjects, by which installations on one broker are told apart."""
        return self.address.prefix

    @property
    def stream(self) -> str:
        """The name of its stream."""
        return self.prefix

    @property
    def away_since(self) -> float | None:
        """Since when it does not answer this process, in UNIX seconds; None where it does.

        May be read in any thread.
        """
        return self._away_since

    def on_work(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` when anybody has published work."""
        self._wakers.append(wake)

    async def publish(self, message: WorkMessage) -> None:
        """Store a message; the same one again within two minutes is dropped."""
        stream = await self._open()
        data = message.encode()
        name = hashlib.sha256(data).hexdigest()[:32]
        with in_words(self.address):  # one that is full answers, and is not away
            await stream.publish(
                message.subject(self.prefix),
                data,
                headers={"Nats-Msg-Id": name},
                timeout=_ANSWER_SECONDS,
            )
        self._away_since = None

    async def announce(self) -> None:
        """Wake all workers: there is new work. A lost word costs a moment."""
        await self._open()
        with self._in_words():
            await self._connected().publish(self._announcements, b"")

    async def pull(self, kind: Kind, level: int, most: int) -> "list[Msg]":
        """Take up to ``most`` messages that are there; each is this process's until it says so."""
        await self._open()
        inbox, found, turn = await self._pull_of(kind, level)
        name, _ = consumers(self.prefix)[kind, level]
        asked = f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{name}"
        taken: list[Msg] = []
        async with turn:
            with self._in_words():
                wish = to_json({"batch": most, "no_wait": True})
                await self._connected().publish(asked, wish, inbox)
                while len(taken) < most:
                    message = await found.next_msg(timeout=_ANSWER_SECONDS)
                    status = (message.headers or {}).get("Status")
                    if status is None:
                        taken.append(message)
                    elif status in _PULL_ENDS:
                        break
                    elif status != _HEARTBEAT:
                        raise unavailable(self.address, f"it answered {status}")
        self._away_since = None
        return taken

    async def written_at(self, kind: Kind, level: int, app: str) -> int | None:
        """Return when the oldest message of a subject was written; None where there is none."""
        stream = await self._open()
        with self._in_words():
            return await read_written_at(stream, self.prefix, kind, level, app)

    async def extend(self, messages: "Iterable[Msg]") -> None:
        """Say that messages are still worked on; return once the broker has read it."""
        await self._open()
        with self._in_words():
            for message in messages:
                await message.in_progress()
            await self._connected().flush(timeout=_ANSWER_SECONDS)

    async def acknowledge(self, message: "Msg") -> None:
        """Say that all work of a message is done."""
        with self._in_words():
            await message.ack()

    async def give_back(self, message: "Msg", seconds: float = 0.0) -> None:
        """Let others have a message, after so many seconds."""
        with self._in_words():
            await message.nak(seconds)

    async def confirm(self) -> None:
        """Return once the broker has read everything that was sent to it."""
        await self._open()
        with self._in_words():
            await self._connected().flush(timeout=_ANSWER_SECONDS)

    async def find(self) -> None:
        """Return once the stream has answered, which notes that it does."""
        stream = await self._open()
        with self._in_words():
            await stream.stream_info(self.stream)
        self._away_since = None

    async def counts(self) -> dict[tuple[Kind, int], Counts]:
        """Return how many messages there are of each kind and level."""
        stream = await self._open()
        with self._in_words():
            return await read_counts(stream, self.prefix)

    async def close(self) -> None:
        """Close the connection. Raises nothing."""
        client, self._client, self._stream = self._client, None, None
        self._pulls.clear()
        self._opening = asyncio.Lock()  # the next one may be in another event loop
        if client is not None:
            await disconnect(client)

    # The connection

    @property
    def _announcements(self) -> str:
        return f"{self.prefix}.announcements"

    def _connected(self) -> "Client":
        if self._client is None or not self._client.is_connected:
            self._note_silence()
            raise unavailable(self.address, "the connection is lost")
        return self._client

    async def _open(self) -> "JetStreamContext":
        async with self._opening:
            if self._stream is not None:
                self._connected()
                return self._stream
            if self._client is None:
                client = self._client = await self._connect()
                with self._in_words():
                    await client.subscribe(self._announcements, cb=self._hear)
            with self._in_words():
                stream = self._connected().jetstream(timeout=_ANSWER_SECONDS)
                await self._make(stream)
            self._stream = stream
            return stream

    async def _connect(self) -> "Client":
        try:
            return await connect(
                self.address,
                max_reconnect_attempts=-1,
                reconnect_time_wait=_RECONNECT_SECONDS,
                ping_interval=5,
                disconnected_cb=self._note_loss,
                reconnected_cb=self._note_return,
            )
        except QueueUnavailableError:
            self._note_silence()
            raise

    async def _make(self, stream: "JetStreamContext") -> None:
        """Make the stream and its consumers; what is there already is left as it is."""
        from nats.js import api, errors  # noqa: PLC0415 - of the extra

        try:
            await stream.stream_info(self.stream)
        except errors.NotFoundError:
            await stream.add_stream(
                api.StreamConfig(
                    name=self.stream,
                    description="Handbell's work; the rows of its database are the truth",
                    subjects=[f"{self.prefix}.due.>", f"{self.prefix}.shards.>"],
                    retention=api.RetentionPolicy.WORK_QUEUE,
                    discard=api.DiscardPolicy.NEW,
                    storage=api.StorageType.FILE,
                    num_replicas=self.address.replicas,
                    duplicate_window=DUPLICATE_SECONDS,
                )
            )
        for name, its in consumers(self.prefix).values():
            await stream.add_consumer(
                self.stream,
                api.ConsumerConfig(
                    durable_name=name,
                    filter_subject=its,
                    ack_policy=api.AckPolicy.EXPLICIT,
                    ack_wait=ACK_SECONDS,
                    max_ack_pending=_MOST_UNACKNOWLEDGED,
                ),
            )

    async def _pull_of(self, kind: Kind, level: int) -> "tuple[str, Subscription, asyncio.Lock]":
        name = f"{kind}-{level}"
        if name not in self._pulls:
            client = self._connected()
            inbox = client.new_inbox()
            with self._in_words():
                self._pulls[name] = inbox, await client.subscribe(inbox), asyncio.Lock()
        return self._pulls[name]

    async def _hear(self, _message: "Msg") -> None:
        self._wake()

    def _wake(self) -> None:
        for wake in self._wakers:
            wake()

    async def _note_loss(self) -> None:
        if self._client is not None:
            self._note_silence()
            _log.warning("Connection to the broker lost: broker=%s", self.address)

    async def _note_return(self) -> None:
        _log.info("Connected to the broker again: broker=%s", self.address)
        # It may have lost its stream meanwhile.
        self._stream = None
        self._away_since = None
        self._wake()

    def _note_silence(self) -> None:
        if self._away_since is None:
            self._away_since = self._now()

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        """Raise QueueUnavailableError, and note since when, where the broker does not answer."""
        try:
            with in_words(self.address):
                yield
        except QueueUnavailableError:
            self._note_silence()
            raise
