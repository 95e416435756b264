"""Writes docs/cli.md from the command itself; a test compares the two."""

import os
from pathlib import Path

import typer.main
from typer.cli import get_docs_for_click

from handbell.cli.application import application

PAGE = Path(__file__).with_name("cli.md")


def cli_reference() -> str:
    """Return the reference of the command line in Markdown."""
    os.environ["COLUMNS"] = "100"
    command = typer.main.get_command(application)
    text = get_docs_for_click(
        obj=command, ctx=typer.Context(command), name="handbell", title="The command line"
    )
    return f"{text.strip()}\n"


if __name__ == "__main__":
    PAGE.write_text(cli_reference(), encoding="utf-8")
