"""``handbell twin``: the push services and some phones, on this machine."""

import asyncio
import os
from collections.abc import Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handbell.errors import TwinError

from .context import system
from .output import say
from .signals import stop_on_signal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from handbell.demo_environment import DemoEnvironment
    from handbell.system import System
    from handbell.twin.twin import Twin

PAGE_PORT = 8025
PROXY_PORT = 8026
PRODUCTION_PORT = 2197
DEVELOPMENT_PORT = 2198
_KINDS = {"ios": "phone", "android": "Android phone", "web": "browser"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinPorts:
    """The twin's ports; 0 is a free one. ``proxy`` is None for no proxy.

    A ``webpush_socket`` of None is the usual port where it is free: browsers are led to it by a
    preference, which is to hold for the next twin too.
    """

    page: int = 0
    production: int = 0
    development: int = 0
    fcm: int = 0
    webpush: int = 0
    webpush_socket: int | None = None
    proxy: int | None = None


def twin(
    mail: Annotated[
        list[str] | None,
        typer.Option("--phone", help="Mail of an iPhone's owner; may be repeated."),
    ] = None,
    *,
    android: Annotated[
        list[str] | None, typer.Option(help="Mail of an Android phone's owner; may be repeated.")
    ] = None,
    browser: Annotated[
        list[str] | None, typer.Option(help="Mail of a browser's owner; may be repeated.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the page; 0 takes a free one.")] = PAGE_PORT,
    production_port: Annotated[int, typer.Option(help="APNs, production side.")] = PRODUCTION_PORT,
    development_port: Annotated[
        int, typer.Option(help="APNs, development side.")
    ] = DEVELOPMENT_PORT,
    fcm_port: Annotated[int, typer.Option(help="FCM, with its access tokens.")] = 0,
    webpush_port: Annotated[int, typer.Option(help="Web Push: browsers' endpoints.")] = 0,
    webpush_socket_port: Annotated[
        int | None,
        typer.Option(help="Web Push: what a browser connects to; 8027 where that is free."),
    ] = None,
    proxy: Annotated[
        bool,
        typer.Option(help="Also run a proxy, for clients with the services' names built in."),
    ] = False,
    proxy_port: Annotated[int, typer.Option(help="Port of the proxy.")] = PROXY_PORT,
    key: Annotated[
        list[Path] | None,
        typer.Option(help="AuthKey_XXX.p8 of another client; needs --team. May be repeated."),
    ] = None,
    team: Annotated[str | None, typer.Option(help="The team id that --key belongs to.")] = None,
    service_account: Annotated[
        list[Path] | None,
        typer.Option(
            help="Key file of a Google service account of another client; one that is missing is "
            "made. May be repeated."
        ),
    ] = None,
    project: Annotated[
        str | None, typer.Option(help="The Google project of a key file that is made.")
    ] = None,
) -> None:
    """Run the push services on this machine, with virtual phones in the browser.

    Phones register themselves in the registry, so `handbell send` and the Python API reach them.
    """
    ports = TwinPorts(
        page=port,
        production=production_port,
        development=development_port,
        fcm=fcm_port,
        webpush=webpush_port,
        webpush_socket=webpush_socket_port,
        proxy=proxy_port if proxy else None,
    )
    phones = [
        *(("ios", one) for one in mail or ()),
        *(("android", one) for one in android or ()),
        *(("web", one) for one in browser or ()),
    ]
    asyncio.run(_run(phones, ports, (key or [], team), (service_account or [], project)))


async def _run(
    phones: list[tuple[str, str]],
    ports: TwinPorts,
    keys: tuple[list[Path], str | None],
    accounts: tuple[list[Path], str | None],
) -> None:
    stop = stop_on_signal()
    async with run_twin(system(), phones, ports=ports, keys=keys[0], team=keys[1]) as serving:
        for file in accounts[0]:
            _add_account(serving, file, accounts[1])
        _announce(serving)
        await stop.wait()
        say("", "The twin has stopped.")


@asynccontextmanager
async def run_twin(
    parts: "System",
    phones: Sequence[tuple[str, str]],
    *,
    ports: TwinPorts,
    keys: Sequence[Path] = (),
    team: str | None = None,
) -> "AsyncIterator[Twin]":
    """Run a twin with a system while the block runs, with phones of a platform and a mail each.

    Raises TwinError if the extra is not installed or a twin already runs on this home, and
    RegistryError for an invalid mail address; nothing is created then.
    """
    from handbell.demo_environment import DemoEnvironment, without_twin  # noqa: PLC0415
    from handbell.registry.registration import registered_mail  # noqa: PLC0415 - heavy
    from handbell.storage.folders import private_folder  # noqa: PLC0415 - heavy

    try:
        from handbell.twin.discovery import read_address  # noqa: PLC0415
        from handbell.twin.twin import Twin  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise without_twin(error) from None
    owners = [(platform, registered_mail(mail)) for platform, mail in phones]
    private_folder(parts.settings.home)
    running = read_address(parts.twin_folder)
    if running is not None:
        raise TwinError(
            f"A twin already runs on this home: {running.page_link}",
            fix="Use it, stop it, or name another --home",
        )
    with DemoEnvironment(parts) as demo_environment:
        serving = Twin(
            parts.twin_folder,
            page_port=ports.page,
            production_port=ports.production,
            development_port=ports.development,
            fcm_port=ports.fcm,
            webpush_port=ports.webpush,
            webpush_socket_port=ports.webpush_socket,
            proxy_port=ports.proxy,
            hooks=demo_environment.hooks(),
        )
        _add_keys(serving, keys, team)
        async with serving:
            _populate(serving, demo_environment, owners)
            yield serving


def _add_keys(serving: "Twin", keys: Sequence[Path], team: str | None) -> None:
    from handbell.services.apns.credential import read_auth_key  # noqa: PLC0415 - heavy

    if keys and team is None:
        raise TwinError("--key was given without --team", fix="Add the team id with --team")
    for file in keys:
        key = read_auth_key(file, team_id=team or "")
        serving.add_key(key.team_id, key.key_id, key.public_key_pem)


def _add_account(serving: "Twin", file: Path, project: str | None) -> None:
    """Add a service account from its key file; make the file, for its owner alone, if missing."""
    from handbell._files import refused  # noqa: PLC0415 - used here alone
    from handbell.twin.phones import DEFAULT_PROJECT  # noqa: PLC0415 - an extra

    try:
        with suppress(FileNotFoundError):
            serving.add_service_account(file.read_bytes())
            return
        made = serving.make_service_account(project or DEFAULT_PROJECT)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(made)
    except OSError as error:
        _, why, fix = refused(error, elsewhere="name another file")
        raise TwinError(f"The key file {file} cannot be used: {why}", fix=fix) from None


def _populate(
    serving: "Twin", demo_environment: "DemoEnvironment", phones: Sequence[tuple[str, str]]
) -> None:
    from handbell.demo_environment import SAMPLE_MAIL  # noqa: PLC0415 - heavy

    apps = demo_environment.prepare()
    for app in apps:
        serving.add_app(app.id, app.name)
        demo_environment.restore(serving, app)
    owned = {(phone.platform or "ios", phone.mail) for phone in serving.phones.values()}
    has_owner = any(mail for _, mail in owned)
    for platform, mail in phones or ([] if has_owner else [("ios", SAMPLE_MAIL)]):
        if (platform, mail) not in owned:
            name = f"{mail.partition('@')[0]}'s {_KINDS[platform]}"
            serving.add_phone(name, mail=mail, app=apps[0].id, platform=platform)


def _announce(serving: "Twin") -> None:
    mails = sorted({phone.mail for phone in serving.phones.values() if phone.mail})
    say(f"Phones        {serving.page_link}")
    say(f"Production    {serving.production_url}")
    say(f"Development   {serving.development_url}")
    say(f"FCM           {serving.fcm_url}")
    say(f"Web Push      {serving.webpush_url}")
    say(f"Browsers      {serving.webpush_socket_url}")
    say(f"Authority     {serving.ca_file}")
    if serving.proxy_url:
        say(f"Proxy         {serving.proxy_url}")
        say(f"Its authority {serving.hosts_ca_file}")
    for mail in mails[:1]:
        say(f'Try           handbell send {mail} --title "Hello" --body "It rings"')
    say("Ctrl-C stops it.")
