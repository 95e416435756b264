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
from .broker_connection import in_words, is_missing, unavailable
from .kept_connection import KeptConnection
from .stream_state import Counts, read_counts, read_written_at
from .work_messages import Kind, WorkMessage, consumers

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription
    from nats.js import JetStreamContext
    from nats.js.api import StreamConfig

ACK_SECONDS: Final = 30.0
"""After how long a message that nobody extends is given to another worker: twice a lease."""

DUPLICATE_SECONDS: Final = 120.0
_ANSWER_SECONDS: Final = 2
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
        self._connection = KeptConnection(
            address, on_return=self._note_return, on_loss=self._note_silence
        )
        self._heard_by: Client | None = None
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
        with self._in_words(is_away=False):  # one that is full answers
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
        async with turn:
            with self._in_words():
                taken = await _late(found)
                wish = to_json({"batch": most, "no_wait": True})
                await self._connected().publish(asked, wish, inbox)
                while len(taken) < most:
                    try:
                        message = await found.next_msg(timeout=_ANSWER_SECONDS)
                    except TimeoutError:
                        if not taken:
                            raise
                        break
                    status = _status(message)
                    if status is None:
                        taken.append(message)
                    elif status in _PULL_ENDS:
                        break
                    elif status != _HEARTBEAT:
                        self._stream = None  # its consumer is gone
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

    async def drop(self, message: "Msg") -> None:
        """Let nobody have a message any more."""
        with self._in_words():
            await message.term()

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
        self._heard_by = self._stream = None
        self._opening = asyncio.Lock()  # the next one may be in another event loop
        await self._connection.close()

    # The connection

    @property
    def _announcements(self) -> str:
        return f"{self.prefix}.announcements"

    def _connected(self) -> "Client":
        return self._connection.connected()

    async def _open(self) -> "JetStreamContext":
        async with self._opening:
            client = await self._connection.client()
            with self._in_words():
                if self._heard_by is not client:
                    self._stream = None
                    self._pulls.clear()
                    await client.subscribe(self._announcements, cb=self._hear)
                    self._heard_by = client
                if (stream := self._stream) is None:
                    stream = client.jetstream(timeout=_ANSWER_SECONDS)
                    await self._make(stream)
                    self._stream = stream
            return stream

    async def _make(self, stream: "JetStreamContext") -> None:
        """Make the stream and its consumers; one that is there and of use is left as it is."""
        from nats.js import api, errors  # noqa: PLC0415 - of the extra

        wanted = api.StreamConfig(
            name=self.stream,
            description="Handbell's work; the rows of its database are the truth",
            subjects=[f"{self.prefix}.due.>", f"{self.prefix}.shards.>"],
            retention=api.RetentionPolicy.WORK_QUEUE,
            discard=api.DiscardPolicy.NEW,
            storage=api.StorageType.FILE,
            num_replicas=self.address.replicas,
            duplicate_window=DUPLICATE_SECONDS,
        )
        try:
            found = await stream.stream_info(self.stream)
        except errors.NotFoundError:
            await stream.add_stream(wanted)
        else:
            self._check(found.config, wanted)
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

    def _check(self, found: "StreamConfig", wanted: "StreamConfig") -> None:
        """Raise QueueUnavailableError for a stream that loses work, or never lets go of it."""
        for what in ("subjects", "retention"):
            its, ours = getattr(found, what), getattr(wanted, what)
            if its != ours and sorted(its or ()) != sorted(ours):
                raise QueueUnavailableError(
                    f"The stream {self.stream} of the broker {self.address} is not as Handbell "
                    f"makes it: {what} is {its}, not {ours}",
                    fix="Delete it, it is made again and nothing is lost; or name another stream "
                    "in HANDBELL_ENGINE, after the host",
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

    def _note_return(self) -> None:
        # It may have lost its stream meanwhile.
        self._stream = None
        self._away_since = None
        self._wake()

    def _note_silence(self) -> None:
        if self._away_since is None:
            self._away_since = self._now()

    @contextlib.contextmanager
    def _in_words(self, *, is_away: bool = True) -> Iterator[None]:
        """Raise QueueUnavailableError, and note since when, where the broker does not answer."""
        try:
            with in_words(self.address):
                yield
        except QueueUnavailableError as error:
            if is_missing(error.__cause__):
                self._stream = None  # an operator has deleted it: it is made again
            if is_away:
                self._note_silence()
            raise


def _status(message: "Msg") -> str | None:
    return (message.headers or {}).get("Status")


async def _late(found: "Subscription") -> "list[Msg]":
    """Return messages that came when nobody waited for them any more; how it ended is forgotten."""
    late = [await found.next_msg(timeout=_ANSWER_SECONDS) for _ in range(found.pending_msgs)]
    return [one for one in late if _status(one) is None]
