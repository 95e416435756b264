"""Checks of a copy against its source: counts, samples field by field, and secrets."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Table

from handbell.storage.tables import SEALED

from .copied import TABLES, Key, Row, converted, key_of, without_zeros
from .source import Source
from .target import Target

SAMPLE: Final = 1000
"""The approximate number of rows compared per table; smaller tables are compared in full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was checked: rows ``counted`` and ``compared``, and secrets ``opened``.

    ``unopened`` counts secrets that cannot be opened in either database, ``faults`` are sentences.
    """

    counted: int = 0
    compared: int = 0
    opened: int = 0
    unopened: int = 0
    faults: tuple[str, ...] = ()


def check(
    source: Source, target: Target, totals: Mapping[str, int], *, opens: Callable[[bytes], bool]
) -> Checked:
    """Compare a complete copy with its source; ``totals`` has the source's rows by table."""
    faults: list[str] = []
    compared = 0
    for table in TABLES:
        there = target.count(table)
        if there != totals[table.name]:
            faults.append(
                f"The table {table.name} has {totals[table.name]:,} rows and {there:,} in the copy."
            )
        number, unlike = _compare(source, target, table, totals[table.name])
        compared += number
        faults += unlike
    opened, unopened, lost = _open_secrets(source, target, opens)
    return Checked(
        counted=sum(totals.values()),
        compared=compared,
        opened=opened,
        unopened=unopened,
        faults=(*faults, *lost),
    )


def _compare(source: Source, target: Target, table: Table, rows: int) -> tuple[int, list[str]]:
    """Return how many rows were compared, and a sentence for each that differs."""
    sample, _ = without_zeros(converted(table, source.sample(table, rows, SAMPLE)))
    keys = [key_of(table, row) for row in sample]
    there = target.rows(table, keys)
    unlike = [
        f"The row {key} of the table {table.name} differs in {_difference(table, row, there)}."
        for key, row in zip(keys, sample, strict=True)
        if there.get(key) != row
    ]
    return len(sample), unlike


def _difference(table: Table, row: Row, there: Mapping[Key, Row]) -> str:
    other = there.get(key_of(table, row))
    if other is None:
        return "everything: it is missing"
    names = [
        column.name
        for column, one, two in zip(table.columns, row, other, strict=True)
        if one != two
    ]
    return ", ".join(names)


def _open_secrets(
    source: Source, target: Target, opens: Callable[[bytes], bool]
) -> tuple[int, int, list[str]]:
    opened, closed = 0, 0
    faults: list[str] = []
    for column in SEALED:
        of_source = source.secrets(column)
        for (row, sealed), (_, original) in zip(target.secrets(column), of_source, strict=False):
            if sealed != original:
                faults.append(f"The secret of the row {row} in {column.table.name} was changed.")
            elif opens(sealed):
                opened += 1
            else:
                closed += 1
    return opened, closed, faults


def sealed_in(source: Source) -> Iterator[bytes]:
    """Yield every secret of a source except those of single notifications."""
    for column in SEALED:
        if column.table.name != "notifications":
            for _, sealed in source.secrets(column):
                yield sealed
