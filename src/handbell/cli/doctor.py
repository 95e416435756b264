"""``handbell doctor``: checks before the first real send."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from handbell._text import one_line

from .context import system
from .output import Json, console, write_json

if TYPE_CHECKING:
    from handbell.apps.checkup import Finding

_MARKS = {"right": ("ok   ", "green"), "doubtful": ("?    ", "yellow"), "wrong": ("wrong", "red")}


def doctor(
    app: Annotated[
        str | None,
        typer.Argument(envvar="HANDBELL_APP", help="App id, name or bundle id."),
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Check credentials, ids, clock and the connection to push services; each finding has a fix.

    Apple gets one push with a nonexistent token for each environment, and FCM one that it only
    validates. The exit code is 1 when something is wrong, or a host cannot be reached.
    """
    findings = asyncio.run(_check(app))
    if as_json:
        write_json(findings)
    else:
        for finding in findings:
            _show(finding)
    if any(finding.verdict == "wrong" for finding in findings):
        raise typer.Exit(1)


async def _check(app: str | None) -> "list[Finding]":
    parts = system()
    try:
        return await parts.doctor.check_up(parts.apps.find(app or parts.settings.app))
    finally:
        await parts.close()


def _show(finding: "Finding") -> None:
    mark, style = _MARKS[finding.verdict]
    console.print(Text(mark, style=style), Text(one_line(finding.sentence)))
    if finding.fix:
        console.print(Text("      " + one_line(finding.fix), style="dim"))
