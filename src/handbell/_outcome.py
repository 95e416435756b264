"""Waiting for what becomes of a send that is stored."""

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
    asked: float | None = None,
) -> Response:
    """Return what became of a stored send once each of its deliveries has ended or waits.

    Not longer than ``timeout`` seconds: the answer says then that it goes on, by a warning too
    where somebody waited at all. It names the seconds that were ``asked`` for, if others were.
    """
    known = list(warnings)
    asked = timeout if asked is None else asked
    try:
        if timeout == 0:
            return await in_thread(_so_far, system, notification_id, known, 0)
        async with asyncio.timeout(timeout):
            await system.engine.worker.settled(row)
    except TimeoutError:
        return await in_thread(_so_far, system, notification_id, known, asked or 0)
    return await in_thread(system.engine.response, notification_id, known)


def _so_far(system: "System", notification_id: str, warnings: list[str], waited: float) -> Response:
    is_running = system.reports.progress(notification_id).is_running
    if is_running and waited:
        warnings = [*warnings, still_running(notification_id, waited)]
    return system.engine.response(notification_id, warnings, is_running=is_running)
