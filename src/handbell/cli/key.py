"""``handbell key``: keys and certificates of apps for APNs."""

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from .api_key import ACTOR
from .context import apps_of, system
from .output import (
    AppOption,
    Json,
    ListedApp,
    local_time,
    say,
    write_json,
    write_lines,
    write_table,
)

commands = typer.Typer(help="Keys and certificates of apps for APNs.", no_args_is_help=True)


@commands.command()
def add(
    file: Annotated[
        str, typer.Argument(help="AuthKey_XXX.p8, or a .p12 or .pem certificate; - reads a key.")
    ],
    *,
    app: AppOption = None,
    key_id: Annotated[
        str | None, typer.Option(help="The key id, if it is not in the file name.")
    ] = None,
    environment: Annotated[
        Literal["production", "development"] | None,
        typer.Option(help="The environment that the key is limited to."),
    ] = None,
    password: Annotated[
        str | None,
        typer.Option(envvar="HANDBELL_CERTIFICATE_PASSWORD", help="The .p12 file's password."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Add a key to an app. It is stored encrypted, and never shown again."""
    from handbell.apps.checkup import caveats  # noqa: PLC0415 - heavy
    from handbell.services.apns.credential import read_auth_key, read_certificate  # noqa: PLC0415 - heavy

    parts = system()
    found = parts.apps.find(app or parts.settings.app)
    source = sys.stdin.buffer.read() if file == "-" else Path(file)
    is_certificate = isinstance(source, Path) and source.suffix.lower() in {".p12", ".pfx", ".pem"}
    credential = (
        read_certificate(source, password=password)
        if is_certificate
        else read_auth_key(source, team_id=found.apple.team_id, key_id=key_id)
    )
    stored = parts.apps.add_credential(found, credential, environment=environment)
    warnings = caveats(credential, now=parts.now())
    parts.audit.note(ACTOR, "credential.add", stored.key_id, app=found.id, detail=stored.kind)
    if as_json:
        write_json({**asdict(stored), "warnings": warnings})
    else:
        say(f"Added {stored.kind} {stored.key_id} to {found.id}, sealed.")
        write_lines(warnings, "warning: ", "yellow")
        say(f"Next: handbell doctor {found.id}")


@commands.command("list")
def list_keys(*, app: ListedApp = None, as_json: Json = False) -> None:
    """List keys: id, kind, environment and fingerprint; never the key itself."""
    parts = system()
    found = [(item.id, key) for item in apps_of(parts, app) for key in parts.apps.credentials(item)]
    if as_json:
        write_json([{"app": app_id, **asdict(key)} for app_id, key in found])
        return
    write_table(
        ["key id", "kind", "environment", "fingerprint", "added", "expires", "app"],
        (
            [
                key.key_id,
                key.kind,
                key.environment or "both",
                key.fingerprint[:16],
                local_time(key.created_at),
                _expiry(key.expires_at),
                app_id,
            ]
            for app_id, key in found
        ),
        "There is no key yet. Add one with: handbell key add AuthKey_XXX.p8",
    )


@commands.command()
def remove(
    key_id: Annotated[str, typer.Argument(help="The key id.")], *, app: AppOption = None
) -> None:
    """Remove a key from an app."""
    parts = system()
    found = parts.apps.find(app or parts.settings.app)
    parts.apps.remove_credential(found, key_id)
    parts.audit.note(ACTOR, "credential.remove", key_id, app=found.id)
    say(f"Removed {key_id} from {found.id}.")


def _expiry(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "never"
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d")
