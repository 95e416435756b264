"""Which of an app's credentials serve an environment, and which of them comes first."""

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def in_turn(environment: str, stored: Iterable[T], limit_of: Callable[[T], str | None]) -> list[T]:
    """Return what serves an environment, in the order in which it is used.

    ``stored`` comes newest first; ``limit_of`` gives the only environment that one serves, or None.
    One that is limited to the environment wins over the others. The twin takes any.
    """
    limited: list[T] = []
    general: list[T] = []
    for item in stored:
        limit = limit_of(item)
        if limit == environment:
            limited.append(item)
        elif limit is None or environment == "twin":
            general.append(item)
    return [*limited, *general]
