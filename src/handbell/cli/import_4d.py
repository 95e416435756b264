"""``handbell import-4d``: import a MobileApps folder of the original system."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from .api_key import ACTOR
from .context import system
from .output import Json, say, write_json


def import_4d(
    folder: Annotated[Path, typer.Argument(help="The MobileApps folder.")],
    *,
    as_json: Json = False,
) -> None:
    """Import apps, keys and sessions of a 4D MobileApps folder; it may be repeated.

    A file that cannot be read is skipped with its reason, and ends the command with exit code 1.
    """
    from handbell.registry.import_4d import import_folder  # noqa: PLC0415 - heavy

    parts = system()
    moved: list[int] = []
    steps = list(
        import_folder(folder, parts.apps, parts.registry, identities=parts.identities, moved=moved)
    )
    parts.revocations.wait(moved)
    counted = Counter(step.outcome for step in steps)
    reported = ", ".join(f"{number} {outcome}" for outcome, number in counted.items())
    parts.audit.note(ACTOR, "app.import", folder.name, detail=reported)
    if as_json:
        write_json({"steps": steps, **counted})
    else:
        for step in steps:
            reason = f": {step.reason}" if step.reason else ""
            say(f"{step.outcome:9} {step.file}  {step.what}{reason}{step.fix and f' {step.fix}'}")
        say(reported)
    if counted["skipped"]:
        raise typer.Exit(1)
