"""``handbell worker``: the engine without a server."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from typing import TYPE_CHECKING, Annotated

import typer

from handbell._collector import settle
from handbell._extras import install
from handbell.errors import ServeError

from .context import home_options, settings, system
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
    listen: Annotated[
        str | None,
        typer.Option(
            help="Where to serve /healthz, /readyz and /metrics, host:port; of several processes "
            "each takes the next port.",
            show_default="nowhere",
        ),
    ] = None,
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
        each = [[*words, *_listening(listen, place)] for place in range(processes)]
        raise typer.Exit(asyncio.run(run_processes(each)))
    from handbell._portal import new_loop  # noqa: PLC0415 - heavy

    with asyncio.Runner(loop_factory=new_loop) as runner:
        level = "debug" if verbose else "info"
        runner.run(_run(until_idle=until_idle, level=level, listen=listen))


def _listening(listen: str | None, place: int) -> list[str]:
    """Return where one of several processes serves its health: each at a port of its own."""
    if listen is None:
        return []
    host, _, port = settings(listen=listen).listen.rpartition(":")
    return [f"--listen={host}:{int(port) + place if int(port) else 0}"]


async def _run(*, until_idle: bool, level: str, listen: str | None) -> None:
    parts = system() if listen is None else system(listen=listen)
    parts.hooks.add(_logs(level))
    stop = stop_on_signal()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(parts.close)
        health = None if listen is None else stack.enter_context(_health(parts))
        if health is None:
            parts.run_as("worker")
        await start_engine(parts, stop)
        if health is not None:
            say(f"Health at {await stack.enter_async_context(health)}")
        say(f"Worker {parts.engine.worker.id} works on {parts.database.name}. Ctrl-C stops it.")
        warn_of_exposure(parts.settings)
        settle()
        await _work(parts, stop, until_idle=until_idle)
    say("The worker has stopped.")


async def _work(parts: "System", stop: asyncio.Event, *, until_idle: bool) -> None:
    """Return when the worker is to stop, or has nothing more to do if that is its end."""
    ends: list[asyncio.Task[object]] = [asyncio.create_task(stop.wait())]
    if until_idle:
        ends.append(asyncio.create_task(_work_off(parts)))
    try:
        ended, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        for task in ends:
            task.cancel()


@contextmanager
def _health(parts: "System") -> "Iterator[AbstractAsyncContextManager[str]]":
    """Listen, and give what answers on the port and yields its URL while it is entered."""
    try:
        from handbell.server.application import (  # noqa: PLC0415 - an extra
            create_health_application,
        )
    except ModuleNotFoundError as error:
        raise ServeError(
            f"--listen needs {error.name}, which is not installed", fix=install("server")
        ) from None
    from handbell.server.asgi_server import bind, make_context, serving, url_of  # noqa: PLC0415

    with bind(parts.settings.listen) as bound:
        url = url_of(bound, parts.settings)
        context = make_context(parts, public_url=url, has_console=False, kind="worker")

        @asynccontextmanager
        async def answering() -> AsyncIterator[str]:
            application = create_health_application(context)
            async with serving(application, bound, settings=parts.settings):
                yield url

        yield answering()
        context.pool.shutdown(wait=True, cancel_futures=True)


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
