"""Templates: notifications with variables.

A template is a notification, in one or several languages, whose texts may hold Jinja expressions.
:mod:`handbell.creation.rendering` defines them; it needs the extra ``server``, which is required
when a template is first parsed.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any, Final, NamedTuple, Self

from handbell._extras import install
from handbell._text import nearest
from handbell.errors import NotificationError, TemplateError

from . import languages as speech
from . import values
from .android import sample_of
from .notification import Notification, fields_of

MAX_BYTES: Final = 131_072
"""The maximum size of a template in bytes, as JSON."""
MAX_VARIABLES_BYTES: Final = 65_536
"""The maximum size of the variables of one rendering in bytes, as JSON."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SPELLINGS: Final = MappingProxyType(
    {
        "name": "name",
        "default_language": "default_language",
        "defaultLanguage": "default_language",
        "default-language": "default_language",
        "notification": "notification",
        "variables": "variables",
    }
)
_URLS: Final = frozenset({"url", "image_url"})
# Sample values for checking a template: in place of a number, and for texts.
_NUMBERS: Final = frozenset({"badge", "ttl", "priority"})
_SAMPLES: Final = MappingProxyType(
    {
        **dict.fromkeys((*_NUMBERS, "relevance_score"), 0),
        **dict.fromkeys(("expires_at", "timestamp", "stale_date", "dismissal_date"), 0),
        "color": "#000000",
    }
)
_MAX_NUMBER_DIGITS: Final = 18

Change = Callable[[str, str, str], Any]
"""Maps a text of a template; called with its field, its place and the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A notification with variables; parsed by :meth:`read`.

    ``default_language`` is the language of the notification's own texts, ``notification`` its
    fields by name, including ``languages``; ``variables`` are the names used in its
    texts and those declared in addition.
    """

    name: str
    default_language: str
    notification: Mapping[str, Any]
    variables: tuple[str, ...]

    @classmethod
    def read(cls, value: object, *, name: str | None = None) -> Self:
        """Parse a template from a mapping of the fields.

        ``default_language`` is ``en`` by default; its texts may stand under ``languages`` as well.
        ``variables`` default to the names used in the texts. ``name`` is the name of a mapping
        without one. Raises TemplateError, naming the field.
        """
        given = _members(value, name)
        default = speech.read_tag("default_language", given.get("default_language") or "en")
        notification = _own_first(_notification(given.get("notification")), default)
        used = _names_in(notification)
        template = cls(
            name=_name(given.get("name")),
            default_language=default,
            notification=notification,
            variables=_declared(given.get("variables"), used),
        )
        if len(json.dumps(template.to_dict(), ensure_ascii=False).encode()) > MAX_BYTES:
            raise TemplateError(
                f"The template has over {MAX_BYTES:,} bytes", fix="Make two templates of it"
            )
        template._check()
        return template

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serializable form; :meth:`read` parses it to an equal template."""
        return {
            "name": self.name,
            "default_language": self.default_language,
            "notification": dict(self.notification),
            "variables": list(self.variables),
        }

    @property
    def languages(self) -> tuple[str, ...]:
        """Return its languages, the default one first."""
        return (self.default_language, *self.notification.get("languages", {}))

    def render(
        self, variables: Mapping[str, Any] | None, overrides: Mapping[str, Any] | None = None
    ) -> Notification:
        """Render the notification with these values, in all its languages.

        ``overrides`` are fields that replace the template's, in every language; members of
        ``user_info`` are merged. Raises TemplateError, naming a missing or unknown variable, and
        NotificationError for an invalid notification.
        """
        given = self._checked(variables)
        with _rendering().allowance():
            rendered = _changed(self.notification, self._renderer(given))
        fields = _overlaid(rendered, fields_of(overrides or {}, "beside the template"))
        try:
            return Notification.read(self._with_own(fields))
        except NotificationError as error:
            raise TemplateError(f"{self._label}: {error.what}", fix=error.fix) from None

    @property
    def _label(self) -> str:
        return f"The template `{self.name}`"

    def _checked(self, variables: Mapping[str, Any] | None) -> dict[str, Any]:
        given = values.json_mapping("variables", variables or {})
        if len(json.dumps(given, ensure_ascii=False).encode()) > MAX_VARIABLES_BYTES:
            raise TemplateError(
                f"The variables have over {MAX_VARIABLES_BYTES:,} bytes",
                fix="Give only what the texts show",
            )
        for name in given:
            if name not in self.variables:
                near = nearest(name[:80], self.variables)
                known = f"It knows {', '.join(self.variables)}" if self.variables else "It has none"
                raise TemplateError(
                    f"{self._label} has no variable {name[:80]!r}",
                    fix=f"Did you mean `{near}`?" if near else known,
                )
        return given

    def _renderer(self, given: Mapping[str, Any]) -> Change:
        rendering = _rendering()

        def change(field: str, where: str, text: str) -> Any:
            try:
                shown = rendering.compiled(text, is_url=field in _URLS).render(given)
            except rendering.TextRefusedError as refusal:
                raise self._failed(where, refusal, given) from None
            is_number = field in _NUMBERS and shown.isdecimal() and len(shown) <= _MAX_NUMBER_DIGITS
            return int(shown) if is_number else shown

        return change

    def _failed(self, where: str, refusal: Any, given: Mapping[str, Any]) -> TemplateError:
        missing = refusal.missing
        if missing in self.variables and missing not in given:
            return TemplateError(
                f"{self._label} needs the variable `{missing}`, for its `{where}`",
                fix="Give it, or say with the filter `default` what stands there without it",
            )
        words = f"no value has {missing!r}" if missing else str(refusal)
        return TemplateError(
            f"{self._label} cannot be rendered, in its `{where}`: {words}",
            fix="Look at the expressions there, and at the values that were given",
        )

    def _with_own(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields with the default language added to the languages."""
        languages = fields.get("languages")
        # With `en-GB` as default next to `en`, `en-GB` would fall back to `en`.
        if not languages or speech.choose(self.default_language, languages) is None:
            return fields
        own = {name: fields[name] for name in speech.MEMBERS if name in fields}
        return {**fields, "languages": {**languages, self.default_language: own}}

    def _check(self) -> None:
        """Raise TemplateError when no values could make a valid notification."""
        sample = _changed(self.notification, _sample)
        try:
            Notification.read(sample)
        except NotificationError as error:
            raise TemplateError(f"{self._label}: {error.what}", fix=error.fix) from None


class TemplateUse(NamedTuple):
    """The use of a template in a send: its name, variables, and overriding fields."""

    template: str
    variables: Mapping[str, Any]
    overrides: Mapping[str, Any]


def read_template_use(value: object) -> TemplateUse | None:
    """Parse the use of a template; None for a notification without one.

    Raises TemplateError for a ``template`` or ``variables`` of a wrong type.
    """
    if not isinstance(value, Mapping) or "template" not in value:
        if isinstance(value, Mapping) and "variables" in value:
            raise TemplateError(
                "There are `variables` and no `template`", fix="Name the `template` beside them"
            )
        return None
    variables = value.get("variables")
    if variables is not None and not isinstance(variables, Mapping):
        raise TemplateError(
            f"The `variables` are {values.shown(variables)}",
            fix='They must be a mapping, such as {"name": "Ada"}',
        )
    overrides = {key: field for key, field in value.items() if key not in ("template", "variables")}
    return TemplateUse(_name(value["template"]), variables or {}, overrides)


def _rendering() -> ModuleType:
    try:
        from . import rendering  # noqa: PLC0415 - of the extra `server`
    except ModuleNotFoundError as error:
        if error.name != "jinja2":
            raise
        raise TemplateError(
            "Templates need the package jinja2, which is not installed",
            fix=install("server"),
        ) from None
    return rendering


def _members(value: object, name: str | None) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TemplateError(
            f"The template is {values.shown(value)}",
            fix='It must be a mapping, such as {"notification": {"title": "Hello {{ name }}"}}',
        )
    given: dict[str, Any] = {} if name is None else {"name": name}
    for key, member in value.items():
        known = _SPELLINGS.get(key) if isinstance(key, str) else None
        if known is None:
            near = nearest(str(key)[:80], _SPELLINGS)
            raise TemplateError(
                f"Unknown key in the template: {values.shown(key)}",
                fix=f"Did you mean `{near}`?"
                if near
                else "Known are name, default_language, notification and variables",
            )
        if known == "name" and name not in (None, member):
            raise TemplateError(
                f"The template says that its name is {values.shown(member)}, and not {name!r}",
                fix="Leave the name out, or write the same one",
            )
        given[known] = member
    return given


def is_name(text: str) -> bool:
    """Return whether a template may have this name."""
    return _NAME.fullmatch(text) is not None


def _name(value: object) -> str:
    if not isinstance(value, str) or not is_name(value):
        raise TemplateError(
            f"The name of a template is {values.shown(value)}",
            fix="Use small letters, digits, hyphens and underscores, such as `order-shipped`",
        )
    return value


def _notification(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TemplateError(
            f"The template's `notification` is {values.shown(value)}",
            fix='It must be a mapping, such as {"title": "Hello {{ name }}"}',
        )
    try:
        # A JSON copy, protected from later changes by the caller.
        fields = values.json_mapping("notification", fields_of(value, "in the template"))
        if "languages" in fields:
            languages = speech.read_languages("languages", fields.pop("languages"))
            fields.update({} if languages is None else {"languages": languages})
    except TemplateError:
        raise
    except NotificationError as error:
        raise TemplateError(error.what, fix=error.fix) from None
    return fields


def _own_first(fields: dict[str, Any], default: str) -> dict[str, Any]:
    """Return the fields with the default language's texts as the notification's own."""
    languages = dict(fields.pop("languages", {}))
    for name, text in languages.pop(default, {}).items():
        if fields.setdefault(name, text) != text:
            raise TemplateError(
                f"`{name}` and `languages.{default}.{name}` differ, and {default} is the default",
                fix="Keep one of them",
            )
    return {**fields, "languages": languages} if languages else fields


def _names_in(notification: Mapping[str, Any]) -> frozenset[str]:
    rendering = _rendering()
    found: set[str] = set()

    def look(field: str, where: str, text: str) -> str:
        try:
            found.update(rendering.compiled(text, is_url=field in _URLS).names)
        except rendering.TextRefusedError as refusal:
            raise TemplateError(
                f"`{where}` cannot be a template's text: {refusal}",
                fix="docs/notification.md says what a template may hold",
            ) from None
        return text

    _changed(notification, look)
    return frozenset(found)


def _declared(value: object, used: Iterable[str]) -> tuple[str, ...]:
    if value is None:
        return tuple(sorted(used))
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise TemplateError(
            f"The template's `variables` are {values.shown(value)}",
            fix='Write a list of names, such as ["name"], or leave it out',
        )
    rendering = _rendering()
    for name in value:
        try:
            rendering.check_name(name)
        except rendering.TextRefusedError as refusal:
            raise TemplateError(str(refusal), fix="Use letters, digits and underscores") from None
    for name in sorted(used):
        if name not in value:
            near = nearest(name, value)
            raise TemplateError(
                f"The texts use `{name}`, which is not among the `variables`",
                fix=f"Did you mean `{near}`?" if near else "Add it, or leave the list out",
            )
    return tuple(dict.fromkeys(value))


def _changed(fields: Mapping[str, Any], change: Change) -> dict[str, Any]:
    """Return the fields with every text mapped; keys and other values are unchanged."""
    changed = {
        name: _walk(name, name, value, change)
        for name, value in fields.items()
        if name != "languages"
    }
    if "languages" in fields:
        changed["languages"] = {
            tag: {
                name: _walk(name, f"languages.{tag}.{name}", value, change)
                for name, value in members.items()
            }
            for tag, members in fields["languages"].items()
        }
    return changed


def _walk(field: str, where: str, value: Any, change: Change) -> Any:
    if isinstance(value, str):
        return change(field, where, value)
    if isinstance(value, list):
        return [_walk(field, f"{where}[{n}]", item, change) for n, item in enumerate(value)]
    if isinstance(value, dict):
        return {key: _walk(field, f"{where}.{key}", item, change) for key, item in value.items()}
    return value


def _sample(field: str, where: str, text: str) -> Any:
    if not ("{{" in text or "{%" in text):
        return text
    return sample_of(where) or _SAMPLES.get(field, "0")


def _overlaid(fields: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with overrides applied in every language."""
    if "languages" in overrides:
        raise TemplateError(
            "`languages` is given beside a template",
            fix="Give fields that are to win in every language, or write the notification in full",
        )
    merged = {**fields, **overrides}
    if "user_info" in fields and isinstance(overrides.get("user_info"), Mapping):
        merged["user_info"] = {**fields["user_info"], **overrides["user_info"]}
    for name, other in (("ttl", "expires_at"), ("expires_at", "ttl")):
        if name in overrides and other not in overrides:
            merged.pop(other, None)
    languages = {tag: dict(members) for tag, members in fields.get("languages", {}).items()}
    gone = speech.replaced_by(overrides)
    for name in gone - overrides.keys():
        merged.pop(name, None)
    for members in languages.values():
        for name in gone & members.keys():
            del members[name]
    return {**merged, "languages": languages} if languages else merged
