"""The filters that a template's expressions may use: few, and none that can make much of little."""

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import islice
from types import MappingProxyType
from typing import Any, Final

from jinja2 import Undefined

from .graphemes import ELLIPSIS, clusters

_MAX_TEXT: Final = 65_536
_MAX_DIGITS: Final = 6
_MAX_MARK: Final = 8
_DATE_FORM = re.compile(r"(?:[^%]|%[YmdHMSy%]){0,100}")


def plain_text(value: Any) -> str:
    """Return a text, number, flag or nothing as it is shown; raise TypeError for anything else.

    Raises ValueError for a text that is longer than all of a template's output may be.
    """
    if isinstance(value, str):
        if len(value) > _MAX_TEXT:
            raise ValueError("a text in it is too long")
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if value is None:
        return ""
    if isinstance(value, Undefined):
        return str(value)  # raises, with its name
    if isinstance(value, list | tuple):
        raise TypeError("a list cannot be shown; use the filter `join`")
    raise TypeError("a mapping cannot be shown; name one of its members")


def _upper(value: Any) -> str:
    return plain_text(value).upper()


def _lower(value: Any) -> str:
    return plain_text(value).lower()


def _capitalize(value: Any) -> str:
    text = plain_text(value)
    return text[:1].upper() + text[1:]


def _trim(value: Any) -> str:
    return plain_text(value).strip()


def _default(value: Any, other: Any = "", *, empty: bool = False) -> Any:
    """Return the other value for one that was not given or is null; with ``empty`` for '' too."""
    is_absent = isinstance(value, Undefined) or value is None
    return other if is_absent or (empty and not value) else value


def _join(value: Any, by: Any = ", ") -> str:
    listed, between = _listed(value), plain_text(by)
    if len(listed) > _MAX_TEXT:
        raise ValueError("what `join` makes is too long")
    parts = [plain_text(part) for part in listed]
    if sum(map(len, parts)) + len(between) * len(parts) > _MAX_TEXT:
        raise ValueError("what `join` makes is too long")
    return between.join(parts)


def _length(value: Any) -> int:
    if isinstance(value, list | tuple | Mapping):
        return len(value)
    return sum(1 for _ in clusters(plain_text(value)))


def _first(value: Any) -> Any:
    return _listed(value)[0]


def _last(value: Any) -> Any:
    return _listed(value)[-1]


def _cut(value: Any, length: int) -> str:
    """Return as many characters as people see them, with an ellipsis where there were more."""
    text = plain_text(value)
    kept = "".join(islice(clusters(text), max(int(length), 1)))
    return text if kept == text else kept.rstrip() + ELLIPSIS


def _number(value: Any, digits: int = 0, group: str = ",", point: str = ".") -> str:
    """Return a number with so many digits behind the point and marks between thousands."""
    if not 0 <= int(digits) <= _MAX_DIGITS:
        raise ValueError(f"`number` takes 0 to {_MAX_DIGITS} digits")
    if max(len(plain_text(group)), len(plain_text(point))) > _MAX_MARK:
        raise ValueError(f"the marks of `number` have {_MAX_MARK} characters at most")
    number = float(value) if not isinstance(value, int) else value
    if not math.isfinite(number):
        raise ValueError("the number is not finite")
    text = f"{number:,.{int(digits)}f}"
    return text.replace(",", "\0").replace(".", str(point)).replace("\0", str(group))


def _date(value: Any, form: str = "%Y-%m-%d") -> str:
    """Return an instant (ISO 8601, or UNIX seconds in UTC) in a form of figures."""
    if not _DATE_FORM.fullmatch(form):
        raise ValueError("`date` knows %Y %y %m %d %H %M %S and %%")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return datetime.fromtimestamp(value, UTC).strftime(form)
    return datetime.fromisoformat(plain_text(value)).strftime(form)


def _listed(value: Any) -> list[Any] | tuple[Any, ...]:
    if isinstance(value, Undefined):
        plain_text(value)  # raises, with its name
    if not isinstance(value, list | tuple):
        raise TypeError("it is not a list")
    return value


FILTERS: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType(
    {
        "upper": _upper,
        "lower": _lower,
        "capitalize": _capitalize,
        "trim": _trim,
        "cut": _cut,
        "default": _default,
        "join": _join,
        "first": _first,
        "last": _last,
        "length": _length,
        "number": _number,
        "date": _date,
    }
)
"""Every filter by its name."""
