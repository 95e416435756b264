"""``handbell app``: the apps that may be sent to."""

from typing import TYPE_CHECKING, Annotated

import typer

from handbell._text import count

from .context import system
from .output import Json, local_time, write_json, write_table

if TYPE_CHECKING:
    from handbell.apps.app import App

commands = typer.Typer(help="The apps that may be sent to.", no_args_is_help=True)

Reference = Annotated[str, typer.Argument(help="App id, name or bundle id.")]


@commands.command()
def add(
    app_id: Annotated[
        str, typer.Argument(help="Team id and bundle id: TEAM123456.com.sample.myapp")
    ],
    *,
    name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    as_json: Json = False,
) -> None:
    """Add an app."""
    from handbell.apps.app import App  # noqa: PLC0415 - heavy

    named = App.read_id(app_id)
    app = system().apps.add(named.team_id, named.bundle_id, name=name)
    if as_json:
        write_json(_describe(app))
    else:
        typer.echo(f"Added {app.id} ({app.name}).")
        typer.echo(f"Next: handbell key add AuthKey_XXX.p8 --app {app.id}")


@commands.command("list")
def list_apps(*, as_json: Json = False) -> None:
    """List the apps."""
    apps = system().apps.list()
    if as_json:
        write_json([_describe(app) for app in apps])
        return
    write_table(
        ["app", "name", "added"],
        ([app.id, app.name, local_time(app.created_at)] for app in apps),
        "There is no app yet. Add one with: handbell app add TEAM123456.com.sample.myapp",
    )


@commands.command()
def show(reference: Reference, *, as_json: Json = False) -> None:
    """Show an app, its keys and how many people it reaches."""
    parts = system()
    app = parts.apps.find(reference)
    credentials = parts.apps.credentials(app)
    users = len(parts.registry.mail_addresses(app))
    devices = len(parts.registry.device_tokens(app))
    if as_json:
        described = _describe(app)
        write_json({**described, "credentials": credentials, "users": users, "devices": devices})
        return
    typer.echo(f"{app.id}  {app.name}")
    typer.echo(f"  {count(users, 'user')}, {count(devices, 'device')} that can be reached")
    for stored in credentials:
        typer.echo(f"  {stored.kind} {stored.key_id}, {stored.environment or 'both environments'}")
    if not credentials:
        typer.echo(f"  no key yet: handbell key add AuthKey_XXX.p8 --app {app.id}")


@commands.command()
def remove(
    reference: Reference,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove an app with its keys, users and sessions."""
    parts = system()
    app = parts.apps.find(reference)
    devices = count(len(parts.registry.device_tokens(app)), "device")
    if not yes:
        typer.confirm(f"Remove {app.id} with its keys and {devices}?", abort=True)
    parts.apps.remove(app)
    typer.echo(f"Removed {app.id}.")


def _describe(app: "App") -> dict[str, object]:
    return {
        "id": app.id,
        "team_id": app.team_id,
        "bundle_id": app.bundle_id,
        "name": app.name,
        "is_enabled": app.is_enabled,
        "created_at": app.created_at,
    }
