"""Small helpers for the texts that people read."""

import json
import re
import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Final

_SHORT: Final = 12
_END: Final = 6
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400
# Controls, line ends of Unicode, what turns the direction of writing, and halves of pairs.
_COMMANDS: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def sentence(text: str) -> str:
    """Return the text, stripped, with a full stop unless it is empty or has an end of its own."""
    text = text.strip()
    return text if not text or text[-1] in ".!?:" else text + "."


def one_line(text: str) -> str:
    r"""Return a text that may be a stranger's as one line that a terminal shows and never obeys.

    Line ends, escape sequences and other controls, and what turns the direction of writing, stand
    there as they are written in Python: ``\x1b``, ``\n``, ``\u202e``.
    """
    return _COMMANDS.sub(lambda found: repr(found[0])[1:-1], text)


def trimmed(text: str) -> str:
    """Return an id without what stands around it unseen, as a text copied from a page may bring."""
    first, last = 0, len(text)
    while first < last and _is_unseen(text[first]):
        first += 1
    while last > first and _is_unseen(text[last - 1]):
        last -= 1
    return text[first:last]


def _is_unseen(letter: str) -> bool:
    return letter.isspace() or unicodedata.category(letter) in ("Cc", "Cf")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that was most likely meant, or None when nothing is near."""
    found = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def count(number: int, singular: str, plural: str | None = None) -> str:
    """Return the number with its noun: ``1 device``, ``2 devices``, ``12,000 devices``."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def short_token(token: str) -> str:
    """Return a device token as a reader can compare it: twelve digits and an ellipsis.

    Of an endpoint it is the host, and the end of the rest.
    """
    if token.startswith("https://"):
        host, _, rest = token.removeprefix("https://").partition("/")
        return f"{host}/…{rest[-_END:]}" if len(rest) > _SHORT + 1 else f"{host}/{rest}"
    return token if len(token) <= _SHORT + 1 else token[:_SHORT] + "…"


def moment(milliseconds: float) -> str:
    """Return an instant (UNIX milliseconds) for a sentence: ``2026-11-23 22:32:26 +01:00``.

    It is this machine's time, with its zone: who reads the sentence may be elsewhere.
    """
    here = datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone()
    zone = here.isoformat()[-6:]
    return f"{local_time(milliseconds)} {'UTC' if zone == '+00:00' else zone}"


def rough_span(seconds: float) -> str:
    """Return how long ago something was, roughly: ``3 min ago``; below zero, ``in 2 h``."""
    size = abs(seconds)
    if size < _MINUTE:
        return "just now"
    if size < _HOUR:
        told = f"{int(size // _MINUTE)} min"
    elif size < _DAY:
        told = f"{int(size // _HOUR)} h"
    else:
        told = count(int(size // _DAY), "day")
    return f"{told} ago" if seconds > 0 else f"in {told}"


def local_time(milliseconds: float) -> str:
    """Return an instant (UNIX milliseconds) as date and time of this machine, to the second."""
    instant = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return instant.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def zoned(milliseconds: float) -> str:
    """Return an instant (UNIX milliseconds) as date and time to the minute, with the zone."""
    day, clock, zone = moment(milliseconds).split(" ")
    return f"{day} {clock[:5]} {zone}"


_JSON_FAULTS: Final = (
    ("Expecting value", "a value is missing"),
    ("Expecting property name", "a name in double quotes is missing"),
    ("Illegal trailing comma", "there is a comma too many"),
    ("Expecting ',' delimiter", "a comma or a closing bracket is missing"),
    ("Expecting ':' delimiter", "a colon is missing"),
    ("Extra data", "something stands behind its end"),
    ("Unterminated string", "a text has no closing quotation mark"),
    ("Invalid control character", "a text holds a line end or another control character"),
    ("Invalid \\", "a backslash stands where JSON knows none"),
)


_TOO_DEEP: Final = "it is nested too deeply"
_HALF: Final = "a text holds half of a character, such as \\ud800"
# What readers refuse that Python's own would take, by a part of what they say.
_STRICTER: Final = (("recursion", _TOO_DEEP), ("hex escape", _HALF), ("surrogate", _HALF))


_TOO_LONG: Final = "it holds a number that is too long"


def parse_fault(error: Exception) -> str:
    """Return in words why a reader of JSON or TOML gave up, without the text at hand."""
    if isinstance(error, RecursionError):
        return _TOO_DEEP
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    # Python's own limit of digits, which is told with a function's name.
    return _TOO_LONG if "integer string conversion" in str(error) else str(error)


def read_timestamp(text: str) -> datetime:
    """Parse a date and time of ISO 8601, or of RFC 3339, where ``T`` and ``Z`` may be lower case.

    It has a zone where the text names an offset. Raises ValueError for other text.
    """
    return datetime.fromisoformat(text.strip().upper())


class _ConstantError(ValueError):
    """What Python reads as a number, and JSON does not know."""


def _refuse_constant(name: str) -> None:
    raise _ConstantError(f"{name} stands in it, which is no number in JSON")


def json_fault(text: str | bytes, error: Exception) -> str:
    """Return in words what is wrong with a text that is not JSON, and where.

    ``error`` is what a reader said of it, which is told where no words are known for it.
    """
    told = str(error)
    known = next((said for part, said in _STRICTER if part in told), "")
    if known or isinstance(error, RecursionError):
        return known or _TOO_DEEP
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as found:
        return _in_words(text, found) or told
    except UnicodeDecodeError:
        return "it is not UTF-8"
    except _ConstantError as found:
        return str(found)
    except (ValueError, RecursionError) as found:
        return parse_fault(found)
    return told


def _in_words(text: str | bytes, found: json.JSONDecodeError) -> str:
    words = next((said for begin, said in _JSON_FAULTS if found.msg.startswith(begin)), "")
    if words and not text.strip():
        return "it is empty"
    return words and f"{words} in line {found.lineno}, column {found.colno}"


def without_password(address: str) -> str:
    """Return an address without the user and the password that stand before its host."""
    return f"…@{address.rpartition('@')[2]}" if "@" in address else address
