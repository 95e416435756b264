"""Output: for people on a terminal, for programs as JSON.

The only place that writes to the terminal. Untrusted text (a device's name, a title, an answer of
another server) never reaches the terminal as control sequences: see
:func:`handbell._text.one_line`.
"""

import dataclasses
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from handbell import _text
from handbell._text import one_line

if TYPE_CHECKING:
    from handbell.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]
AppOption = Annotated[
    str | None,
    typer.Option(
        "--app",
        envvar="HANDBELL_APP",
        help="App id, name or bundle id; not needed where there is one app.",
    ),
]

_OTHER_NAMES: Final = ("id", "apns_id", "address")
"""Properties by which deliveries and sessions are identified over HTTP too."""
# A key in PEM, and a long run of base64 with both cases and digits.
_RUN = r"[A-Za-z0-9+/=]"
_KEY: Final = re.compile(
    rf"-----BEGIN.*|(?={_RUN}*[A-Z])(?={_RUN}*[a-z])(?={_RUN}*[0-9]){_RUN}{{40,}}", re.DOTALL
)


class _Console(Console):
    """A console that interprets no markup or control sequence in texts."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text == "\n":
                yield segment
            else:
                yield Segment(_several_lines(segment.text), segment.style)


def console_on(*, stderr: bool = False) -> Console:
    """Return a console for standard output, or standard error."""
    return _Console(stderr=stderr, highlight=False, soft_wrap=True)


ListedApp = Annotated[
    str | None,
    typer.Option("--app", envvar="HANDBELL_APP", help="Only this app's; without it, every app's."),
]

console = console_on()


def replace_what_cannot_be_written() -> None:
    """Replace unencodable characters in both outputs, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def say(*lines: str, err: bool = False) -> None:
    """Write sentences to standard output, or to standard error, each on a line of its own."""
    for line in lines:
        typer.echo(one_line(line), err=err)


def write_json(value: Any) -> None:
    """Write one JSON value and a line end to standard output."""
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    # A question mark in place of a letter would be another value.
    typer.echo(json.dumps(value, ensure_ascii=not is_unicode, indent=2, default=_plain))


def warn_of_exposure(settings: "Settings") -> None:
    """Warn on standard error of each file with secrets that others may access."""
    from handbell.network_exposure import exposures  # noqa: PLC0415 - heavy

    for sentence in exposures(settings):
        say(f"warning: {sentence}", err=True)


def write_error(code: str, message: str, fix: str) -> None:
    """Write an error to standard error; with ``--json`` as JSON to standard output.

    ``code`` is stable: those of docs/errors.md, and ``usage``. Anything like a key is redacted:
    many errors repeat arguments, and one may be a key.
    """
    message, fix = _KEY.sub("…", message), _KEY.sub("…", fix)
    if "--json" in sys.argv[1:]:
        write_json({"code": code, "detail": message, "fix": fix})
        return
    say(f"handbell: {message}", err=True)
    if fix:
        say(f"          {fix}", err=True)


def write_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Write a table, or the sentence ``empty`` when there is nothing to list.

    In a pipe the columns are separated by tabs, without a heading.
    """
    listed = [["" if cell is None else one_line(str(cell)) for cell in row] for row in rows]
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
    """Write sentences, each after a mark."""
    for line in lines:
        console.print(Text(mark, style=style), Text(one_line(line)))


def local_time(milliseconds: int | None) -> str:
    """Return an instant (UNIX milliseconds) as local date and time to the second, with the zone."""
    return "" if milliseconds is None else _text.moment(milliseconds)


def _several_lines(text: str) -> str:
    return "\n".join(map(one_line, text.split("\n")))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.repr]
        other = [name for name in _OTHER_NAMES if name not in names and hasattr(value, name)]
        return {name: getattr(value, name) for name in (*names, *other)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
