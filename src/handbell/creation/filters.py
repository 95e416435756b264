"""The filters of template expressions: few, and none that amplifies its input."""

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from jinja2 import Undefined

from handbell._text import read_timestamp

from .expressions import MAX_TEXT, listed, number, plain_text, whole_number
from .graphemes import ELLIPSIS, clusters

_MAX_DIGITS: Final = 6
_MAX_MARK: Final = 8
_DATE_FORM = re.compile(r"(?:[^%]|%[YmdHMSy%]){0,100}")


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
    """Return the default for a missing or null value; with ``empty`` for '' too."""
    is_absent = isinstance(value, Undefined) or value is None
    return other if is_absent or (empty and not value) else value


def _join(value: Any, by: Any = ", ") -> str:
    items, between = listed(value), plain_text(by)
    parts = [plain_text(part) for part in items]
    if sum(map(len, parts)) + len(between) * len(parts) > MAX_TEXT:
        raise ValueError("what `join` makes is too long")
    return between.join(parts)


def _length(value: Any) -> int:
    if isinstance(value, list | tuple | Mapping):
        return len(value)
    return len(clusters(plain_text(value)))


def _first(value: Any) -> Any:
    return listed(value)[0]


def _last(value: Any) -> Any:
    return listed(value)[-1]


def _cut(value: Any, length: int) -> str:
    """Truncate to ``length`` grapheme clusters, with an ellipsis if anything was cut."""
    text = plain_text(value)
    kept = "".join(clusters(text)[: max(whole_number(length), 1)])
    return text if kept == text else kept.rstrip() + ELLIPSIS


def _number(value: Any, digits: int = 0, group: str = ",", point: str = ".") -> str:
    """Format a number with ``digits`` decimals and a thousands separator."""
    if not 0 <= whole_number(digits) <= _MAX_DIGITS:
        raise ValueError(f"`number` takes 0 to {_MAX_DIGITS} digits")
    if max(len(plain_text(group)), len(plain_text(point))) > _MAX_MARK:
        raise ValueError(f"the marks of `number` have {_MAX_MARK} characters at most")
    # A number may be text, as on the command line.
    counted = float(plain_text(value)) if isinstance(value, str) else number(value)
    if not math.isfinite(counted):
        raise ValueError("the number is not finite")
    text = f"{counted:,.{digits}f}"
    marks = {",": plain_text(group), ".": plain_text(point)}
    return "".join(marks.get(letter, letter) for letter in text)


def _date(value: Any, form: str = "%Y-%m-%d") -> str:
    """Format an instant (ISO 8601, or UNIX seconds in UTC) with a numeric format."""
    if not _DATE_FORM.fullmatch(plain_text(form)):
        raise ValueError("`date` knows %Y %y %m %d %H %M %S and %%")
    if not isinstance(value, str):
        return datetime.fromtimestamp(number(value), UTC).strftime(form)
    return read_timestamp(plain_text(value)).strftime(form)


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
