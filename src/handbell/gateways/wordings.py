"""A notification composed in all its languages for one push service, within its limits.

A device gets the message of its locale; others get the notification's own text. Where the sender
allows it, a text that is too long is cut between grapheme clusters.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, NamedTuple

from handbell.apps.app import App
from handbell.creation.graphemes import json_bytes, truncated
from handbell.creation.languages import choose
from handbell.creation.notification import Notification
from handbell.diagnostic import Diagnostic
from handbell.errors import NotificationError, PayloadTooLargeError

from .composers import Compose
from .gateway import Message

CUT_IN_TURN: Final = ("body", "subtitle", "title")
"""The fields to shorten, in order; each only if the one before was not enough."""

_MOST_LOCALES: Final = 4096
_Compose = Callable[[Notification], Message]


class Shortening(NamedTuple):
    """What was cut: the field, and the bytes kept of the original length, ellipsis included."""

    field: str
    kept: int
    of: int


class Wording(NamedTuple):
    """A notification in one language, as it is sent. ``language`` is None for its own text."""

    language: str | None
    notification: Notification
    message: Message
    cuts: tuple[Shortening, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """Return sentences about the shortened fields."""
        where = "" if self.language is None else f"languages.{self.language}."
        return [
            Diagnostic(
                f"`{where}{cut.field}` was cut from {cut.of:,} to {cut.kept:,} bytes, to fit.",
                reason="TextCut",
            )
            for cut in self.cuts
        ]


@dataclass(frozen=True, slots=True)
class Wordings:
    """Every wording of one notification."""

    own: Wording
    by_language: Mapping[str, Wording] = field(default_factory=dict)
    _chosen: dict[str | None, Message] = field(default_factory=dict, repr=False, compare=False)

    @property
    def all(self) -> list[Wording]:
        """The notification's own text, then each language."""
        return [self.own, *self.by_language.values()]

    @property
    def warnings(self) -> list[str]:
        """Return sentences about the shortened fields of all languages."""
        return [warning for wording in self.all for warning in wording.warnings]

    def wording_for(self, locale: str | None) -> Wording:
        """Return the wording for a device with this locale."""
        tag = choose(locale, self.by_language)
        return self.own if tag is None else self.by_language[tag]

    def message_for(self, locale: str | None) -> Message:
        """Return the message of :meth:`wording_for`, cached by locale."""
        found = self._chosen.get(locale)
        if found is None:
            if len(self._chosen) >= _MOST_LOCALES:
                self._chosen.clear()
            found = self._chosen[locale] = self.wording_for(locale).message
        return found


def compose_each(
    compose: Compose,
    notification: Notification,
    *,
    app: App,
    now: float,
    notification_id: str = "",
) -> Wordings:
    """Return the message for each language; the further arguments are those of ``compose``.

    Raises what ``compose`` raises; the error names the language where it is not the notification's
    own text. All languages are of one push type.
    """
    composed = partial(compose, app=app, now=now, notification_id=notification_id)
    own = _worded(None, notification.in_language(None), composed)
    if notification.languages is None:
        return Wordings(own)
    others = {tag: _in_language(tag, notification, composed) for tag in notification.languages}
    for tag, wording in others.items():
        if wording.message.push_type != own.message.push_type:
            raise NotificationError(
                f"`languages.{tag}` makes it a notification of the type "
                f"{wording.message.push_type}, and its own text one of {own.message.push_type}",
                fix="Give the notification a `title` or a `body` of its own",
            )
    return Wordings(own, others)


def _in_language(tag: str, notification: Notification, compose: _Compose) -> Wording:
    where = f"In `languages.{tag}`"
    try:
        return _worded(tag, notification.in_language(tag), compose)
    except PayloadTooLargeError as error:
        raise PayloadTooLargeError(
            f"{where}: {error.what}", fix=error.fix, size=error.size, limit=error.limit
        ) from None
    except NotificationError as error:
        raise NotificationError(f"{where}: {error.what}", fix=error.fix) from None


def _worded(language: str | None, notification: Notification, compose: _Compose) -> Wording:
    try:
        return Wording(language, notification, compose(notification))
    except PayloadTooLargeError as error:
        if not notification.shorten:
            raise
        return _cut_to_fit(language, notification, compose, error)


def _cut_to_fit(
    language: str | None,
    notification: Notification,
    compose: _Compose,
    error: PayloadTooLargeError,
) -> Wording:
    cuts: tuple[Shortening, ...] = ()
    for name in CUT_IN_TURN:
        text = getattr(notification, name)
        if text is None:
            continue
        size = json_bytes(text)
        kept = truncated(text, size - (error.size - error.limit))
        changed: dict[str, Any] = {name: kept}
        candidate = replace(notification, **changed)
        more = (*cuts, Shortening(name, json_bytes(kept), size))
        try:
            return Wording(language, candidate, compose(candidate), more)
        except PayloadTooLargeError as still:
            # A text replaced by a localization key is not in the payload, so cutting it gains
            # nothing.
            if still.size < error.size:
                notification, error, cuts = candidate, still, more
    raise error
