"""How results are written: for people on a terminal, for programs as JSON."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from handbell import _text

Json = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]
AppOption = Annotated[
    str | None,
    typer.Option(
        "--app",
        envvar="HANDBELL_APP",
        help="App id, name or bundle id; not needed where there is one app.",
    ),
]

console = Console(highlight=False, soft_wrap=True)


def write_json(value: Any) -> None:
    """Write one JSON value and a line end to standard output."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, default=_plain))


def write_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Write a table, or the sentence ``empty`` that says what to do when there is nothing to list.

    In a pipe the same columns come separated by tabs, without a heading.
    """
    listed = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not console.is_terminal:
        for row in listed:
            typer.echo("\t".join(row))
        return
    if not listed:
        console.print(empty)
        return
    table = Table(*columns, box=None, header_style="dim", pad_edge=False)
    for row in listed:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def write_lines(lines: Iterable[str], mark: str, style: str) -> None:
    """Write sentences, each behind a mark."""
    for line in lines:
        console.print(Text(mark, style=style), Text(line))


def local_time(milliseconds: int | None) -> str:
    """Return an instant (UNIX milliseconds) as local date and time to the second."""
    return "" if milliseconds is None else _text.local_time(milliseconds)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: getattr(value, field.name)
            for field in dataclasses.fields(value)
            if field.repr
        }
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
