"""What a send has to say of those it did not reach: a text, and the same in parts."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Self

NOTES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "NoDevice": "nobody with this name has a device, so there is nowhere to send to",
        "NotListed": "more deliveries were not sent than a response lists one by one",
        "StillRunning": "the time-out ended before everything was sent; sending continues",
        "TextCut": "a text was too long and was cut, as `shorten` allows",
        "TimePassed": "the local time has passed where some recipients are: they get it at once",
    }
)
"""The reasons of diagnostics that are not the reason of a delivery, with their meanings.

A send that was refused whole, one of many, has the code of its error for a reason.
"""


class Diagnostic(str):
    """A warning or an error of a send. As a text it is a sentence or two, to be shown or joined.

    ``recipient`` is whom it is about: a mail address, the address of a device, or None where it is
    the whole send. ``reason`` is a stable word of docs/errors.md, ``fix`` says what to do; each is
    empty where there is nothing to say.
    """

    __slots__ = ("fix", "reason", "recipient")

    recipient: str | None
    reason: str
    fix: str

    def __new__(
        cls, text: str, *, recipient: str | None = None, reason: str = "", fix: str = ""
    ) -> Self:
        """Return the text with its parts."""
        made = super().__new__(cls, text)
        made.recipient, made.reason, made.fix = recipient, reason, str(fix)
        return made

    @classmethod
    def read(cls, text: str) -> "Diagnostic":
        """Return the diagnostic that a text is, or one that is nothing but that text."""
        return text if isinstance(text, Diagnostic) else cls(text)

    def parts(self) -> dict[str, str | None]:
        """Return what it says beside its text: ``recipient``, ``reason`` and ``fix``."""
        return {"recipient": self.recipient, "reason": self.reason, "fix": self.fix}

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:
        """Return what makes it anew: for copies."""
        return (str(self),), self.parts()
