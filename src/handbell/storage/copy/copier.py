"""The copy: begun or resumed, table by table, then checked and completed."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic, time
from typing import Final

from sqlalchemy import Table

from handbell._text import count
from handbell.errors import ContradictionError, RequestError, StatementError, StorageError
from handbell.storage.installation import KEY, Closure

from .check import Checked, check
from .copied import TABLES, Row, converted, key_of, without_zeros
from .source import Source
from .target import Progress, Target

PAGE: Final = 5000
"""The number of rows per step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedTable:
    """The number of copied rows of a table and the seconds it took, over all attempts."""

    table: str
    rows: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of a copy. ``faults`` are sentences; if there are any, the target stays closed.

    ``is_resumed`` means that an interrupted copy was resumed, ``was_complete`` that it had been
    completed before and was only checked. ``replaced`` is the number of rows with a text in which
    U+FFFD replaced U+0000.
    """

    source: str
    target: str
    is_resumed: bool
    was_complete: bool
    seconds: float
    tables: tuple[CopiedTable, ...] = ()
    replaced: int = 0
    checked: Checked = field(default_factory=Checked)


Tell = Callable[[str, int, int], object]
"""Called with a table's name, the number of its copied rows and their total."""


class Copier:
    """Copies a source to a target.

    ``opens`` returns whether the installation's key opens a secret. ``tell`` is called after each
    page. ``now`` gives UNIX seconds.
    """

    def __init__(
        self,
        source: Source,
        target: Target,
        *,
        opens: Callable[[bytes], bool],
        tell: Tell = lambda _table, _rows, _total: None,
        page: int = PAGE,
        now: Callable[[], float] = time,
    ) -> None:
        self._source = source
        self._target = target
        self._opens = opens
        self._tell = tell
        self._page = page
        self._now = now
        self._replaced = 0

    def run(self, *, anew: bool = False) -> Report:
        """Begin a copy or resume an interrupted one, and check it.

        ``anew`` removes from the target what a copy of another source or an older state has left;
        never data in use. Raises StorageError if the target holds other data, ContradictionError if
        another copy writes to it.
        """
        began = monotonic()
        ended = self._target.ended()
        closure = self._source.closure()
        if ended is not None and closure is not None and ended.copy == closure.copy:
            return self._report(began, was_complete=True)
        is_resumed = self._begin(closure, anew=anew)
        try:
            return self._go_on(began, is_resumed=is_resumed)
        except (ContradictionError, StatementError):
            raise
        except StorageError as error:
            raise type(error)(
                error.what,
                fix=f"{error.fix} Then run the same command again: it goes on where it stopped",
            ) from error

    def _go_on(self, began: float, *, is_resumed: bool) -> Report:
        totals = {table.name: self._source.count(table) for table in TABLES}
        progress = self._target.progress()
        for table in TABLES:
            before = progress.get(table.name, Progress())
            progress[table.name] = self._copy(table, before, totals[table.name])
        report = self._report(began, progress, is_resumed=is_resumed, totals=totals)
        if not report.checked.faults:
            self._target.end(
                {table.name: self._source.last_id(table) for table in TABLES if "id" in table.c}
            )
        return replace(report, seconds=monotonic() - began)

    def _report(
        self,
        began: float,
        progress: Mapping[str, Progress] | None = None,
        *,
        is_resumed: bool = False,
        was_complete: bool = False,
        totals: Mapping[str, int] | None = None,
    ) -> Report:
        checked = Checked()
        if totals is not None:
            checked = check(self._source, self._target, totals, opens=self._opens)
        return Report(
            source=self._source.name,
            target=self._target.name,
            is_resumed=is_resumed,
            was_complete=was_complete,
            seconds=monotonic() - began,
            tables=tuple(
                CopiedTable(table=name, rows=one.rows, seconds=one.seconds)
                for name, one in (progress or {}).items()
            ),
            replaced=self._replaced,
            checked=checked,
        )

    def _begin(self, closure: Closure | None, *, anew: bool) -> bool:
        """Close both databases for other users; return whether a former attempt is resumed."""
        partial = self._target.closure()
        if partial is not None and closure is not None and partial.copy == closure.copy:
            return True
        if partial is not None:
            if not anew:
                raise _holds_a_part(self._target.name, partial)
            self._target.empty()
        self._check_target()
        if closure is None:
            closure = self._new_closure()
        elif closure.other != self._target.name:
            raise closure.error(self._source.name)
        self._source.close_as(closure)
        self._target.begin(
            replace(closure, is_source=False, other=self._source.name), self._source.note(KEY)
        )
        return False

    def _new_closure(self) -> Closure:
        return Closure(
            copy=secrets.token_hex(8),
            other=self._target.name,
            at=int(self._now() * 1000),
            is_source=True,
        )

    def _check_target(self) -> None:
        if (foreign := self._target.foreign()) is not None:
            table, rows = foreign
            raise StorageError(
                f"{self._target.name} holds another installation: its table {table} has "
                f"{count(rows, 'row')}",
                fix="Name an empty database: createdb makes one",
            )
        if nodes := self._target.in_use():
            raise StorageError(
                f"{self._target.name} is in use by {', '.join(nodes)}",
                fix="Stop every server and worker there; start them when the copy is complete",
            )

    def _copy(self, table: Table, done: Progress, total: int) -> Progress:
        """Copy the remaining rows of a table, page by page."""
        self._tell(table.name, done.rows, total)
        began, before = monotonic(), done.seconds
        while rows := converted(table, self._source.page(table, done.after, self._page)):
            now = Progress(
                rows=done.rows + len(rows),
                after=key_of(table, rows[-1]),
                seconds=round(before + monotonic() - began, 3),
            )
            self._append(table, rows, done, now)
            done = now
            self._tell(table.name, done.rows, total)
        return replace(done, seconds=round(before + monotonic() - began, 3))

    def _append(self, table: Table, rows: Sequence[Row], done: Progress, now: Progress) -> None:
        try:
            self._target.append(table, rows, done, now)
        except RequestError:
            # SQLite allows U+0000 in a text.
            rows, replaced = without_zeros(rows)
            self._target.append(table, rows, done, now)
            self._replaced += replaced


def _holds_a_part(name: str, partial: Closure) -> StorageError:
    return StorageError(
        f"{name} holds a part of another copy, from {partial.other}, and this source has changed "
        "since that was begun",
        fix="Resume with the source of that copy, or start over: --anew removes that part",
    )
