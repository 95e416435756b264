"""``handbell why``: why a person saw their last notifications or did not."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from handbell._text import one_line
from handbell.creation.recipients import Recipients

from .context import system
from .output import AppOption, Json, console, write_json

if TYPE_CHECKING:
    from handbell.delivery.ledger.why import Story


def why(
    mail: Annotated[str, typer.Argument(help="The person's mail address.")],
    *,
    app: AppOption = None,
    as_json: Json = False,
) -> None:
    """Explain why somebody saw the last notifications or did not, with fixes.

    Exit code 0 when the last one was accepted by the push service, 1 when it was not.
    """
    parts = system()
    story = parts.why(parts.apps.find(app or parts.settings.app), mail)
    if not story.sessions:
        # An import may have stored an invalid address, so the registry is checked first.
        Recipients.read({"mails": [mail]})
    if as_json:
        write_json(story)
    else:
        _tell(story)
    if not story.is_sent:
        raise typer.Exit(1)


def _tell(story: "Story") -> None:
    console.print(Text(one_line(story.answer), style="bold"))
    for line in story.details():
        console.print(Text(one_line(line), style="" if line.startswith(" ") else "dim"))
