"""``handbell session``: users' registered devices."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from handbell._text import short_token
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
    from handbell.registry.session import Session

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
    token: Annotated[str, typer.Argument(help="The device token, in hex digits.")],
    *,
    app: AppOption = None,
    environment: Annotated[
        Literal["production", "development", "twin"],
        typer.Option(help="The token's environment; development is Apple's sandbox."),
    ] = "production",
    platform: Annotated[str, typer.Option(help="ios, ipados, macos, …")] = "ios",
    locale: Annotated[str | None, typer.Option(help="Such as fr-CH.")] = None,
    time_zone: Annotated[str | None, typer.Option(help="Such as Europe/Paris.")] = None,
    device: Annotated[str | None, typer.Option(help="The device's name.")] = None,
    pending: Annotated[
        bool, typer.Option("--pending", help="Send nothing to it until its owner is proven.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Register a device for a person. A token leaves its former owner, who gets no more pushes."""
    from handbell.registry.device_attributes import read_attributes  # noqa: PLC0415 - heavy
    from handbell.registry.registration import Registration  # noqa: PLC0415 - heavy

    facts: dict[str, Any]
    facts, warnings = read_attributes({"locale": locale, "time_zone": time_zone, "device": device})
    parts = system()
    found = parts.apps.find(app or parts.settings.app)
    registration = Registration.read(
        mail,
        token,
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


@commands.command("list")
def list_sessions(
    mail: Annotated[str | None, typer.Argument(help="Only this person's.")] = None,
    *,
    app: ListedApp = None,
    as_json: Json = False,
) -> None:
    """List sessions, newest registration first."""
    parts = system()
    sessions = [
        (item.id, session)
        for item in apps_of(parts, app)
        for session in (
            parts.registry.sessions_of(item, mail) if mail else parts.registry.sessions(item)
        )
    ]
    if as_json:
        write_json([{**_plain(session), "app": app_id} for app_id, session in sessions])
        return
    write_table(
        ["session", "mail", "status", "environment", "token", "device", "registered", "app"],
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
    for name in session.__dataclass_fields__:
        value = getattr(session, name)
        shown = local_time(value) if name.endswith("_at") else value
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
    fields = {name: getattr(session, name) for name in session.__dataclass_fields__}
    return {**fields, "address": session.address}


def _row(session: "Session") -> list[object]:
    return [
        session.id,
        session.mail,
        f"{session.status} ({session.reason})" if session.reason else session.status,
        session.environment,
        short_token(session.token),
        session.device,
        local_time(session.registered_at),
    ]
