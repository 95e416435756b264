"""``handbell key``: what proves to the push services that an app sends."""

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from handbell.errors import CredentialInUseError

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

if TYPE_CHECKING:
    from collections.abc import Callable

    from handbell.apps.app import App
    from handbell.apps.credential_kinds import Credential
    from handbell.apps.store import StoredCredential
    from handbell.system import System

T = TypeVar("T")

commands = typer.Typer(
    help="Keys, certificates and service accounts of apps.", no_args_is_help=True
)


Forced = Annotated[
    bool,
    typer.Option(
        "--force", help="Lose the subscriptions that live by the former web push key; do not ask."
    ),
]


@commands.command()
def add(
    file: Annotated[
        str,
        typer.Argument(
            help="AuthKey_XXX.p8, a .p12 or .pem certificate, the .json of a service account, or "
            "a web push key; - reads a key."
        ),
    ],
    *,
    app: AppOption = None,
    key_id: Annotated[
        str | None, typer.Option(help="The key id, if it is not in the file name.")
    ] = None,
    environment: Annotated[
        Literal["production", "development", "twin"] | None,
        typer.Option(help="The environment that the key is limited to."),
    ] = None,
    password: Annotated[
        str | None,
        typer.Option(envvar="HANDBELL_CERTIFICATE_PASSWORD", help="The .p12 file's password."),
    ] = None,
    web_push: Annotated[
        bool,
        typer.Option("--web-push", help="The file is a private web push key (VAPID) to take over."),
    ] = False,
    force: Forced = False,
    as_json: Json = False,
) -> None:
    """Add a key to an app. It is stored encrypted, and never shown again."""
    from handbell.apps.credential_reader import read_credential  # noqa: PLC0415 - heavy

    parts = system()
    found = parts.apps.find(app or parts.settings.app)
    source = sys.stdin.buffer.read() if file == "-" else Path(file)
    credential = read_credential(
        source, found, key_id=key_id, password=password, is_web_push=web_push
    )
    stored = _store(parts, found, credential, environment, is_forced=force)
    _tell(parts, found, credential, stored, as_json=as_json)


@commands.command()
def make(
    what: Annotated[
        Literal["web-push"], typer.Argument(help="web-push: the key that pages subscribe with.")
    ],
    *,
    app: AppOption = None,
    environment: Annotated[
        Literal["production", "twin"] | None,
        typer.Option(help="The environment that the key is limited to."),
    ] = None,
    force: Forced = False,
    as_json: Json = False,
) -> None:
    """Make a key that no vendor gives out: for browsers, an app makes its own.

    It is stored encrypted. Subscriptions live by it: it is part of every backup of the database.
    """
    from handbell.services.webpush.credential import VapidKey  # noqa: PLC0415 - heavy

    assert what == "web-push"  # noqa: S101 - the only one so far
    parts = system()
    found = parts.apps.find(app or parts.settings.app)
    key = VapidKey.make()
    stored = _store(parts, found, key, environment, is_forced=force)
    _tell(parts, found, key, stored, as_json=as_json)


def _store(
    parts: "System",
    app: "App",
    credential: "Credential",
    environment: str | None,
    *,
    is_forced: bool,
) -> "StoredCredential":
    """Store a credential; where subscriptions would be lost, ask who is there to be asked."""
    store = parts.apps.add_credential
    stored = _asked(
        lambda force: store(app, credential, environment=environment, is_forced=force), is_forced
    )
    parts.audit.note(ACTOR, "credential.add", stored.key_id, app=app.id, detail=stored.kind)
    return stored


def _asked(act: "Callable[[bool], T]", is_forced: bool) -> "T":  # noqa: FBT001 - the option
    try:
        return act(is_forced)
    except CredentialInUseError as error:
        if not sys.stdin.isatty():
            raise CredentialInUseError(
                error.what, fix="Keep the key, or lose them with --force", sessions=error.sessions
            ) from None
        typer.confirm(f"{error.what} Go on?", abort=True)
        return act(True)


def _tell(
    parts: "System",
    app: "App",
    credential: "Credential",
    stored: "StoredCredential",
    *,
    as_json: bool,
) -> None:
    from handbell.apps.checkup import caveats  # noqa: PLC0415 - heavy
    from handbell.apps.credential_kinds import title_of  # noqa: PLC0415 - heavy

    warnings = caveats(credential, now=parts.now())
    public = getattr(credential, "public_key", None)
    if as_json:
        told = {**asdict(stored), "warnings": warnings}
        write_json(told if public is None else {**told, "public_key": public})
        return
    say(f"Added {title_of(stored.kind)} {stored.key_id} to {app.id}, sealed.")
    write_lines(warnings, "warning: ", "yellow")
    if public is not None:
        say(f"Pages subscribe with its public half: {public}")
    say(f"Next: handbell doctor {app.id}")


@commands.command("list")
def list_keys(*, app: ListedApp = None, as_json: Json = False) -> None:
    """List keys: id, kind, environment and fingerprint; never the key itself."""
    from handbell.apps.credential_kinds import title_of  # noqa: PLC0415 - heavy

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
                title_of(key.kind),
                key.environment or ("both" if key.service == "apns" else "every"),
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
    key_id: Annotated[str, typer.Argument(help="The key id.")],
    *,
    app: AppOption = None,
    force: Forced = False,
) -> None:
    """Remove a key from an app."""
    parts = system()
    found = parts.apps.find(app or parts.settings.app)
    store = parts.apps
    _asked(lambda forced: store.remove_credential(found, key_id, is_forced=forced), force)
    parts.audit.note(ACTOR, "credential.remove", key_id, app=found.id)
    say(f"Removed {key_id} from {found.id}.")


def _expiry(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "never"
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d")
