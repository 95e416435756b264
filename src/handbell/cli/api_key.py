"""``handbell api-key``: API keys of back ends for the send server."""

from typing import Annotated

import typer

from .context import system
from .output import Json, local_time, say, write_json, write_table

commands = typer.Typer(
    help="API keys with which back ends use the send server.", no_args_is_help=True
)

ACTOR = "command line"
"""The actor in the audit trail."""


@commands.command()
def add(
    name: Annotated[str, typer.Argument(help="The holder of the key: the shop's back end.")],
    *,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="What it may do: send, register, administer; may be repeated. administer "
            "includes the two others.",
            show_default="send",
        ),
    ] = None,
    app: Annotated[
        str | None,
        typer.Option(help="The only app it is valid for.", show_default="every app"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Create an API key, which is shown only once."""
    parts = system()
    found = None if app is None else parts.apps.find(app)
    key, secret = parts.api_keys.add(name, scope or ["send"], found)
    scopes = ", ".join(sorted(key.scopes))
    parts.audit.note(ACTOR, "api-key.add", key.prefix, app=key.app, detail=f"{key.name}: {scopes}")
    if as_json:
        write_json({"api_key": key, "key": secret})
        return
    say(f"API key {key.prefix} may {scopes}, for {key.app or 'every app'}.")
    say(f"Key: {secret}")


@commands.command("list")
def list_keys(
    *,
    app: Annotated[str | None, typer.Option(help="Those of one app.")] = None,
    as_json: Json = False,
) -> None:
    """List API keys: prefix, name, scopes, app and last use; never the key."""
    parts = system()
    keys = parts.api_keys.list(None if app is None else parts.apps.find(app))
    if as_json:
        write_json(keys)
        return
    write_table(
        ["prefix", "name", "scopes", "app", "last used", "state", "added"],
        (
            [
                key.prefix,
                key.name,
                ", ".join(sorted(key.scopes)),
                key.app or "every app",
                local_time(key.used_at) or "never",
                "valid" if key.revoked_at is None else "revoked",
                local_time(key.created_at),
            ]
            for key in keys
        ),
        "There is no API key yet. Make one with: handbell api-key add NAME",
    )


@commands.command()
def revoke(
    prefix: Annotated[str, typer.Argument(help="The key's prefix, as `api-key list` shows it.")],
) -> None:
    """Revoke an API key permanently. A running server follows within a second."""
    parts = system()
    key = parts.api_keys.revoke(prefix)
    parts.audit.note(ACTOR, "api-key.revoke", key.prefix, app=key.app)
    say(f"Revoked {key.prefix} ({key.name}).")
