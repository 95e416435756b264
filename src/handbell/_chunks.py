"""So many values at a time, as one statement, one call or one transaction is to take."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

NAMED_AT_ONCE: Final = 10_000
"""As many as one statement may name in every database."""

T = TypeVar("T")


# itertools.batched, which Python has from 3.12 on.
def chunks(values: Iterable[T], size: int = NAMED_AT_ONCE) -> Iterator[list[T]]:
    """Yield the values in their order, ``size`` at a time; the last ones may be fewer."""
    left = iter(values)
    while chunk := list(islice(left, size)):
        yield chunk
