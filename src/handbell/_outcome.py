"""Waits for the outcome of a stored send."""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from handbell.delivery.ledger.answer import still_running
from handbell.delivery.response import Response

from ._thread_pool import in_thread

if TYPE_CHECKING:
    from .system import System


async def outcome(
    system: "System",
    row: int,
    notification_id: str,
    warnings: Iterable[str] = (),
    *,
    timeout: float | None = None,
    requested_timeout: float | None = None,
) -> Response:
    """Wait until each delivery of a stored send has ended or is held, and return the response.

    After ``timeout`` seconds the response says that the send is still running, with a warning
    unless the time-out is 0. The warning names ``requested_timeout`` where that differs.
    """
    known = list(warnings)
    requested_timeout = timeout if requested_timeout is None else requested_timeout
    try:
        if timeout == 0:
            return await in_thread(_so_far, system, notification_id, known, 0)
        async with asyncio.timeout(timeout):
            await system.engine.worker.settled(row)
    except TimeoutError:
        return await in_thread(_so_far, system, notification_id, known, requested_timeout or 0)
    return await in_thread(system.engine.response, notification_id, known)


def _so_far(system: "System", notification_id: str, warnings: list[str], waited: float) -> Response:
    is_running = system.reports.progress(notification_id).is_running
    if is_running and waited:
        warnings = [*warnings, still_running(notification_id, waited)]
    return system.engine.response(notification_id, warnings, is_running=is_running)
