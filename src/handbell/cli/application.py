"""The command ``handbell`` with all subcommands."""

from pathlib import Path
from typing import Annotated

import typer

from handbell._version import __version__

from . import (
    api_key,
    app,
    db,
    demo,
    doctor,
    import_4d,
    key,
    notification,
    operator,
    send,
    serve,
    session,
    status,
    template,
    twin,
    webhook,
    why,
    worker,
)
from .context import use_home
from .output import Json, say, write_json

application = typer.Typer(
    name="handbell",
    help="Push notifications to people, not to tokens.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@application.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    *,
    home: Annotated[
        Path | None,
        typer.Option(
            envvar="HANDBELL_HOME",
            help="Folder of the database and the secret key.",
            show_default="the user's data folder",
        ),
    ] = None,
    is_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if is_version:
        say(f"handbell {__version__}")
        raise typer.Exit
    use_home(home)
    if context.invoked_subcommand is None:
        context.get_help()
        raise typer.Exit(2)


@application.command()
def version(*, as_json: Json = False) -> None:
    """Print the version."""
    if as_json:
        write_json({"version": __version__})
    else:
        say(f"handbell {__version__}")


application.command("demo")(demo.demo)
application.command("serve")(serve.serve)
application.command("twin")(twin.twin)
application.command("worker")(worker.worker)
application.command("send")(send.send)
application.add_typer(notification.commands, name="notification")
application.command("why")(why.why)
application.add_typer(app.commands, name="app")
application.add_typer(key.commands, name="key")
application.add_typer(session.commands, name="session")
application.add_typer(api_key.commands, name="api-key")
application.add_typer(operator.commands, name="operator")
application.add_typer(template.commands, name="template")
application.add_typer(webhook.commands, name="webhook")
application.add_typer(db.commands, name="db")
application.command("import-4d")(import_4d.import_4d)
application.command("doctor")(doctor.doctor)
application.command("status")(status.status)
