"""``handbell worker``: the engine without a server."""

import asyncio
import logging
from typing import TYPE_CHECKING, Annotated

import typer

from handbell._collector import settle

from .context import home_options, system
from .database_wait import start_engine
from .output import say, warn_of_exposure
from .processes import run_processes
from .signals import stop_on_signal

if TYPE_CHECKING:
    from handbell.delivery.events import Hook
    from handbell.system import System


def worker(
    *,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="Exit when nothing is due, for cron.")
    ] = False,
    processes: Annotated[
        int, typer.Option(min=1, max=256, help="How many processes work: one for each core.")
    ] = 1,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also log each held delivery.")
    ] = False,
) -> None:
    """Send stored notifications, retry failures, prune old data. Several may run at once.

    Logs events to standard error, one per line. SIGTERM or Ctrl-C ends it: pushes in flight
    finish, the rest waits for the next worker. A second one ends it at once, and
    nothing is lost then either.
    """
    if processes > 1:
        given = {"--until-idle": until_idle, "--verbose": verbose}
        options = [name for name, is_given in given.items() if is_given]
        words = [*home_options(), "worker", *options]
        raise typer.Exit(asyncio.run(run_processes(words, processes)))
    from handbell._portal import new_loop  # noqa: PLC0415 - heavy

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_run(until_idle=until_idle, level="debug" if verbose else "info"))


async def _run(*, until_idle: bool, level: str) -> None:
    parts = system()
    parts.hooks.add(_logs(level))
    parts.run_as("worker")
    stop = stop_on_signal()
    ends: list[asyncio.Task[object]] = []
    try:
        await start_engine(parts, stop)
        taker = parts.engine.worker
        say(f"Worker {taker.id} works on {parts.database.name}. Ctrl-C stops it.")
        warn_of_exposure(parts.settings)
        settle()
        ends.append(asyncio.create_task(stop.wait()))
        if until_idle:
            ends.append(asyncio.create_task(_work_off(parts)))
        ended, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        for task in ends:
            task.cancel()
        await parts.close()
    say("The worker has stopped.")


async def _work_off(parts: "System") -> None:
    await parts.pruner.prune()
    await parts.engine.worker.idle()


def _logs(level: str) -> "Hook":
    try:
        from handbell.delivery.observe.logs import Logs  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        from handbell.delivery.observe.log_lines import (  # noqa: PLC0415 - heavy
            LOGGER,
            LoggedEvents,
        )

        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
        logging.getLogger(LOGGER).setLevel(level.upper())
        return LoggedEvents()
    return Logs(level=level)
