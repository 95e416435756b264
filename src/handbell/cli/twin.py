"""``handbell twin``: Apple's push service and some phones, on this machine."""

import asyncio
from collections.abc import Sequence
from contextlib import asynccontextmanager
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
PRODUCTION_PORT = 2197
DEVELOPMENT_PORT = 2198


def twin(
    mail: Annotated[
        list[str] | None,
        typer.Option("--phone", help="Mail of a phone's owner; may be repeated."),
    ] = None,
    *,
    port: Annotated[int, typer.Option(help="Port of the page; 0 takes a free one.")] = PAGE_PORT,
    production_port: Annotated[int, typer.Option(help="APNs, production side.")] = PRODUCTION_PORT,
    development_port: Annotated[
        int, typer.Option(help="APNs, development side.")
    ] = DEVELOPMENT_PORT,
    key: Annotated[
        list[Path] | None,
        typer.Option(help="AuthKey_XXX.p8 of another client; needs --team. May be repeated."),
    ] = None,
    team: Annotated[str | None, typer.Option(help="The team id that --key belongs to.")] = None,
) -> None:
    """Run Apple's push service on this machine, with virtual phones in the browser.

    Phones register themselves in the registry, so `handbell send` and the Python API reach them.
    """
    asyncio.run(_run(mail or [], (port, production_port, development_port), key or [], team))


async def _run(
    mails: list[str], ports: tuple[int, int, int], keys: list[Path], team: str | None
) -> None:
    stop = stop_on_signal()
    async with run_twin(system(), mails, ports=ports, keys=keys, team=team) as serving:
        _announce(serving)
        await stop.wait()
        say("", "The twin has stopped.")


@asynccontextmanager
async def run_twin(
    parts: "System",
    mails: Sequence[str],
    *,
    ports: tuple[int, int, int],
    keys: Sequence[Path] = (),
    team: str | None = None,
) -> "AsyncIterator[Twin]":
    """Run a twin with a system while the block runs, with a phone for each mail.

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
    owners = [registered_mail(mail) for mail in mails]
    private_folder(parts.settings.home)
    running = read_address(parts.twin_folder)
    if running is not None:
        raise TwinError(
            f"A twin already runs on this home: {running.page_link}",
            fix="Use it, stop it, or name another --home",
        )
    page, production, development = ports
    with DemoEnvironment(parts) as demo_environment:
        serving = Twin(
            parts.twin_folder,
            page_port=page,
            production_port=production,
            development_port=development,
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


def _populate(serving: "Twin", demo_environment: "DemoEnvironment", mails: Sequence[str]) -> None:
    from handbell.demo_environment import SAMPLE_MAIL  # noqa: PLC0415 - heavy

    apps = demo_environment.prepare()
    for app in apps:
        serving.add_app(app.id, app.name)
        for known in demo_environment.known_sessions(app):
            # A phone with an owner registers itself; a pending one has no owner yet.
            owner = known.mail if known.status == "active" else None
            serving.add_phone(
                known.device,
                mail=owner,
                app=app.id,
                token=known.token,
                platform="android" if known.service == "fcm" else "ios",
            )
    owned = {phone.mail for phone in serving.phones.values()}
    wanted = list(mails) or ([] if owned else [SAMPLE_MAIL])
    for mail in wanted:
        if mail not in owned:
            serving.add_phone(f"{mail.partition('@')[0]}'s phone", mail=mail, app=apps[0].id)


def _announce(serving: "Twin") -> None:
    mails = sorted({phone.mail for phone in serving.phones.values() if phone.mail})
    say(f"Phones        {serving.page_link}")
    say(f"Production    {serving.production_url}")
    say(f"Development   {serving.development_url}")
    say(f"Authority     {serving.ca_file}")
    for mail in mails[:1]:
        say(f'Try           handbell send {mail} --title "Hello" --body "It rings"')
    say("Ctrl-C stops it.")
