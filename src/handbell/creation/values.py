"""One value of a notification, read at the border: each function checks one kind of field.

Each takes the field's name and value, returns the canonical value, and raises
:class:`~handbell.errors.NotificationError` naming the field, the value and what is expected. None
is never passed. Parsing is idempotent.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from handbell._text import nearest, read_timestamp
from handbell.errors import NotificationError

MAX_DEPTH: Final = 64
"""The maximum nesting of lists and mappings in ``user_info`` and similar fields."""
MAX_VALUES: Final = 10_000
"""The maximum number of values in ``user_info`` and similar fields, beyond any payload's size."""
MAX_BADGE: Final = 2**31 - 1
"""The largest 32-bit integer; a larger badge is certainly a mistake."""

MAX_TTL_SECONDS: Final = 10 * 365 * 24 * 3600

# The end of the year 9999; larger values are most likely milliseconds.
_LAST_INSTANT = 253_402_300_799
_COLOR = re.compile(r"#[0-9a-f]{6}")
_SECRETS = (
    (re.compile("PRIVATE KEY-----"), "a private key"),
    (re.compile(r"hbk_[a-z0-9]{8}_[A-Za-z0-9]{20}"), "an API key of Handbell's"),
    (re.compile(r"hbs_[A-Za-z0-9]{32}"), "the secret of a session"),
)
_INTEGERS = range(-(2**63), 2**64)
# Certainly below MAX_DEPTH and MAX_VALUES: 20 values, each with 20 values, each with 20.
_FLAT = 3
_FEW = 20
_CONTAINERS = frozenset({dict, list})


@dataclass(frozen=True, slots=True)
class CriticalSound:
    """The sound of a critical alert, which is heard even when the phone is muted.

    Needs Apple's Critical Alerts entitlement. ``volume`` is between 0 (silent) and 1 (full), or
    None for the device's own choice.
    """

    name: str = "default"
    volume: float | None = None

    def __post_init__(self) -> None:
        if not text("sound.name", self.name):
            raise wrong("sound.name", self.name, "the name of a sound, such as `default`")
        if self.volume is not None and not 0 <= number("sound.volume", self.volume) <= 1:
            raise wrong("sound.volume", self.volume, "a number between 0 and 1")

    def to_dict(self) -> dict[str, Any]:
        """Return Apple's form: ``critical``, ``name`` and, if set, ``volume``."""
        volume = {} if self.volume is None else {"volume": self.volume}
        return {"critical": 1, "name": self.name, **volume}


def text(name: str, value: object) -> str | None:
    """Parse a text. An empty or blank one counts as absent."""
    if not isinstance(value, str):
        raise wrong(name, value, "a text")
    return _unicode(name, value) if value and not value.isspace() else None


def title(name: str, value: object) -> str:
    """Parse a title: the only text that must not be empty when given."""
    found = text(name, value)
    if found is None:
        raise NotificationError(
            f"`{name}` is empty", fix=f"Write a {name}, or leave the field out to send a body alone"
        )
    return found


def color(name: str, value: object) -> str | None:
    """Parse a colour ``#rrggbb``; returned in lower case."""
    found = text(name, value)
    if found is not None and not _COLOR.fullmatch(found.lower()):
        raise wrong(name, value, "a colour such as `#1e90ff`")
    return found.lower() if found else None


def texts(name: str, value: object) -> tuple[str, ...]:
    """Parse a list of texts. An empty text keeps its position."""
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise wrong(name, value, "a list of texts")
    return tuple(_unicode(f"{name}[{place}]", item) for place, item in enumerate(value))


def number(name: str, value: object) -> float:
    """Parse a finite number; True and False are not numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(name, value, "a number")
    return _plain_number(name, value)


def whole(name: str, value: object) -> int:
    """Parse a whole number of 0 or more. A float without a fraction, such as ``3.0``, is one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise wrong(name, value, "a whole number of 0 or more")
    return int(_plain_number(name, value))


def badge(name: str, value: object) -> int:
    """Parse an app's badge: whole, and small enough for every phone."""
    number = whole(name, value)
    if number > MAX_BADGE:
        raise wrong(name, value, f"between 0 and {MAX_BADGE:,}")
    return number


def flag(name: str, value: object) -> bool:
    """Parse a flag: true or false, or Apple's 1 or 0."""
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    raise wrong(name, value, "true or false")


def instant(name: str, value: object) -> int:
    """Read an instant into UNIX seconds (UTC), rounded down.

    Accepts UNIX seconds, a :class:`~datetime.datetime` that knows its zone, or ISO 8601 text with
    an offset.
    """
    if isinstance(value, str):
        value = _moment(name, value)
    if isinstance(value, datetime):
        value = _seconds(name, value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(name, value, "UNIX seconds, a datetime with a zone, or ISO 8601 text")
    seconds = math.floor(_plain_number(name, value))
    if seconds > _LAST_INSTANT:
        raise wrong(name, value, "in seconds; this looks like milliseconds")
    if seconds < 0:
        raise wrong(name, value, "an instant after 1970")
    return seconds


def ttl(name: str, value: object) -> int:
    """Parse a time to live into seconds: a number or a :class:`~datetime.timedelta`."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise wrong(name, value, "a number of seconds or a timedelta")
    if not 0 <= _plain_number(name, seconds) <= MAX_TTL_SECONDS:
        raise wrong(name, value, f"between 0 and {MAX_TTL_SECONDS:,} seconds")
    return math.ceil(seconds)


def sound(name: str, value: object) -> str | CriticalSound | None:
    """Parse a sound: its name, or a mapping for a critical alert."""
    if isinstance(value, CriticalSound):
        return value
    if isinstance(value, Mapping):
        return _critical_sound(name, value)
    if isinstance(value, str):
        return text(name, value)
    raise wrong(name, value, "the name of a sound, or a mapping for a critical alert")


def json_mapping(name: str, value: object) -> dict[str, Any]:
    """Return a deep copy of a JSON-serializable mapping.

    Keys are texts; values are texts, finite numbers, true, false, null, lists and mappings, at most
    :data:`MAX_DEPTH` deep and :data:`MAX_VALUES` in all.
    """
    if not isinstance(value, Mapping):
        raise wrong(name, value, "a mapping")
    copied: dict[str, Any]
    try:
        copied = _copied(value, 0)
    except (_UnusualError, UnicodeEncodeError):
        copied = _Copier(name).copy(name, value, 0)
    return copied


def raw_payload(name: str, value: object) -> dict[str, Any]:
    """Return a deep copy of raw payload members, outside and within ``aps``.

    JSON as in :func:`json_mapping`; a text that holds a private key or a secret of ours is refused.
    """
    payload = json_mapping(name, value)
    if not isinstance(payload.get("aps", {}), dict):
        raise wrong(f"{name}.aps", payload["aps"], "a mapping")
    refuse_secrets(name, payload)
    return payload


def refuse_secrets(name: str, members: Mapping[str, Any]) -> None:
    """Raise NotificationError where a text of a JSON mapping holds a private key or our secrets."""
    for path, text in _texts(name, members):
        for secret, named in _SECRETS:
            if secret.search(text):
                raise NotificationError(
                    f"`{path}` holds {named}", fix="Nothing secret belongs into a notification"
                )


def _texts(path: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _texts(f"{path}[{number}]", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(f"{path}.{key[:40]}", item)
            yield path, key


def shown(value: object) -> str:
    """Describe a value for an error: its type and, if short, the value itself."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f"the text {_short(value)}"
    if isinstance(value, float):
        return f"the number {value}"
    if isinstance(value, int):
        return f"the number {value}" if value in _INTEGERS else "a number of more than 64 bits"
    kinds: tuple[tuple[Any, str], ...] = ((Mapping, "a mapping"), ((list, tuple), "a list"))
    for kind, words in kinds:
        if isinstance(value, kind):
            return words
    return f"a Python {type(value).__name__}"


def _short(value: str, limit: int = 40) -> str:
    # repr() escapes unprintable characters, lone surrogates included.
    return repr(value) if len(value) <= limit else f"{value[:limit]!r} and more"


def wrong(name: str, value: object, should: str) -> NotificationError:
    """Return the error for a value of the wrong kind."""
    return NotificationError(f"`{name}` is {shown(value)}", fix=f"It must be {should}")


def _unicode(name: str, value: str) -> str:
    if type(value) is str and value.isascii():
        return value
    # Plain texts, and members of a string enumeration.
    plain = str.__str__(value)
    try:
        plain.encode()
    except UnicodeEncodeError as error:
        raise NotificationError(
            f"`{name}` is not valid Unicode: half of a character pair stands alone at place "
            f"{error.start + 1}",
            fix="Cut texts between characters, not within an emoji",
        ) from None
    return plain


def _plain_number(name: str, value: float) -> float:
    if isinstance(value, int):
        if value not in _INTEGERS:
            raise wrong(name, value, "a number of at most 64 bits")
        return int(value)
    if not math.isfinite(value):
        raise wrong(name, value, "a finite number; JSON has no other")
    return float(value)


def _moment(name: str, value: str) -> datetime:
    try:
        return read_timestamp(value)
    except ValueError:
        raise wrong(
            name, value, "ISO 8601 text with an offset, such as `2027-03-01T09:00:00+01:00`"
        ) from None


def _seconds(name: str, value: datetime) -> float:
    if value.utcoffset() is None:
        raise NotificationError(
            f"`{name}` is {value.isoformat()}, which names no time zone",
            fix="Give the offset from UTC, such as `+01:00` or `Z`",
        )
    try:
        return value.timestamp()
    except (OverflowError, ValueError):
        raise wrong(name, value, "an instant between 1970 and 9999") from None


def _critical_sound(name: str, given: Mapping[Any, Any]) -> CriticalSound:
    for key in given:
        if key not in ("critical", "name", "volume"):
            raise unknown(f"in `{name}`", key, ("critical", "name", "volume"))
    critical = given.get("critical")
    if critical is None or not flag(f"{name}.critical", critical):
        raise NotificationError(
            f"`{name}` is a mapping without `critical: true`",
            fix="A mapping is for critical alerts; for an ordinary sound give its name as text",
        )
    return CriticalSound(
        **{key: given[key] for key in ("name", "volume") if given.get(key) is not None}
    )


def unknown(where: str, key: object, known: tuple[str, ...]) -> NotificationError:
    """Return the error for an unknown key, with the nearest known name."""
    if not isinstance(key, str):
        return NotificationError(f"A key {where} is {shown(key)}", fix="Keys are texts")
    near = nearest(key[:80], known)
    return NotificationError(
        f"Unknown key {where}: {_short(key)}",
        fix=f"Did you mean `{near}`?" if near else "docs/notification.md lists every field",
    )


class _UnusualError(Exception):
    """A value that :class:`_Copier` must check, as it may be invalid."""


def _copied(value: Any, depth: int) -> Any:
    """Return a deep copy of a small value that is certainly JSON.

    Raises _UnusualError, or UnicodeEncodeError, for any other value, valid or not.
    """
    kind = type(value)
    if kind is str:
        if not value.isascii():
            value.encode()
        return value
    if (
        kind is bool
        or value is None
        or (kind is int and value in _INTEGERS)
        or (kind is float and math.isfinite(value))
    ):
        return value
    if depth < _FLAT and kind in _CONTAINERS and len(value) <= _FEW:
        if kind is list:
            return [_copied(item, depth + 1) for item in value]
        return {_copied_key(key): _copied(item, depth + 1) for key, item in value.items()}
    raise _UnusualError


def _copied_key(key: Any) -> str:
    if type(key) is str and key.isascii():
        return key
    raise _UnusualError


class _Copier:
    """Copies a JSON value, with limits on depth and size."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._left = MAX_VALUES

    def copy(self, path: str, value: object, depth: int) -> Any:
        self._count(depth)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return _unicode(path, value)
        if isinstance(value, int | float):
            return _plain_number(path, value)
        if isinstance(value, list | tuple):
            return [self.copy(f"{path}[{i}]", item, depth + 1) for i, item in enumerate(value)]
        if isinstance(value, Mapping):
            return self._mapping(path, value, depth)
        raise wrong(path, value, "something that JSON can carry: text, number, list, mapping …")

    def _mapping(self, path: str, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        copied = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise NotificationError(f"A key in `{path}` is {shown(key)}", fix="Keys are texts")
            plain = _unicode(f"a key in {path}", key)
            copied[plain] = self.copy(f"{path}.{plain[:40]}", item, depth + 1)
        return copied

    def _count(self, depth: int) -> None:
        self._left -= 1
        if depth > MAX_DEPTH:
            raise NotificationError(
                f"`{self._root}` is nested more than {MAX_DEPTH} deep", fix="Make it flatter"
            )
        if self._left < 0:
            raise NotificationError(
                f"`{self._root}` holds over {MAX_VALUES:,} values, more than any payload takes",
                fix="Send an id, and let the app fetch the rest",
            )


def by_field(given: Mapping[Any, Any], known: Mapping[str, str], where: str) -> dict[str, Any]:
    """Return what is given by the names of fields; ``known`` has each spelling of them.

    Raises NotificationError for an unknown one, and for two of one field that differ.
    """
    found: dict[str, Any] = {}
    for key, value in given.items():
        name = known.get(key)
        if name is None:
            raise unknown(where, key, tuple(known))
        if name not in found:
            found[name] = value
        elif not _same(found[name], value):
            first = next(other for other in given if known.get(other) == name)
            raise NotificationError(
                f"`{first}` and `{key}` are one field, given twice with different values",
                fix="Keep one of them",
            )
    return found


def _same(first: object, other: object) -> bool:
    return type(first) is type(other) and bool(first == other)
