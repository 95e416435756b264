"""Grapheme clusters, so that a text is never cut within a visible character.

A visible character may be many code points: a letter and its accents, a flag, a family of emoji
joined by invisible joiners. Boundaries follow Unicode's annex 29.
"""

import json
from typing import Final

import regex

ELLIPSIS: Final = "…"

_CLUSTER: Final = regex.compile(r"\X")


def clusters(text: str) -> list[str]:
    """Return the grapheme clusters of a text; joined they are the text."""
    return _CLUSTER.findall(text)


def json_bytes(text: str) -> int:
    """Return the size of a text in a payload in bytes, without its quotation marks."""
    return len(json.dumps(text, ensure_ascii=False).encode()) - 2


def truncated(text: str, limit: int) -> str:
    """Return the text, cut to ``limit`` bytes with an ellipsis if necessary.

    Bytes are those of a payload. The first character is always kept.
    """
    if json_bytes(text) <= limit:
        return text
    room = limit - json_bytes(ELLIPSIS)
    kept: list[str] = []
    for cluster in clusters(text):
        room -= json_bytes(cluster)
        if kept and room < 0:
            break
        kept.append(cluster)
    return "".join(kept).rstrip() + ELLIPSIS
