"""Sends as callers write them, read at the border: what, to whom, how."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json

from handbell._text import json_fault, nearest
from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.creation.plain import PlainSend, read_plain
from handbell.creation.recipients import EVERYBODY, Recipients
from handbell.delivery.accept.prepare import LONGEST_KEY, Entry, Options
from handbell.errors import BodyTooLargeError, InvalidRequestError, RequestError

from .lines import Line

MEMBERS: Final = (
    "notification",
    "recipients",
    "send_at",
    "urgency",
    "idempotency_key",
    "is_development",
)
"""What one send may say."""
_PLAIN_MEMBERS: Final = 2

_KINDS: Final[Mapping[str, tuple[type, str]]] = {
    "urgency": (str, "a text"),
    "idempotency_key": (str, "a text"),
    "is_development": (bool, "true or false"),
}

Render = Callable[[App, Mapping[str, Any]], Notification]
"""Makes the notification of one that names a template."""


def read_json(text: bytes, what: str = "The body") -> Any:
    """Return the value of a JSON text. Raises RequestError when it is none."""
    try:
        return from_json(text, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise RequestError(
            f"{what} is not JSON: {json_fault(text, error)}", fix="Send valid JSON in UTF-8"
        ) from None


@dataclass(slots=True, kw_only=True)
class EntryReader:
    """Reads the sends of one request, for one app.

    ``key`` is the idempotency key of the request's header. It stands for the only send of a
    request, and for each of many with the send's number behind it.
    """

    app: App
    key: str | None = None
    render: Render | None = None
    _written: Any = None
    _shown: str = ""
    _notification: Notification | None = None

    def read(self, value: object, number: int | None = None) -> Entry:
        """Return the send that a value describes; ``number`` is its place among many.

        Raises the HandbellError that says what is wrong with it.
        """
        if not isinstance(value, Mapping):
            raise InvalidRequestError(
                "A send is no JSON object",
                fix='Write {"notification": {"title": "Hello"}, "recipients": "user@example.com"}',
            )
        check_members(value, MEMBERS)
        for name in ("notification", "recipients"):
            if value.get(name) is None:
                raise InvalidRequestError(
                    f"A send has no `{name}`",
                    fix="Name a mail address, or `everybody`" if name == "recipients" else "Add it",
                )
        return Entry(
            app=self.app,
            notification=self.notification(value["notification"]),
            recipients=read_recipients(value["recipients"]),
            options=self._options(value, number),
        )

    def read_line(self, line: Line) -> Entry:
        """Return the send of one line of a stream. Raises as :meth:`read` does."""
        if line.text is None:
            raise BodyTooLargeError(
                "The line is longer than a line may be",
                fix="Name fewer recipients in one line, or raise max_body_bytes",
            )
        return self.read(read_json(line.text, "The line"), line.number)

    def notification(self, written: object) -> Notification:
        """Return the notification that a caller wrote, of a template where it names one.

        What equals the one read just before is not read again: many lines often say the same.
        """
        # Equal is not enough: 1, 1.0 and true are.
        if self._notification is not None and (
            written == self._written and repr(written) == self._shown
        ):
            return self._notification
        if self.render is not None and isinstance(written, Mapping) and "template" in written:
            self._notification = self.render(self.app, written)
        else:
            self._notification = Notification.read(written)
        self._written, self._shown = written, repr(written)
        return self._notification

    def _options(self, value: Mapping[str, Any], number: int | None) -> Options:
        given = {name: value[name] for name in _KINDS if value.get(name) is not None}
        for name, member in given.items():
            kind, words = _KINDS[name]
            if not isinstance(member, kind):
                raise InvalidRequestError(f"`{name}` is not {words}", fix=f"Write {words}")
        return Options.read(
            send_at=value.get("send_at"),
            urgency=given.get("urgency"),
            idempotency_key=self._key_of(given.get("idempotency_key"), number),
            is_development=given.get("is_development", False),
        )

    def _key_of(self, own: str | None, number: int | None) -> str | None:
        # An empty one is not left out: it is refused, or its sender would believe in it.
        if number is not None and own is None:
            return None if self.key is None else f"{self.key}:{number}"
        if number is not None:
            return own
        if own is not None and self.key is not None and own != self.key:
            raise InvalidRequestError(
                "The header Idempotency-Key and the member `idempotency_key` differ",
                fix="Send one of them",
            )
        return self.key if own is None else own


def plain_send(value: object, key: str | None = None) -> PlainSend | None:
    """Return the send of a value that says no more than whom, what and its key, and is plain.

    None for all others. ``key`` is the idempotency key of one that names none of its own.
    """
    if type(value) is not dict or len(value) - ("idempotency_key" in value) != _PLAIN_MEMBERS:
        return None
    own = value.get("idempotency_key")
    key = key if own is None else own
    if key is not None and not _is_plain_key(key):
        return None
    return read_plain(value.get("notification"), value.get("recipients"), key)


def _is_plain_key(key: object) -> bool:
    # SQLite ends a text at a zero where it reads it out of JSON.
    return type(key) is str and 0 < len(key) <= LONGEST_KEY and "\0" not in key


def read_recipients(written: object) -> Recipients:
    """Return whom a caller named; the text ``everybody`` stands for all active sessions."""
    return EVERYBODY if written == "everybody" else Recipients.read(written)


def check_members(value: Mapping[Any, Any], known: Collection[str]) -> None:
    """Raise InvalidRequestError for a member that is not known, with the nearest that is."""
    unknown = next((str(name) for name in value if name not in known), None)
    if unknown is None:
        return
    near = nearest(unknown[:80], known)
    raise InvalidRequestError(
        f"Unknown member {unknown[:80]!r}",
        fix=f"Did you mean `{near}`?" if near else f"Known are {', '.join(sorted(known))}",
    )
