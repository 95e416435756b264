"""``handbell db copy``: copies a filled SQLite database into PostgreSQL."""

from contextlib import closing, contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from handbell._text import count
from handbell.errors import SettingsError

from . import context
from .output import Json, console, say, write_json, write_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from handbell.apps.vault import Vault
    from handbell.settings import Settings
    from handbell.storage.copy.copier import Report, Tell

_TOLD_SECONDS: Final = 10.0
"""The interval of progress lines where the output is no terminal."""

Source = Annotated[
    str | None,
    typer.Option(
        "--from", help="URL of the SQLite database.", show_default="the installation's own"
    ),
]


def copy(
    *,
    to: Annotated[
        str,
        typer.Option("--to", help="URL of an empty PostgreSQL database; ~/.pgpass works, too."),
    ],
    source: Source = None,
    anew: Annotated[
        bool,
        typer.Option("--anew", help="Remove what a former copy has left in the target, and start."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Copy a filled SQLite database into PostgreSQL, and check the copy.

    Stop every server, worker and program that uses the source first. An interrupted copy resumes
    when the command is run again. The source is unchanged, but closed: otherwise both would send
    the same notifications. Every machine needs the same secret key afterwards, and the new URL in
    HANDBELL_DATABASE_URL. The exit code is 1 if the copy differs from its source.
    """
    from handbell.apps.installation_key import check_key, opens  # noqa: PLC0415 - heavy
    from handbell.storage.copy.check import sealed_in  # noqa: PLC0415
    from handbell.storage.copy.copier import Copier  # noqa: PLC0415
    from handbell.storage.copy.source import open_source  # noqa: PLC0415
    from handbell.storage.copy.target import Target  # noqa: PLC0415
    from handbell.storage.installation import KEY  # noqa: PLC0415

    settings = context.settings()
    vault = _vault(settings)
    with (
        open_source(source or settings.database_url) as opened,
        closing(Target.open(to)) as target,
        _progress(is_silent=as_json) as tell,
    ):
        check_key(opened.note(KEY), sealed_in(opened), vault, opened.name)
        copier = Copier(opened, target, opens=lambda sealed: opens(vault, sealed), tell=tell)
        try:
            report = copier.run(anew=anew)
        except KeyboardInterrupt:
            say("Stopped. Run the same command again: it goes on from here.", err=True)
            raise
    if as_json:
        write_json(report)
    else:
        _tell(report, settings, vault)
    if report.checked.faults:
        raise typer.Exit(1)


def reopen(*, source: Source = None, as_json: Json = False) -> None:
    """Reopen an SQLite database that ``db copy`` has closed.

    Only while the copy is unused: otherwise both would send what is due. An incomplete copy must be
    started again after this.
    """
    from handbell.storage.copy.source import open_source  # noqa: PLC0415 - heavy

    with open_source(source or context.settings().database_url) as opened:
        was_closed = opened.closure() is not None
        opened.reopen()
        if as_json:
            write_json({"database": opened.name, "was_closed": was_closed})
        elif was_closed:
            say(f"{opened.name} is open again.")
        else:
            say(f"{opened.name} was not closed.")


def _vault(settings: "Settings") -> "Vault":
    """Return the installation's vault; a newly created key would open nothing."""
    from handbell.apps.vault import KEY_FILE, Vault  # noqa: PLC0415 - heavy

    if settings.secret_key is None and not (settings.home / KEY_FILE).exists():
        raise SettingsError(
            f"There is no secret key in {settings.home}, so it cannot be checked that the secrets "
            "open",
            fix="Name the installation's home folder: handbell --home FOLDER db copy …; or set "
            "HANDBELL_SECRET_KEY",
        )
    return Vault.open(settings)


@contextmanager
def _progress(*, is_silent: bool) -> "Iterator[Tell]":
    """Yield a progress display: a bar on a terminal, else a line now and then."""
    if is_silent or not console.is_terminal:
        yield _say_now_and_then() if not is_silent else lambda _table, _rows, _total: None
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,} of {task.total:,}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as drawn:
        tasks = {}

        def draw(table: str, rows: int, total: int) -> None:
            if table not in tasks and total:
                tasks[table] = drawn.add_task(table, total=total)
            if table in tasks:
                drawn.update(tasks[table], completed=rows, total=total)

        yield draw


def _say_now_and_then() -> "Tell":
    told = monotonic()

    def tell(table: str, rows: int, total: int) -> None:
        nonlocal told
        if monotonic() - told >= _TOLD_SECONDS:
            told = monotonic()
            say(f"{table}: {rows:,} of {total:,} rows", err=True)

    return tell


def _tell(report: "Report", settings: "Settings", vault: "Vault") -> None:
    if report.was_complete:
        say(f"{report.source} was already copied to {report.target}; nothing is left to copy.")
    else:
        write_table(
            ("table", "rows", "seconds"),
            [(item.table, f"{item.rows:,}", f"{item.seconds:.1f}") for item in report.tables],
            empty="Nothing was copied.",
        )
        _tell_check(report)
    if report.checked.faults:
        for fault in report.checked.faults:
            say(f"wrong: {fault}", err=True)
        say(
            "The copy differs from its source, so it stays closed. Start over with --anew, and "
            "report this if it happens again.",
            err=True,
        )
        return
    say(
        "",
        "Now, on every machine:",
        f"  1. Set HANDBELL_DATABASE_URL to {report.target} (with the password).",
        f"  2. Give it the same secret key: {_key_advice(settings, vault)}.",
        "  3. Start its servers and workers, and look at: handbell status",
        f"{report.source} is unchanged and closed. Keep it until you trust the copy.",
    )


def _key_advice(settings: "Settings", vault: "Vault") -> str:
    if settings.secret_key is not None:
        return f"the value of {vault.origin}"
    return f"a copy of {vault.origin} (mode 600) in its HANDBELL_HOME"


def _tell_check(report: "Report") -> None:
    checked = report.checked
    cut = " An interrupted copy was resumed." if report.is_resumed else ""
    say(
        f"Copied {report.source} to {report.target} in {report.seconds:.1f} s.{cut}",
        f"Checked: {count(checked.counted, 'row')} counted, {checked.compared:,} compared field by "
        f"field, {count(checked.opened, 'secret')} opened.",
    )
    if checked.unopened:
        say(
            f"{count(checked.unopened, 'secret')} could not be opened in the source either: sealed "
            "with a key that is not here.",
            err=True,
        )
    if report.replaced:
        say(
            f"{count(report.replaced, 'row')} had a text with U+0000, which PostgreSQL cannot "
            "store; U+FFFD replaces it.",
            err=True,
        )
