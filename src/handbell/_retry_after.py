"""``Retry-After``: how long the peer of an HTTP answer asks to be left alone. RFC 9110, 10.2.3."""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

LONGEST_SECONDS: Final = 86_400.0
_MOST_DIGITS: Final = 9


def retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Return ``Retry-After`` in seconds, at most a day; None where there is none to be read.

    ``headers`` are by lower-case name. A date counts from the answer's own ``Date``, as the peer's
    clock is its own; where there is none, from ``now`` (UNIX seconds).
    """
    text = headers.get("retry-after", "")
    if text.isascii() and text.isdigit():
        return min(float(text[:_MOST_DIGITS]), LONGEST_SECONDS)
    until, at = instant(text), instant(headers.get("date", ""))
    at = now if at is None else at
    if until is None or at is None:
        return None
    return min(max(0.0, until - at), LONGEST_SECONDS)


def instant(text: str) -> float | None:
    """Return a date of HTTP as UNIX seconds, None where it is none."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
