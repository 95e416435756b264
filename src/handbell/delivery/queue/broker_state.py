"""The state of a broker, for whoever looks from outside: what it holds, and what it lacks."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from handbell.delivery.urgency import LEVELS, NAMES, Urgency
from handbell.errors import QueueUnavailableError, SettingsError
from handbell.storage.database import Database

from .broker_address import BrokerAddress
from .broker_connection import connect, disconnect, in_words
from .stream_state import Counts, read_counts, read_written_at
from .unpublished import Overdue, Unpublished
from .work_messages import Kind

if TYPE_CHECKING:
    from nats.js import JetStreamContext

LOOK_SECONDS: Final = 2.0
"""How long a look at a broker waits for its connection at most, and then for its answers."""

MOST_LOOKED_FOR: Final = 200
"""Of how many apps and urgencies it is asked whether their work has a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageCounts:
    """The messages of one urgency: each names up to 500 deliveries, or a part of a broadcast.

    ``waiting`` are to be handed out, ``held`` are with workers, or were given back by one for a
    while; ``redelivered`` of the latter were handed out more than once.
    """

    urgency: Urgency
    waiting: int = 0
    held: int = 0
    redelivered: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerState:
    """A broker, and its stream of this installation. Instants are UNIX milliseconds.

    ``problem`` says why it is not reachable from here; ``away_since`` is since when nodes say the
    same. ``unpublished`` counts deliveries and parts of broadcasts that should have been taken and
    have no message; None where the broker cannot be asked. ``address`` has no password.
    """

    address: str
    stream: str
    is_reachable: bool = False
    problem: str = ""
    away_since: int | None = None
    messages: int = 0
    bytes: int = 0
    by_urgency: tuple[MessageCounts, ...] = ()
    unpublished: int | None = None
    oldest_unpublished_at: int | None = None


class BrokerBoard:
    """Looks at a broker, by a connection of its own, and changes nothing there.

    ``now`` gives UNIX seconds, by the clock of the database.
    """

    def __init__(
        self, address: BrokerAddress, database: Database, *, now: Callable[[], float]
    ) -> None:
        self._address = address
        self._unpublished = Unpublished(database, now=now)

    def read(self) -> BrokerState:
        """Return its state within twice :data:`LOOK_SECONDS`; call it outside of event loops.

        A broker that does not answer is a state. Raises StorageError when the database fails.
        """
        overdue = sorted(self._unpublished.overdue(), key=lambda one: one.since)[:MOST_LOOKED_FOR]
        try:
            state, lost = asyncio.run(_look(self._address, overdue))
        except (QueueUnavailableError, SettingsError) as error:
            return replace(_unknown(self._address), problem=error.what.rstrip("."))
        number, oldest = self._unpublished.count(lost)
        return replace(state, unpublished=number, oldest_unpublished_at=oldest)


def _unknown(address: BrokerAddress) -> BrokerState:
    return BrokerState(address=str(address), stream=address.prefix)


_Lost = list[tuple[Overdue, int | None]]


async def _look(address: BrokerAddress, overdue: Sequence[Overdue]) -> tuple[BrokerState, _Lost]:
    """Return the state of a broker, and which work has no message there."""
    client = await connect(
        address,
        seconds=LOOK_SECONDS,
        allow_reconnect=False,
        max_reconnect_attempts=1,
        reconnect_time_wait=0.1,
    )
    try:
        with in_words(address):
            async with asyncio.timeout(LOOK_SECONDS):
                return await _read(address, client.jetstream(timeout=LOOK_SECONDS), overdue)
    finally:
        await disconnect(client)


async def _read(
    address: BrokerAddress, stream: "JetStreamContext", overdue: Sequence[Overdue]
) -> tuple[BrokerState, _Lost]:
    from nats.js.errors import NotFoundError  # noqa: PLC0415 - of the extra

    try:
        info = await stream.stream_info(address.prefix)
        counts = await read_counts(stream, address.prefix)
    except NotFoundError:
        # It is made by the first process that works.
        return replace(_unknown(address), is_reachable=True), [(one, None) for one in overdue]
    state = replace(
        _unknown(address),
        is_reachable=True,
        messages=info.state.messages,
        bytes=info.state.bytes,
        by_urgency=tuple(_of_level(level, counts) for level in LEVELS),
    )
    oldest = await asyncio.gather(
        *(_written_at(stream, address.prefix, one, counts) for one in overdue)
    )
    pairs = zip(overdue, oldest, strict=True)
    return state, [(one, at) for one, at in pairs if one.has_no_message(at)]


async def _written_at(
    stream: "JetStreamContext", prefix: str, one: Overdue, counts: dict[tuple[Kind, int], Counts]
) -> int | None:
    # As the sweep has it: where every message was handed out, this work has none.
    if not counts[one.kind, one.level].waiting:
        return None
    return await read_written_at(stream, prefix, one.kind, one.level, one.app)


def _of_level(level: int, counts: dict[tuple[Kind, int], Counts]) -> MessageCounts:
    due, shards = counts["due", level], counts["shards", level]
    return MessageCounts(
        urgency=NAMES[level],
        waiting=due.waiting + shards.waiting,
        held=due.held + shards.held,
        redelivered=due.redelivered + shards.redelivered,
    )
