"""Split values into chunks that fit the bound parameters of one statement."""

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

NAMED_AT_ONCE: Final = 10_000

T = TypeVar("T")


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield chunks small enough for the bound parameters of one statement."""
    for start in range(0, len(values), NAMED_AT_ONCE):
        yield values[start : start + NAMED_AT_ONCE]
