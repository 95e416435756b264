"""Choose the credential for an environment."""

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def by_preference(
    environment: str, stored: Iterable[T], limit_of: Callable[[T], str | None]
) -> list[T]:
    """Return the credentials for an environment, in order of preference.

    ``stored`` comes newest first; ``limit_of`` returns the only environment that one serves, or
    None. One limited to the environment comes first. The twin accepts any.
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
