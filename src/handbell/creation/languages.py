"""Languages of a notification: tags, and selection by a device's locale.

Tags follow BCP 47, such as ``fr`` or ``zh-Hant-TW``. A locale falls back from the exact tag to its
CLDR parents (from ``es-MX`` to ``es-419``), then to the notification's own text. :func:`fallbacks`
returns that chain and never fails, since locales come from phones in any spelling.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Literal

from handbell._text import nearest
from handbell.errors import NotificationError

from . import values

MAX_LANGUAGES: Final = 100
"""The maximum number of languages of one notification."""

_READERS: Final = MappingProxyType(
    {
        "title": values.title,
        "subtitle": values.text,
        "body": values.text,
        "title_loc_key": values.text,
        "title_loc_args": values.texts,
        "subtitle_loc_key": values.text,
        "subtitle_loc_args": values.texts,
        "loc_key": values.text,
        "loc_args": values.texts,
        "url": values.text,
        "image_url": values.text,
        "sound": values.sound,
    }
)

MEMBERS: Final = tuple(_READERS)
"""The fields that a language may replace: texts, images, sounds and links."""

# A language's text replaces a localization key, and vice versa.
_INSTEAD: Final = (
    ("title", "title_loc_key", "title_loc_args"),
    ("subtitle", "subtitle_loc_key", "subtitle_loc_args"),
    ("body", "loc_key", "loc_args"),
)

_TAG = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{1,8})*")
_MAX_TAG = 64
_SCRIPT_LETTERS = 4
_REGION_LETTERS = 2
# Bokmål is usually meant by Norwegian; CLDR leads from it to `no`, not back.
_SAME: Final = {"no": "nb"}


def read_tag(name: str, value: object) -> str:
    """Return a language tag in BCP 47 form: ``FR_ca`` is ``fr-CA``.

    Raises NotificationError naming ``name`` for anything else.
    """
    tag = _canonical(value) if isinstance(value, str) else None
    if tag is None:
        raise NotificationError(
            f"A language in `{name}` is {values.shown(value)}",
            fix="Write a language tag such as `fr`, `pt-BR` or `zh-Hant`",
        )
    return tag


@lru_cache(maxsize=4096)
def fallbacks(locale: str | None) -> tuple[str, ...]:
    """Return the tags to try, the best first; empty for an invalid locale.

    Accepts locales as phones and POSIX systems write them: ``fr_CA``, ``zh-Hant_TW``,
    ``en_US@calendar=japanese``, ``sr_RS.UTF-8@latin``.
    """
    tag = _canonical(_without_modifier(locale)) if locale else None
    return () if tag is None else tuple(dict.fromkeys(_way(tag.split("-"))))


_SCRIPTS: Final = {"latin": "Latn", "cyrillic": "Cyrl", "devanagari": "Deva", "iqtelif": "Latn"}
"""The modifiers of POSIX locales that name a script."""


def _without_modifier(locale: str) -> str:
    name, _, modifier = locale.partition("@")
    name = name.partition(".")[0].strip()
    script = _SCRIPTS.get(modifier.strip().lower())
    if script is None:
        return name
    language, *rest = re.split("[-_]", name)
    has_script = bool(rest) and len(rest[0]) == _SCRIPT_LETTERS
    return name if has_script else "-".join([language, script, *rest])


def choose(locale: str | None, known: Collection[str]) -> str | None:
    """Return the best known tag for a locale, or None."""
    return next((tag for tag in fallbacks(locale) if tag in known), None)


def read_languages(name: str, value: object) -> dict[str, dict[str, Any]] | None:
    """Parse ``languages``: a mapping from a tag to the differing members.

    Members may be spelled as in the notification; null is absent. The result is JSON-serializable.
    An empty mapping counts as absent.
    """
    if not isinstance(value, Mapping):
        raise NotificationError(
            f"`{name}` is {values.shown(value)}",
            fix='It must be a mapping, such as {"fr": {"title": "Bonjour"}}',
        )
    if len(value) > MAX_LANGUAGES:
        raise NotificationError(
            f"`{name}` holds {len(value):,} languages",
            fix=f"Write at most {MAX_LANGUAGES} in one notification",
        )
    found: dict[str, dict[str, Any]] = {}
    for key, members in value.items():
        tag = read_tag(name, key)
        if tag in found:
            raise NotificationError(f"`{name}` holds `{tag}` twice", fix="Keep one of them")
        found[tag] = _members(f"{name}.{tag}", members)
    return found or None


def changes_in(languages: Mapping[str, Mapping[str, Any]], tag: str) -> dict[str, Any]:
    """Return the fields that differ in a language or its parents, with their values there.

    None stands for a field that is absent there.
    """
    changes: dict[str, Any] = {}
    for parent in reversed(fallbacks(tag)):
        entry = languages.get(parent)
        if entry is None:
            continue
        for text, key, args in _INSTEAD:
            if text in entry:
                changes[key] = changes[args] = None
            elif key in entry:
                changes[text] = None
        changes.update(entry)
    return changes


def replaced_by(given: Collection[str]) -> set[str]:
    """Return the members of :data:`MEMBERS` that the given ones replace, themselves included."""
    gone = {member for member in MEMBERS if member in given}
    for text, key, args in _INSTEAD:
        if text in given:
            gone |= {key, args}
        elif key in given:
            gone.add(text)
    return gone


def _members(where: str, given: object) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise NotificationError(
            f"`{where}` is {values.shown(given)}",
            fix='It must be a mapping, such as {"title": "Bonjour"}',
        )
    found: dict[str, Any] = {}
    for key, value in given.items():
        member = _SPELLINGS.get(key) if isinstance(key, str) else None
        if member is None:
            raise _unknown(where, key)
        if member in found:
            raise NotificationError(f"`{where}` holds `{member}` twice", fix="Keep one of them")
        if value is not None and (read := _READERS[member](f"{where}.{member}", value)):
            found[member] = _plain(read)
    return found


def _unknown(where: str, key: object) -> NotificationError:
    if not isinstance(key, str):
        return NotificationError(f"A key in `{where}` is {values.shown(key)}", fix="Keys are texts")
    near = nearest(key[:80], _SPELLINGS)
    return NotificationError(
        f"`{where}` holds {key[:80]!r}, which no language can change",
        fix=f"Did you mean `{near}`?" if near else f"It can change {', '.join(MEMBERS)}",
    )


def _plain(value: Any) -> Any:
    if isinstance(value, values.CriticalSound):
        return value.to_dict()
    return list(value) if isinstance(value, tuple) else value


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.title() for word in rest)


_SPELLINGS: Final = MappingProxyType(
    {
        spelling: name
        for name in MEMBERS
        for spelling in (name.replace("_", "-"), _camel(name), name)
    }
)


def _canonical(text: str) -> str | None:
    text = text.strip()
    if len(text) > _MAX_TAG or not _TAG.fullmatch(text):
        return None
    language, *rest = re.split("[-_]", text.lower())
    subtags = [_current(language)]
    for subtag in rest:
        # A single letter begins an extension, in which case does not matter.
        is_plain = len(subtags[-1]) > 1 and all(len(part) > 1 for part in subtags)
        if is_plain and len(subtag) == _SCRIPT_LETTERS and subtag.isalpha():
            subtag = subtag.title()  # noqa: PLW2901 - one subtag in its own case
        elif is_plain and len(subtag) == _REGION_LETTERS and subtag.isalpha():
            subtag = subtag.upper()  # noqa: PLW2901
        subtags.append(subtag)
    return "-".join(subtags)


def _way(subtags: list[str]) -> Iterator[str]:
    """Yield a tag, its equivalents, and then its CLDR parents."""
    while subtags:
        alike = ["-".join(subtags), *_same(subtags)]
        yield from alike
        for tag in alike if subtags[0] not in _SAME else ():
            parent = _parents().get(tag.replace("-", "_"))
            yield from () if parent is None else _way(parent.split("_"))
        subtags = subtags[:-1]
        if subtags and len(subtags[-1]) == 1:
            subtags = subtags[:-1]


def _same(subtags: list[str]) -> Iterator[str]:
    """Yield equivalent tags: a region implies its script."""
    match subtags:
        case [language]:
            yield from [_SAME[language]] if language in _SAME else []
        case [language, written, region] if _script(language, region) == written:
            yield f"{language}-{region}"
        case [language, region] if (script := _script(language, region)) is not None:
            yield f"{language}-{script}-{region}"
            yield f"{language}-{script}"


def _script(language: str, region: str) -> str | None:
    """Return the script of a language in a region, if it has several."""
    if language not in _of_several_scripts() or len(region) != _REGION_LETTERS:
        return None
    likely = _cldr("likely_subtags")
    found = likely.get(f"{language}_{region}") or likely.get(language, "")
    return _script_in(found)


@lru_cache(maxsize=1)
def _of_several_scripts() -> frozenset[str]:
    """Return the languages whose script depends on the region, such as Chinese and Serbian."""
    likely = _cldr("likely_subtags")
    pairs = ((tag.split("_"), _script_in(full)) for tag, full in likely.items())
    return frozenset(
        parts[0]
        for parts, script in pairs
        if len(parts) > 1
        and len(parts[1]) == _REGION_LETTERS
        and script != _script_in(likely.get(parts[0], ""))
    )


def _script_in(tag: str) -> str | None:
    return next((part for part in tag.split("_")[1:] if len(part) == _SCRIPT_LETTERS), None)


def _current(language: str) -> str:
    """Return a deprecated language code's replacement: phones and old systems still send it."""
    code: str = _cldr("language_aliases").get(language, language)
    return code if "_" not in code else language


@lru_cache(maxsize=1)
def _parents() -> Mapping[str, str]:
    """Return each locale's parent where it is not the locale without its last subtag."""
    parents: Mapping[str, str] = _cldr("parent_exceptions")
    return parents


@lru_cache(maxsize=4)
def _cldr(table: Literal["likely_subtags", "language_aliases", "parent_exceptions"]) -> Any:
    from babel.core import get_global  # noqa: PLC0415 - its tables are read when they are needed

    return get_global(table)
