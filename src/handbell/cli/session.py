"""``handbell session``: users' registered devices."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final, Literal, TextIO, cast

import typer

from handbell._text import count, json_fault, short_token
from handbell.errors import RegistryError

from .api_key import ACTOR
from .context import apps_of, system
from .inputs import number_of
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
    from io import BufferedReader

    from handbell.registry.import_sessions import ImportResult
    from handbell.registry.session import Session

_COLUMNS: Final = (
    "session",
    "mail",
    "status",
    "platform",
    "environment",
    "token",
    "device",
    "registered",
)
_MOST_TOLD: Final = 200
_PEEKED: Final = 100

commands = typer.Typer(help="Sessions: users' registered devices.", no_args_is_help=True)

SessionId = Annotated[
    int,
    typer.Argument(
        parser=number_of("session"),
        metavar="session_id",
        help="The session's number, as `session list` shows it.",
    ),
]


@commands.command()
def add(
    mail: Annotated[str, typer.Argument(help="The owner's mail address.")],
    token: Annotated[
        str,
        typer.Argument(
            help="Apple's device token in hex digits, FCM's registration token, or a browser's "
            "subscription as JSON."
        ),
    ],
    *,
    app: AppOption = None,
    environment: Annotated[
        Literal["production", "development", "twin"],
        typer.Option(help="The token's environment; development is Apple's sandbox."),
    ] = "production",
    platform: Annotated[
        str | None, typer.Option(help="ios, ipados, macos, android, web, …")
    ] = None,
    service: Annotated[
        str | None,
        typer.Option(help="apns, fcm or webpush, if the platform does not tell."),
    ] = None,
    locale: Annotated[str | None, typer.Option(help="Such as fr-CH.")] = None,
    time_zone: Annotated[str | None, typer.Option(help="Such as Europe/Paris.")] = None,
    device: Annotated[str | None, typer.Option(help="The device's name.")] = None,
    device_id: Annotated[
        str | None, typer.Option(help="The same for all sessions of the device.")
    ] = None,
    pending: Annotated[
        bool, typer.Option("--pending", help="Send nothing to it until its owner is proven.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Register a device for a person. A token leaves its former owner, who gets no more pushes."""
    from handbell.registry.device_attributes import read_attributes  # noqa: PLC0415 - heavy
    from handbell.registry.registration import Registration  # noqa: PLC0415 - heavy

    described = {
        "locale": locale,
        "time_zone": time_zone,
        "device": device,
        "device_id": device_id,
    }
    facts, warnings = read_attributes(described)
    parts = system()
    found = parts.apps.find(app or parts.settings.app)
    registration = Registration.read(
        mail,
        _read_address(token),
        service=service,
        status="pending" if pending else "active",
        at=int(parts.now() * 1000),
        platform=platform,
        environment=environment,
        **facts,
    )
    registered = parts.registry.admit(found, registration)
    parts.revocations.wait(registered.moved)
    session = registered.session
    named = f"session {session.id}"
    parts.audit.note(ACTOR, "session.add", named, app=found.id, detail=session.status)
    if as_json:
        write_json({**_plain(session), "warnings": warnings})
    else:
        write_lines(warnings, "warning: ", "yellow")
        where = f"{session.mail} on {short_token(session.token)}"
        say(f"Session {session.id}: {where} is {session.status}.")


@commands.command("import")
def import_file(
    file: Annotated[
        str,
        typer.Argument(
            help="CSV with a header (mail, device_token, platform, …; for browsers endpoint, "
            "p256dh, auth), or a JSON object in each line, as an export has them; - reads from "
            "standard input."
        ),
    ],
    *,
    app: AppOption = None,
    platform: Annotated[
        str | None, typer.Option(help="Of lines that name none: ios, android, web, …")
    ] = None,
    service: Annotated[
        str | None, typer.Option(help="Of lines that name none: apns, fcm or webpush.")
    ] = None,
    environment: Annotated[
        Literal["production", "development", "twin"] | None,
        typer.Option(help="Of lines that name none."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check each line, and store nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Import sessions of another system. It may be repeated.

    A line that cannot be imported is refused with its number and the reason, the others go on, and
    the command ends with exit code 1.
    """
    from handbell.registry import import_sessions  # noqa: PLC0415 - heavy

    parts = system()
    found = parts.apps.find(app or parts.settings.app)
    defaults = {"platform": platform, "service": service, "environment": environment}
    result = import_sessions.ImportResult()
    refused: list[dict[str, object]] = []
    with _opened(file) as text:
        lines = import_sessions.read_lines(
            text, result, as_csv=import_sessions.is_csv(file, _peek(text))
        )
        steps = import_sessions.import_sessions(
            lines,
            parts.registry,
            found,
            result,
            now=int(parts.now() * 1000),
            defaults={name: value for name, value in defaults.items() if value is not None},
            is_trial=dry_run,
        )
        for refusals in steps:
            for refusal in refusals[: max(0, _MOST_TOLD - len(refused))]:
                told = {"line": refusal.line, "what": refusal.error.what, "fix": refusal.error.fix}
                refused.append(told)
                if not as_json:
                    say(f"line {refusal.line}: {refusal.error}", err=True)
            parts.revocations.wait(result.moved)
            result.moved.clear()
    counted = f"{count(result.imported, 'session')} imported, {result.refused} refused"
    if not dry_run:
        parts.audit.note(ACTOR, "session.import", "sessions", app=found.id, detail=counted)
    _tell_import(result, refused, counted, is_trial=dry_run, as_json=as_json)
    if result.refused:
        raise typer.Exit(1)


def _tell_import(
    result: "ImportResult",
    refused: list[dict[str, object]],
    counted: str,
    *,
    is_trial: bool,
    as_json: bool,
) -> None:
    if as_json:
        write_json(
            {
                "imported": 0 if is_trial else result.imported,
                "valid": result.imported,
                "refused": result.refused,
                "refusals": refused,
                "warnings": result.warnings[:_MOST_TOLD],
            }
        )
        return
    write_lines(result.warnings[:_MOST_TOLD], "warning: ", "yellow")
    left = result.refused - len(refused)
    if left > 0:
        say(f"{left} more lines are refused.", err=True)
    say(counted.replace("imported", "could be imported") if is_trial else counted)


@contextmanager
def _opened(file: str) -> Iterator[TextIO]:
    """Yield the text of a file, or of standard input, from which a beginning can be peeked."""
    try:
        raw = sys.stdin.buffer if file == "-" else Path(file).open("rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise RegistryError(
            f"{file} cannot be read: {error.strerror}", fix="Name a file with sessions"
        ) from None
    with raw:
        yield TextIOWrapper(cast("BinaryIO", raw), encoding="utf-8", newline="")


def _peek(text: TextIO) -> str:
    buffer = cast("BufferedReader", text.buffer)
    return buffer.peek(1)[:_PEEKED].decode(errors="replace")


def _read_address(text: str) -> str | dict[str, object]:
    if not text.lstrip().startswith("{"):
        return text
    try:
        return cast("dict[str, object]", json.loads(text))
    except (ValueError, RecursionError) as error:
        raise RegistryError(
            f"The subscription is not JSON: {json_fault(text.encode(errors='replace'), error)}",
            fix="Give it in single quotes, as the browser's toJSON() gives it",
        ) from None


@commands.command("list")
def list_sessions(
    mail: Annotated[str | None, typer.Argument(help="Only this person's.")] = None,
    *,
    app: ListedApp = None,
    service: Annotated[
        str | None, typer.Option(help="Only this push service's: apns, fcm or webpush.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List sessions, newest registration first."""
    from handbell.registry.addresses import service_of  # noqa: PLC0415 - heavy

    if service is not None:
        service_of(service)
    parts = system()
    sessions = [
        (item.id, session)
        for item in apps_of(parts, app)
        for session in (
            parts.registry.sessions_of(item, mail) if mail else parts.registry.sessions(item)
        )
        if service in (None, session.service)
    ]
    if as_json:
        write_json([{**_plain(session), "app": app_id} for app_id, session in sessions])
        return
    write_table(
        [*_COLUMNS, "app"],
        ([*_row(session), app_id] for app_id, session in sessions),
        "There is no session yet. Add one with: handbell session add MAIL TOKEN",
    )


@commands.command("remove", hidden=True, context_settings={"ignore_unknown_options": True})
def remove(_words: Annotated[list[str] | None, typer.Argument(metavar="…")] = None) -> None:
    """Point to ``close``: sessions are kept, so that `why` can explain them."""
    raise RegistryError(
        "A session is not removed but closed",
        fix="handbell session close SESSION; with its owner it is forgotten by the API's "
        "DELETE /v1/apps/APP/users/MAIL",
    )


@commands.command()
def show(session_id: SessionId, *, as_json: Json = False) -> None:
    """Show all details of a session."""
    session = system().registry.session(session_id)
    if as_json:
        write_json(_plain(session))
        return
    for name, value in _plain(session).items():
        shown = local_time(cast("int | None", value)) if name.endswith("_at") else value
        say(f"{name:14} {'' if shown is None else shown}")


@commands.command()
def close(session_id: SessionId) -> None:
    """Close a session: nothing is sent to it until the app registers again.

    The command returns once nothing is in flight to it in any worker.
    """
    parts = system()
    session = parts.registry.session(session_id)
    is_closed = parts.registry.close(session, reason="closed by operator")
    parts.revocations.wait([session_id])
    if is_closed:
        parts.audit.note(ACTOR, "session.close", f"session {session_id}")
    say(f"Session {session_id} of {session.mail} is closed.")


def _plain(session: "Session") -> dict[str, object]:
    # The keys of a browser's subscription stay where they are used.
    fields = {
        name: getattr(session, name) for name in session.__dataclass_fields__ if name != "details"
    }
    return {**fields, "address": session.address}


def _row(session: "Session") -> list[object]:
    return [
        session.id,
        session.mail,
        f"{session.status} ({session.reason})" if session.reason else session.status,
        session.platform,
        session.environment,
        short_token(session.token),
        session.device,
        local_time(session.registered_at),
    ]
