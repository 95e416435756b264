"""A progress display on a terminal for a notification; silent in a pipe."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from handbell._thread_pool import in_thread

from .output import console

if TYPE_CHECKING:
    from handbell.delivery.ledger.reports import Reports

NO_WORKER: Final = (
    "No worker is running, so nothing that waits is sent. Start one with: handbell worker."
)
_SECONDS: Final = 0.5
_SHARE: Final = 10
"""The share of time that polling may take, however large the broadcast."""


async def watch(
    reports: "Reports", notification_id: str, *, has_worker: Callable[[], bool] = lambda: True
) -> None:
    """Draw a notification's progress until every delivery has ended or is held.

    It also ends without a worker (``has_worker``).
    """
    with Progress(
        TextColumn("{task.fields[settled]:,} of {task.fields[all]:,}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as drawn:
        task = drawn.add_task("", total=None, settled=0, all=0)
        while True:
            before = time.monotonic()
            now = await in_thread(reports.progress, notification_id)
            drawn.update(
                task, completed=now.settled, total=now.total, settled=now.settled, all=now.total
            )
            if not now.is_running or not await in_thread(has_worker):
                return
            await asyncio.sleep(max(_SECONDS, _SHARE * (time.monotonic() - before)))
