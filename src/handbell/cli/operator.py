"""``handbell operator``: operators, who sign in to the console."""

import sys
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from handbell._extras import install
from handbell.errors import OperatorError

from .context import system
from .output import Json, local_time, say, write_json, write_table

if TYPE_CHECKING:
    from handbell.access.operators import OperatorStore
    from handbell.settings import Settings
    from handbell.system import System

commands = typer.Typer(help="Operators, who sign in to the console.", no_args_is_help=True)

ACTOR = "command line"
"""The actor in the audit trail."""


@commands.command()
def add(
    mail: Annotated[
        str | None,
        typer.Argument(help="Their mail address; without it, the link's reader chooses one."),
    ] = None,
    *,
    password: Annotated[
        bool,
        typer.Option(
            "--password",
            help="Ask for a password now instead of printing a link; in a pipe it is the first "
            "line of standard input.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Add an operator: by a link that works once within 24 hours, or with a password."""
    parts = system()
    operators = _operators(parts)
    if password:
        if mail is None:
            raise OperatorError("No mail address was given", fix="Name it before --password")
        operator = operators.add(mail, _read_password())
        parts.audit.note(ACTOR, "operator.add", operator.mail)
        if as_json:
            write_json(operator)
        else:
            say(f"Added {operator.mail}.")
        return
    link = f"{address_of(parts.settings)}/console/invitation/{operators.invite(mail)}"
    parts.audit.note(ACTOR, "operator.invite", mail or "whoever opens the link")
    if as_json:
        write_json({"link": link})
        return
    say("This link creates the operator, once, within 24 hours:")
    say(link)


@commands.command()
def reset(
    mail: Annotated[str, typer.Argument(help="The operator's mail address.")],
    *,
    as_json: Json = False,
) -> None:
    """Print a link to set a new password; it works once within 24 hours."""
    parts = system()
    operators = _operators(parts)
    operator = operators.find(mail)
    link = f"{address_of(parts.settings)}/console/invitation/{operators.reset(operator)}"
    parts.audit.note(ACTOR, "operator.reset", operator.mail)
    if as_json:
        write_json({"link": link})
        return
    say(f"This link sets a new password for {operator.mail}, once, within 24 hours:")
    say(link)


@commands.command("list")
def list_operators(*, as_json: Json = False) -> None:
    """List operators."""
    operators = _operators(system()).list()
    if as_json:
        write_json(operators)
        return
    write_table(
        ["mail", "added", "last signed in"],
        (
            [
                operator.mail,
                local_time(operator.created_at),
                local_time(operator.signed_in_at) or "never",
            ]
            for operator in operators
        ),
        "There is no operator yet. Add one with: handbell operator add",
    )


@commands.command()
def remove(mail: Annotated[str, typer.Argument(help="The operator's mail address.")]) -> None:
    """Remove an operator and end their sign-ins."""
    parts = system()
    operators = _operators(parts)
    operator = operators.find(mail)
    operators.remove(operator.mail)
    parts.audit.note(ACTOR, "operator.remove", operator.mail)
    say(f"Removed {operator.mail}.")


def address_of(settings: "Settings") -> str:
    """Return the URL of a server with these settings, without a trailing slash."""
    root = settings.root_path
    if settings.public_url:
        has_path = bool(urlsplit(settings.public_url).path)
        return settings.public_url if has_path else settings.public_url + root
    scheme = "https" if settings.tls_certificate else "http"
    host, _, port = settings.listen.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104 - read, not bound
    return f"{scheme}://{host}:{port}{root}"


def _operators(parts: "System") -> "OperatorStore":
    try:
        return parts.operators
    except ModuleNotFoundError as error:
        raise OperatorError(
            f"Operators need {error.name}, which is not installed",
            fix=install("server"),
        ) from None


def _read_password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    asked: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    return asked
