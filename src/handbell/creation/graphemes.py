"""Characters as people see them, so that a text is never cut within one.

What a reader takes for one character may be many code points: a letter and its accents, a flag, a
family of emoji joined by invisible joiners. The rules are those of Unicode's annex 29, on the
character properties of the standard library; where that knows less than the annex, two code points
stay together rather than apart.
"""

import json
import unicodedata
from collections.abc import Iterator
from typing import Final

ELLIPSIS: Final = "…"

_JOINER = "\u200d"
_NON_JOINER = "\u200c"
_VIRAMA_CLASS = 9
_MARKS = frozenset({"Mn", "Me", "Mc"})
_CONTROLS = frozenset({"Cc", "Zl", "Zp"})
_FLAG_LETTERS = range(0x1F1E6, 0x1F200)
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_TAGS = range(0xE0020, 0xE0080)
_HALF_WIDTH_MARKS = range(0xFF9E, 0xFFA0)
# Vowel signs that stand beside their letter and are no marks by their category.
_VOWELS = frozenset("\u0e33\u0eb3")
_PREPENDED = frozenset(
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\u0d4e"
    "\U000110bd\U000110cd\U000111c2\U000111c3\U0001193f\U00011941\U00011a3a\U00011a84\U00011a85"
    "\U00011a86\U00011a87\U00011a88\U00011a89\U00011d46\U00011f02"
)

_LEADING = range(0x1100, 0x1160)
_MORE_LEADING = range(0xA960, 0xA980)
_VOWEL = range(0x1160, 0x11A8)
_MORE_VOWEL = range(0xD7B0, 0xD7CB)
_TRAILING = range(0x11A8, 0x1200)
_MORE_TRAILING = range(0xD7CB, 0xD800)
_SYLLABLES = range(0xAC00, 0xD7A4)
_TRAILING_FORMS = 28


def clusters(text: str) -> Iterator[str]:
    """Yield the characters of a text as people see them; joined they are the text again."""
    start = flags = 0
    is_linked = False
    for place in range(1, len(text)):
        before, after = text[place - 1], text[place]
        flags = flags + 1 if ord(before) in _FLAG_LETTERS else 0
        is_linked = _links(before) or (is_linked and _extends(before))
        if _is_boundary(before, after, flags) and not is_linked:
            yield text[start:place]
            start = place
    if text:
        yield text[start:]


def json_bytes(text: str) -> int:
    """Return how many bytes a text takes in a payload, without its quotation marks."""
    return len(json.dumps(text, ensure_ascii=False).encode()) - 2


def shortened(text: str, limit: int) -> str:
    """Return the text, or as much of its beginning as fits into ``limit`` bytes with an ellipsis.

    Bytes are those of a payload. The first character is kept whatever the limit.
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


def _is_boundary(before: str, after: str, flags: int) -> bool:
    if before < "\u0300" and after < "\u0300":
        return not (before == "\r" and after == "\n")
    if unicodedata.category(before) in _CONTROLS or unicodedata.category(after) in _CONTROLS:
        return True
    is_joined = (
        _extends(after)
        or before == _JOINER
        or before in _PREPENDED
        or _is_syllable(ord(before), ord(after))
        or (bool(flags % 2) and ord(after) in _FLAG_LETTERS)
    )
    return not is_joined


def _links(letter: str) -> bool:
    """Return whether it takes a vowel away, so that the next letter is written into this one."""
    return letter >= "\u0300" and unicodedata.combining(letter) == _VIRAMA_CLASS


def _extends(letter: str) -> bool:
    code = ord(letter)
    return (
        letter in (_JOINER, _NON_JOINER)
        or unicodedata.category(letter) in _MARKS
        or letter in _VOWELS
        or code in _SKIN_TONES
        or code in _TAGS
        or code in _HALF_WIDTH_MARKS
    )


def _is_syllable(before: int, after: int) -> bool:
    """Return whether two parts of Korean writing belong to one syllable."""
    is_vowel = after in _VOWEL or after in _MORE_VOWEL
    is_trailing = after in _TRAILING or after in _MORE_TRAILING
    is_leading = after in _LEADING or after in _MORE_LEADING
    if before in _LEADING or before in _MORE_LEADING:
        return is_leading or is_vowel or after in _SYLLABLES
    if before in _SYLLABLES and (before - _SYLLABLES.start) % _TRAILING_FORMS == 0:
        return is_vowel or is_trailing
    if before in _VOWEL or before in _MORE_VOWEL:
        return is_vowel or is_trailing
    if before in _SYLLABLES or before in _TRAILING or before in _MORE_TRAILING:
        return is_trailing
    return False
