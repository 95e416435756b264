"""What a broker's stream holds: read by workers, and by whoever looks at it from outside."""

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from .work_messages import Kind, WorkMessage, consumers, subject

if TYPE_CHECKING:
    from nats.js import JetStreamContext


class Counts(NamedTuple):
    """How many messages wait to be handed out, and how many are handed out and not over.

    ``redelivered`` of the latter were handed out more than once.
    """

    waiting: int
    held: int
    redelivered: int = 0


async def read_counts(stream: "JetStreamContext", prefix: str) -> dict[tuple[Kind, int], Counts]:
    """Return how many messages there are of each kind and level."""
    its = consumers(prefix)
    told = await asyncio.gather(*(stream.consumer_info(prefix, name) for name, _ in its.values()))
    return {
        place: Counts(one.num_pending or 0, one.num_ack_pending or 0, one.num_redelivered or 0)
        for place, one in zip(its, told, strict=True)
    }


async def read_written_at(
    stream: "JetStreamContext", prefix: str, kind: Kind, level: int, app: str
) -> int | None:
    """Return when the oldest message of a subject was written; None where there is none."""
    from nats.js.errors import NotFoundError  # noqa: PLC0415 - of the extra

    its = subject(prefix, kind, level, app)
    try:
        oldest = await stream.get_msg(prefix, seq=1, subject=its, next=True)
    except NotFoundError:
        return None
    try:
        return WorkMessage.decode(oldest.data or b"").at
    except ValueError:
        return 0
