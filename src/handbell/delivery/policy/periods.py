"""Counts per period, as operators write them: ``5/day``, ``200/s burst 500``."""

import re
from typing import Final

from handbell._text import nearest
from handbell.creation.values import shown
from handbell.errors import AppError

UNITS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 24 * 3600, "week": 7 * 24 * 3600}
_SHORTUNITS: Final = {"s": "second", "sec": "second", "min": "minute", "h": "hour", "d": "day"}
_SHARE: Final = re.compile(
    r"(?P<number>\d{1,18}(?:\.\d{1,18})?(?:e-?\d{1,2})?)\s*(?:/|per\s)\s*(?P<times>\d{1,9}\s*)?(?P<unit>[a-z]+)"
    r"(?:\s*,?\s*burst\s+(?P<burst>\d{1,9}))?",
    re.IGNORECASE,
)


def read_count_per_period(what: str, value: object, example: str) -> tuple[float, int, int | None]:
    """Parse a text such as ``5/2 days``; return count, period in seconds and burst."""
    found = _SHARE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise AppError(f"{what} is {shown(value)}", fix=f"Write it so: {example}")
    burst = found["burst"]
    seconds = int(found["times"] or 1) * _read_unit(what, found["unit"].lower())
    return float(found["number"]), seconds, None if burst is None else int(burst)


def _read_unit(what: str, word: str) -> int:
    singular = word.removesuffix("s") or word
    name = _SHORTUNITS.get(singular, singular)
    if name not in UNITS:
        near = nearest(word, UNITS)
        raise AppError(
            f"{what} counts per {word[:20]!r}",
            fix=f"Did you mean {near}?" if near else f"Use one of: {', '.join(UNITS)}",
        )
    return UNITS[name]
