"""Validated webhook targets, and the results of calls."""

from typing import Final, NamedTuple, Self

from handbell._text import without_password
from handbell._url_target import Cause, UrlTarget
from handbell.errors import WebhookError

MOST_REASON_CHARACTERS: Final = 300

_LOOKS: Final = "Write it like https://backend.example.com/handbell"
_FIXES: Final = {
    Cause.OWN_HTTP: (
        "Write https://, or set HANDBELL_WEBHOOK_ALLOW_PRIVATE=1 for the process that sends: then "
        "http:// and hosts of your own are called"
    ),
    Cause.PRIVATE: (
        "Name a public host, or set HANDBELL_WEBHOOK_ALLOW_PRIVATE=1 if it is your own"
    ),
    Cause.PLAIN: "Use https",
    Cause.NO_ADDRESS: "Check the host's name",
}


class CallTarget(UrlTarget):
    """A validated target of a webhook call; what is wrong raises ``WebhookError``."""

    __slots__ = ()

    @classmethod
    def refusal(cls, url: str, why: str, cause: Cause) -> WebhookError:
        """Return the error for a URL: ``why`` follows a colon."""
        return WebhookError(
            f"The address {without_password(url)[:200]!r} cannot be called: {why}",
            fix=_FIXES.get(cause, _LOOKS),
        )


class CallResult(NamedTuple):
    """The result of a call: the status of the response, or None with a reason.

    ``retry_after`` is the wait in seconds that the response asks for, or None.
    """

    status: int | None
    reason: str = ""
    retry_after: int | None = None

    @property
    def is_success(self) -> bool:
        """Whether the receiver accepted the call: any 2xx."""
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004

    @classmethod
    def none(cls, reason: str) -> Self:
        """Return the result of a call without a response."""
        return cls(None, reason[:MOST_REASON_CHARACTERS])
