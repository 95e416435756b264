"""The form of *Compose*: parsed as a notification, recipients and a time.

Errors become faults of the fields that can be corrected.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Self
from zoneinfo import ZoneInfo

from handbell._text import json_fault
from handbell.creation.notification import Notification
from handbell.creation.recipients import EVERYBODY, Recipients
from handbell.delivery.engine import Options
from handbell.errors import (
    HandbellError,
    NotificationError,
    RecipientsError,
    RegistryError,
    TemplateError,
)
from handbell.fixes import Fix
from handbell.registry.session import read_time_zone

from .forms import Faults, Form

_DIGITS: Final = re.compile(r"[+-]?[0-9]+")


def _whole(text: str) -> int:
    if not _DIGITS.fullmatch(text):
        raise ValueError(text)
    return int(text)


MOST_LANGUAGES: Final = 20
"""The maximum number of languages in the form."""
MOST_VARIABLES: Final = 100
LANGUAGE_TEXTS: Final = ("title", "subtitle", "body")

_TEXTS: Final = (
    "title",
    "subtitle",
    "body",
    "image_url",
    "url",
    "sound",
    "thread_id",
    "collapse_id",
    "category",
    "interruption_level",
    "target_content_id",
)
_FLAGS: Final = ("silent", "content_available", "shorten")
_NUMBERS: Final[Mapping[str, Callable[[str], float]]] = {
    "badge": _whole,
    "priority": _whole,
    "ttl": _whole,
    "relevance_score": float,
}
LABELS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "template": "Template",
        "title": "Title",
        "subtitle": "Subtitle",
        "body": "Text",
        "url": "Opens",
        "image_url": "Picture",
        "badge": "Badge",
        "sound": "Sound",
        "interruption_level": "How it interrupts",
        "ttl": "Kept for",
        "collapse_id": "Replaces under the same name",
        "thread_id": "Stack",
        "urgency": "Who goes first",
        "priority": "Priority on the device",
        "category": "Category",
        "relevance_score": "Relevance",
        "user_info": "For the app",
        "recipients": "Mail addresses",
        "send_at": "Day and time",
        "zone": "Time zone",
        "silent": "Wake the app, show nothing",
        "content_available": "Wake the app behind what is shown",
        "shorten": "Cut the text where it is too long",
        "languages": "Other languages",
    }
)
"""The label of each field, used in errors too."""
_RARE: Final = (
    *_NUMBERS,
    "user_info",
    "sound",
    "thread_id",
    "collapse_id",
    "category",
    "interruption_level",
    "target_content_id",
    "urgency",
)
_OPTIONS: Final = ("to", "recipients", "when", "send_at", "zone", "urgency", "once", "replaces")
_PLAIN: Final = (*_TEXTS, *_NUMBERS, "user_info", "template", *_OPTIONS)
_FLAG_FIELDS: Final = (*_FLAGS, "is_development")
_LANGUAGE: Final = "language"
_VARIABLE: Final = "variable-"

_NAMED: Final = re.compile(r"`([a-z_]+)[`.\[]")
_MARKED: Final = re.compile(r"`([a-z_]+)((?:[.\[][^`]*)?)`")
_SEPARATORS: Final = re.compile(r"[\n\r,;]+")
_MOST_FAULTY: Final = 5
_MEANT: Final = {"languages": "language-tag-0", "variables": "template", "expires_at": "ttl"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The texts of the form by field; set flags are ``1``.

    ``languages`` are further languages, each a mapping of ``tag`` and texts. ``variables`` are
    those of a template.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    languages: tuple[Mapping[str, str], ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, form: Form) -> Self:
        """Return a posted form's draft."""
        values = {name: form.text(name) for name in _PLAIN}
        values["body"] = form.raw("body").replace("\r\n", "\n").strip()
        values |= {name: "1" for name in _FLAG_FIELDS if form.flag(name)}
        return cls(
            values={name: value for name, value in values.items() if value},
            languages=tuple(_languages(form)),
            variables=dict(_variables(form)),
        )

    @classmethod
    def of_notification(cls, content: Mapping[str, Any], **values: str) -> Self:
        """Return a form filled with a notification's content; ``values`` are further fields.

        Content without a field in the form is left out.
        """
        found = {name: str(content[name]) for name in (*_TEXTS, *_NUMBERS) if name in content}
        found |= {name: "1" for name in _FLAGS if content.get(name)}
        if content.get("user_info"):
            found["user_info"] = json.dumps(content["user_info"], ensure_ascii=False, indent=2)
        languages = tuple(
            {"tag": tag, **{name: str(texts[name]) for name in LANGUAGE_TEXTS if name in texts}}
            for tag, texts in (content.get("languages") or {}).items()
        )
        return cls(values=found | values, languages=languages)

    def get(self, name: str, default: str = "") -> str:
        """Return a field's text, for templates."""
        return self.values.get(name, default)

    def having(self, **values: str) -> "Draft":
        """Return a copy with changed fields."""
        return Draft(
            values={**self.values, **values}, languages=self.languages, variables=self.variables
        )

    @property
    def is_empty(self) -> bool:
        """Return whether every field is empty."""
        return not any(
            self.values.get(name) for name in (*_TEXTS, *_FLAGS, "user_info", "template")
        )

    @property
    def has_rare(self) -> bool:
        """Return whether a field in a collapsed section is filled."""
        return any(self.values.get(name) for name in (*_RARE, *_FLAG_FIELDS))

    @property
    def is_to_everybody(self) -> bool:
        """Return whether it is for all active sessions."""
        return self.get("to") == "everybody"

    def fields(self) -> list[tuple[str, str]]:
        """Return all values as hidden fields of a form."""
        pairs = list(self.values.items())
        for place, language in enumerate(self.languages):
            pairs += [(f"{_LANGUAGE}-{name}-{place}", text) for name, text in language.items()]
        return [*pairs, *((f"{_VARIABLE}{name}", text) for name, text in self.variables.items())]

    def content(self, faults: Faults) -> dict[str, Any]:
        """Return the notification's content; an invalid number becomes a fault."""
        content: dict[str, Any] = {
            name: self.values[name] for name in _TEXTS if name in self.values
        }
        content |= {name: True for name in _FLAGS if name in self.values}
        for name, read in _NUMBERS.items():
            if name in self.values:
                content[name] = _number(name, self.values[name], read, faults)
        if "user_info" in self.values:
            content["user_info"] = _json(self.values["user_info"], faults)
        if self.languages:
            content["languages"] = _by_tag(self.languages, faults)
        if template := self.get("template"):
            content["template"] = template
            content["variables"] = {name: text for name, text in self.variables.items() if text}
        return content

    def people(self, faults: Faults) -> Recipients | None:
        """Return the recipients, or None with faults."""
        if self.is_to_everybody:
            return EVERYBODY
        named = [text.strip() for text in _SEPARATORS.split(self.get("recipients"))]
        return read_recipients([text for text in named if text], faults)

    def options(self, faults: Faults, *, key: str | None = None) -> Options | None:
        """Return the delivery options, or None with faults."""
        try:
            return Options.read(
                send_at=self._send_at(faults),
                urgency=self.get("urgency") or None,
                idempotency_key=key,
                is_development=self.get("is_development") == "1",
            )
        except NotificationError as error:
            add_fault(faults, error, "send_at")
        return None

    def _send_at(self, faults: Faults) -> str | datetime | None:
        when, text = self.get("when", "now"), self.get("send_at")
        if when == "now":
            return None
        if not text:
            faults.add("send_at", "No day and time is chosen.", "Choose them, or send now.")
            return None
        if when == "local":
            return text
        try:
            zone = ZoneInfo(read_time_zone(self.get("zone", "UTC")))
            return datetime.fromisoformat(text).replace(tzinfo=zone)
        except RegistryError as error:
            faults.add("zone", error.what, error.fix)
        except ValueError:
            content = f"Day and time: {text[:40]!r} is none."
            faults.add("send_at", content, "Write it as 2026-12-24T18:00.")
        return None


def read_notification(read: Callable[[], Notification], faults: Faults) -> Notification | None:
    """Return the parsed value, or None with a fault at its field."""
    if faults:
        return None
    try:
        return read()
    except HandbellError as error:
        add_fault(faults, error)
        return None


def read_recipients(named: Iterable[str], faults: Faults) -> Recipients | None:
    """Return the recipients, or None with each invalid one as a fault."""
    texts = list(named)
    if not texts:
        faults.add(
            "recipients",
            "Nobody is named.",
            "Write a mail address on each line, or choose everybody.",
        )
        return None
    try:
        return Recipients.read(texts)
    except RecipientsError:
        wrong = [content for text in texts if (content := _why_not(text))]
        more = f" And {len(wrong) - _MOST_FAULTY} more." if len(wrong) > _MOST_FAULTY else ""
        faults.add("recipients", " ".join(wrong[:_MOST_FAULTY]) + more)
        return None


def add_fault(faults: Faults, error: HandbellError, default: str = "title") -> None:
    """Add an error as a fault of the field that it names."""
    faults.add(field_of(error, default), readable(error.what), readable(error.fix))


def field_of(error: HandbellError, default: str = "title") -> str:
    """Return the form's field that an error is about."""
    if isinstance(error, TemplateError):
        return "template"
    for name in _NAMED.findall(error.what):
        if name in _MEANT:
            return _MEANT[name]
        if name in (*_PLAIN, *_FLAG_FIELDS):
            return str(name)
    return default


def readable(text: str) -> str:
    """Return an error's text with the form's names of fields.

    A :class:`~handbell.fixes.Fix` is unchanged: the page renders it.
    """
    return text if isinstance(text, Fix) else _MARKED.sub(_as_labelled, text).replace("`", "")


def _as_labelled(found: re.Match[str]) -> str:
    name, rest = found[1], found[2].lstrip(".")
    label = f'"{LABELS.get(name, name)}"'
    return f"{rest} in {label}" if rest else label


def _why_not(text: str) -> str:
    try:
        Recipients.read(text)
    except RecipientsError as error:
        content = error.what.replace("`recipients` is ", "")
        return readable(f"{content} {error.fix}")
    return ""


def _languages(form: Form) -> Iterable[dict[str, str]]:
    for place in range(MOST_LANGUAGES):
        named = {
            name: form.text(f"{_LANGUAGE}-{name}-{place}") for name in ("tag", *LANGUAGE_TEXTS)
        }
        if any(named.values()):
            yield {name: text for name, text in named.items() if text}


def _variables(form: Form) -> Iterable[tuple[str, str]]:
    for name in form.names(_VARIABLE)[:MOST_VARIABLES]:
        yield name.removeprefix(_VARIABLE), form.text(name)


def _by_tag(languages: Iterable[Mapping[str, str]], faults: Faults) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for place, language in enumerate(languages):
        tag = language.get("tag", "")
        if not tag or tag in found:
            what = f"{tag} is there twice." if tag else "This language has no name."
            faults.add(f"{_LANGUAGE}-tag-{place}", what, "Write a tag such as fr or pt-BR.")
            continue
        found[tag] = {name: text for name, text in language.items() if name != "tag"}
    return found


def _number(name: str, text: str, read: Callable[[str], float], faults: Faults) -> float | None:
    try:
        return read(text)
    except ValueError:
        faults.add(
            name,
            f"{LABELS[name]}: {text[:40]!r} is not a number.",
            "Write digits, or leave it empty.",
        )
        return None


def _json(text: str, faults: Faults) -> Any:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        faults.add(
            "user_info",
            f"{LABELS['user_info']}: that is not JSON: {json_fault(text, error)}.",
            'Write an object: {"order": 42}.',
        )
        return None
    if not isinstance(content, dict):
        faults.add(
            "user_info",
            f"{LABELS['user_info']}: that is not a JSON object.",
            'Write one: {"order": 42}.',
        )
        return None
    return content
