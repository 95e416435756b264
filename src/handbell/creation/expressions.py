"""Operators and tests of template expressions, with type checks and a work limit.

Python's own operators do different things for different values: ``%`` formats a text, ``*``
repeats a list. Here each accepts its intended types only and raises TypeError for others. Their
work is counted, so that a small template cannot keep the process busy.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final

from jinja2 import Undefined

MAX_TEXT: Final = 65_536
"""The longest text an expression works on, in characters."""
MAX_WORK: Final = 500_000
"""The work limit of a template's expressions, in characters and items."""
MAX_NUMBER: Final = 10**18
"""The largest absolute value of a whole number."""

_left: ContextVar[list[int] | None] = ContextVar("_left", default=None)


@contextmanager
def allowance() -> Iterator[None]:
    """Limit the work of expressions in this context to MAX_WORK; beyond it ValueError is raised.

    A nested allowance counts towards the outer one.
    """
    token = _left.set(_left.get() or [MAX_WORK])
    try:
        yield
    finally:
        _left.reset(token)


def charge(amount: int) -> None:
    """Count characters or items. Raises ValueError beyond the limit."""
    left = _left.get()
    if left is None:
        return
    left[0] -= amount
    if left[0] < 0:
        raise ValueError(f"its expressions work on more than {MAX_WORK:,} characters")


def plain_text(value: Any) -> str:
    """Return a text, number, flag or null as text; raise TypeError for anything else.

    Raises ValueError for a text beyond the limit of a template's output.
    """
    if isinstance(value, str):
        charge(len(value))
        if len(value) > MAX_TEXT:
            raise ValueError("a text in it is too long")
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(number(value))
    if value is None:
        return ""
    if isinstance(value, Undefined):
        return str(value)  # raises, with its name
    if isinstance(value, list | tuple):
        raise TypeError("a list cannot be shown; use the filter `join`")
    raise TypeError("a mapping cannot be shown; name one of its members")


def number(value: Any) -> int | float:
    """Return a number unchanged. Raises TypeError for anything else, ValueError for a huge one."""
    _given(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{_noun(value)} is not a number")
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise ValueError("a number in it is too large")
    return value


def whole_number(value: Any) -> int:
    """Return a whole number unchanged. Raises TypeError for anything else, ValueError as above."""
    counted = number(value)
    if not isinstance(counted, int):
        raise TypeError("it is not a whole number")
    return counted


def listed(value: Any) -> list[Any] | tuple[Any, ...]:
    """Return a list unchanged. Raises TypeError for anything else."""
    _given(value)
    if not isinstance(value, list | tuple):
        raise TypeError(f"{_noun(value)} is not a list")
    charge(len(value))
    if len(value) > MAX_TEXT:
        raise ValueError("a list in it is too long")
    return value


def concatenate(*parts: Any) -> str:
    """Concatenate values as text: the operator ``~``."""
    text = "".join(map(plain_text, parts))
    return plain_text(text)


def compare(first: Any, *rest: Any) -> bool:
    """Return whether a chain of comparisons holds: values, with Jinja's operator names between."""
    left = first
    for name, right in zip(rest[::2], rest[1::2], strict=True):
        if not _COMPARISONS[name](left, right):
            return False
        left = right
    return True


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        return concatenate(left, right)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return [*listed(left), *listed(right)]
    return number(number(left) + number(right))


def _subtract(left: Any, right: Any) -> Any:
    return number(number(left) - number(right))


def _equal(left: Any, right: Any) -> bool:
    _given(left, right)
    if isinstance(left, _CONTAINERS) and isinstance(right, _CONTAINERS):
        raise TypeError("two lists or mappings cannot be compared; compare their members")
    _charge_texts(left, right)
    return bool(left == right)


def _ordered(left: Any, right: Any) -> tuple[Any, Any]:
    if isinstance(left, str) and isinstance(right, str):
        return plain_text(left), plain_text(right)
    return number(left), number(right)


def _contains(value: Any, container: Any) -> bool:
    _given(value, container)
    if isinstance(container, str):
        if not isinstance(value, str):
            raise TypeError(f"only a text can be part of a text, and {_noun(value)} is none")
        return plain_text(value) in plain_text(container)
    if isinstance(value, _CONTAINERS):
        raise TypeError("a list or mapping cannot be looked for; look for one of its members")
    if isinstance(container, Mapping):
        return value in container
    items = listed(container)
    # An item may be as long as the value: a text is compared with texts only.
    _charge_texts(*items)
    return any(value == item for item in items if not isinstance(item, _CONTAINERS))


def _charge_texts(*given: Any) -> None:
    charge(sum(len(each) for each in given if isinstance(each, str)))


def _given(*values: Any) -> None:
    for value in values:
        if isinstance(value, Undefined):
            str(value)  # raises, with its name


def _noun(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, bool):
        return "a flag"
    if isinstance(value, int | float):
        return "a number"
    return "a list" if isinstance(value, list | tuple) else "a mapping"


def _is_number(value: Any) -> bool:
    _given(value)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_string(value: Any) -> bool:
    _given(value)
    return isinstance(value, str)


def _is_none(value: Any) -> bool:
    _given(value)
    return value is None


_CONTAINERS: Final = (list, tuple, Mapping)
_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = MappingProxyType(
    {
        "eq": _equal,
        "ne": lambda left, right: not _equal(left, right),
        "lt": lambda left, right: (pair := _ordered(left, right))[0] < pair[1],
        "lteq": lambda left, right: (pair := _ordered(left, right))[0] <= pair[1],
        "gt": lambda left, right: (pair := _ordered(left, right))[0] > pair[1],
        "gteq": lambda left, right: (pair := _ordered(left, right))[0] >= pair[1],
        "in": _contains,
        "notin": lambda value, container: not _contains(value, container),
    }
)
BINARY: Final[Mapping[str, Callable[[Any, Any], Any]]] = MappingProxyType(
    {"+": _add, "-": _subtract}
)
"""The operators between two values: ``+`` for numbers, texts or lists, ``-`` for numbers."""
UNARY: Final[Mapping[str, Callable[[Any], Any]]] = MappingProxyType(
    {"-": lambda value: -number(value)}
)
"""The operators before one value: ``-`` for a number."""
TESTS: Final[Mapping[str, Callable[[Any], bool]]] = MappingProxyType(
    {
        "defined": lambda value: not isinstance(value, Undefined),
        "undefined": lambda value: isinstance(value, Undefined),
        "none": _is_none,
        "number": _is_number,
        "string": _is_string,
        "odd": lambda value: whole_number(value) % 2 == 1,
        "even": lambda value: whole_number(value) % 2 == 0,
    }
)
"""The tests of expressions, by name."""
