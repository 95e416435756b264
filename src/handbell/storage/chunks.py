"""So many values at a time as one statement may name."""

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

NAMED_AT_ONCE: Final = 10_000

T = TypeVar("T")


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield so many values at a time as one statement may name."""
    for start in range(0, len(values), NAMED_AT_ONCE):
        yield values[start : start + NAMED_AT_ONCE]
