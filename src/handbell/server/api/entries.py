"""Parses the sends of a request."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json

from handbell._mail import is_costly
from handbell._text import json_fault, nearest
from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.creation.recipients import EVERYBODY, Recipients
from handbell.delivery.accept.prepare import Entry, Options
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

_KNOWN: Final = frozenset(MEMBERS)
_LEAST_MEMBERS: Final = 2
_NO_OPTIONS: Final = Options()

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

    def read(self, value: object, number: int | None = None) -> Entry:
        """Return the send that a value describes; ``number`` is its place among many.

        Raises the HandbellError that says what is wrong with it.
        """
        if type(value) is not dict:
            raise InvalidRequestError(
                "A send is no JSON object",
                fix='Write {"notification": {"title": "Hello"}, "recipients": "user@example.com"}',
            )
        if not value.keys() <= _KNOWN:
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
        """Parse a notification, rendered from a template if it names one."""
        if self.render is not None and type(written) is dict and "template" in written:
            return self.render(self.app, written)
        return Notification.read(written)

    def _options(self, value: Mapping[str, Any], number: int | None) -> Options:
        if self.key is None and len(value) == _LEAST_MEMBERS:
            return _NO_OPTIONS
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


def read_recipients(written: object) -> Recipients:
    """Parse recipients; the text ``everybody`` stands for all active sessions."""
    return EVERYBODY if written == "everybody" else Recipients.read(written)


def names_costly(send: object) -> bool:
    """Return whether parsing the recipients of a send may take long."""
    recipients = send.get("recipients") if isinstance(send, Mapping) else None
    return is_costly(recipients if isinstance(recipients, str) else repr(recipients))


def check_members(value: Mapping[Any, Any], known: Collection[str]) -> None:
    """Raise InvalidRequestError for an unknown member, with the nearest known one."""
    unknown = next((str(name) for name in value if name not in known), None)
    if unknown is None:
        return
    near = nearest(unknown[:80], known)
    raise InvalidRequestError(
        f"Unknown member {unknown[:80]!r}",
        fix=f"Did you mean `{near}`?" if near else f"Known are {', '.join(sorted(known))}",
    )
