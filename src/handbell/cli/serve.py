"""``handbell serve``: the HTTP API, the console and the engine in one process, on one port."""

import asyncio
import logging
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from handbell._collector import settle
from handbell._extras import install
from handbell._thread_pool import in_thread
from handbell.errors import ServeError

from .context import settings, system
from .database_wait import start_engine, wait_for_database
from .output import say, warn_of_exposure
from .signals import stop_on_signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

    from handbell.server.context import Context
    from handbell.system import System
    from handbell.twin.twin import Twin


def serve(
    *,
    listen: Annotated[
        str | None,
        typer.Option(help="Where to listen, host:port.", show_default="127.0.0.1:8710"),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help="The port only; the address stays. 0: a free one."),
    ] = None,
    public_url: Annotated[
        str | None,
        typer.Option(help="The public URL, for links in mails."),
    ] = None,
    root_path: Annotated[
        str | None, typer.Option(help="The path prefix of a proxy, such as /push.")
    ] = None,
    trusted_proxies: Annotated[
        str | None,
        typer.Option(help="Addresses and networks of trusted proxies, separated by commas."),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file of a certificate, to serve https itself.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of the certificate's key.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file of settings.", show_default="handbell.toml in the home"),
    ] = None,
    worker: Annotated[
        bool, typer.Option("--worker/--no-worker", help="Send what is accepted, in this process.")
    ] = True,
    console: Annotated[
        bool, typer.Option("--console/--no-console", help="Show the console for operators.")
    ] = True,
    twin: Annotated[
        bool,
        typer.Option("--twin", help="Run the twin too, to try it without anybody's account."),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log each request and each delivery that waits.")
    ] = False,
) -> None:
    """Serve the HTTP API and the console, and send what is accepted.

    Each option has a setting of its name (HANDBELL_LISTEN, or listen in the TOML file), which it
    overrides; docs/settings.md lists them all. The first start prints a link that creates the first
    operator. SIGTERM or Ctrl-C ends it: sends in progress finish, the rest waits for the next.
    """
    from handbell._portal import new_loop  # noqa: PLC0415 - heavy

    parts = system(
        listen=listen if port is None else _with_port(listen, port, config),
        public_url=public_url,
        root_path=root_path,
        trusted_proxies=trusted_proxies,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        config=config,
    )
    create = _creator()
    _set_up_logs(parts, is_verbose=verbose)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_run(parts, create, has_worker=worker, has_console=console, has_twin=twin))


def _with_port(listen: str | None, port: int, config: Path | None) -> str:
    host, _, _ = settings(listen=listen, config=config).listen.rpartition(":")
    return f"{host}:{port}"


def _creator() -> "Callable[[Context], FastAPI]":
    try:
        from handbell.server.application import create_application  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ServeError(
            f"The send server needs {error.name}, which is not installed",
            fix=install("server"),
        ) from None
    return create_application


async def _run(
    parts: "System",
    create: "Callable[[Context], FastAPI]",
    *,
    has_worker: bool,
    has_console: bool,
    has_twin: bool,
) -> None:
    from handbell.http_server.bounds import raise_file_limit  # noqa: PLC0415 - an extra
    from handbell.http_server.networks import is_loopback  # noqa: PLC0415
    from handbell.server.asgi_server import bind, make_context, serving, url_of  # noqa: PLC0415
    from handbell.server.links.mail import mailing  # noqa: PLC0415
    from handbell.server.presence import present  # noqa: PLC0415

    stop = stop_on_signal()
    raise_file_limit()
    async with AsyncExitStack() as stack:
        bound = stack.enter_context(bind(parts.settings.listen))
        stack.push_async_callback(parts.close)
        # Report an unusable database or key now, not at the first send.
        await wait_for_database(lambda: in_thread(parts.installation_key.check_once), stop)
        twin = await stack.enter_async_context(_twin(parts)) if has_twin else None
        # Pushes in flight end before the twin does.
        stack.push_async_callback(parts.close_gateways)
        context = make_context(
            parts,
            public_url=url_of(bound, parts.settings),
            has_worker=has_worker,
            has_console=has_console,
        )
        stack.callback(context.pool.shutdown, wait=True, cancel_futures=True)
        if has_worker:
            await start_engine(parts, stop)
        application = create(context)
        await stack.enter_async_context(mailing(context))
        await stack.enter_async_context(present(context))
        await stack.enter_async_context(serving(application, bound, settings=parts.settings))
        settle()
        if twin is not None:
            twin.links |= _links(context)
        host, port = bound.getsockname()[:2]
        listening = f"{f'[{host}]' if ':' in host else host}:{port}"
        warn_of_exposure(parts.settings)
        if parts.settings.tls_certificate is None and not is_loopback(host):
            _warn_of_plain_http(listening)
        await wait_for_database(lambda: _announce(context, twin), stop)
        say(f"Listening     {listening}", "Ctrl-C stops it.")
        sys.stdout.flush()
        await stop.wait()
        context.stopping.set()
        say("Stopping: sends in progress finish first. Ctrl-C again stops at once.")
    say("The server has stopped.")


def _warn_of_plain_http(listening: str) -> None:
    say(
        f"warning: plain HTTP on {listening}. Anyone on the network path sees keys and passwords. "
        "Set HANDBELL_TLS_CERTIFICATE, or use a proxy with HTTPS and make sure that nobody else "
        "reaches this port.",
        err=True,
    )


def _twin(parts: "System") -> Any:
    from .twin import TwinPorts, run_twin  # noqa: PLC0415 - an extra

    return run_twin(parts, (), ports=TwinPorts())


async def _announce(context: "Context", twin: "Twin | None") -> None:
    url = context.public_url
    if context.has_console:
        await _announce_console(context, url)
    say(f"API           {url}/docs")
    if twin is not None:
        say(f"Phones        {twin.page_link}")
    if not context.has_worker:
        say("Sending       by another process: handbell worker")


def _links(context: "Context") -> dict[str, str]:
    """Return the links of the page of the virtual phones."""
    links = {"The API": f"{context.public_url}/docs"}
    return {"Console": f"{context.public_url}/console", **links} if context.has_console else links


async def _announce_console(context: "Context", url: str) -> None:
    """Print the address to open: the console, or the link that creates the first operator."""
    if await context.run(context.system.operators.list):
        say(f"Open          {url}/console")
        return
    secret = await context.run(context.system.operators.invite_first)
    say(f"Open          {url}/console/invitation/{secret}")
    say("              It creates the first operator, once, within 24 hours; after that:")
    say(f"Console       {url}/console")


def _set_up_logs(parts: "System", *, is_verbose: bool) -> None:
    from handbell.delivery.observe.logs import Logs  # noqa: PLC0415 - an extra

    parts.hooks.add(Logs(level="debug" if is_verbose else "info"))
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    if is_verbose:
        logging.getLogger("handbell.server.requests").setLevel(logging.DEBUG)
