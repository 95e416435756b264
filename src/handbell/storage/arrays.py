"""Columns as PostgreSQL reads arrays, made at once instead of value by value."""

import re
from collections.abc import Collection
from typing import Any, Final

from pydantic_core import to_json

_CONTROL: Final = re.compile("[\x00-\x1f]")


def array_of(values: Collection[Any]) -> str | list[Any]:
    """Return values as the text of an array, or as the list of which the driver makes one.

    A list in JSON is an array once its brackets are braces: numbers, ``null`` and flags are read
    alike, and so are texts, in which a backslash stands before a quote or another one. Control
    characters and bytes are written otherwise; the driver takes 20 times as long for all it writes.
    """
    listed = list(values)
    kinds = set(map(type, listed))
    if bytes in kinds:
        return listed
    texts = (one for one in listed if isinstance(one, str)) if _has_text(kinds) else ()
    if _CONTROL.search("".join(texts)):
        return listed
    return "{" + to_json(listed)[1:-1].decode() + "}"


def _has_text(kinds: Collection[type]) -> bool:
    return any(issubclass(kind, str) for kind in kinds)
