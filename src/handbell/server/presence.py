"""The server among the nodes, where it has no worker whose heartbeat would say that it lives."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from handbell._background import forever
from handbell.delivery.queue.heartbeat import BEAT_SECONDS
from handbell.errors import QueueUnavailableError

from .context import Context


@contextlib.asynccontextmanager
async def present(context: Context) -> AsyncIterator[None]:
    """Say that the server lives, while the block runs."""
    if context.has_worker:
        yield
        return

    async def turn() -> float:
        if (broker := context.system.broker) is not None:
            with contextlib.suppress(QueueUnavailableError):  # since when is in its node
                await broker.find()
        await context.run(context.system.presence.beat)
        return BEAT_SECONDS

    task = asyncio.create_task(forever(turn, name="Server heartbeat", pause=BEAT_SECONDS))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
