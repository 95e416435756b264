"""The end of one push, as its gateway reports it: the same few values for every push service."""

from dataclasses import dataclass
from typing import NamedTuple

from handbell.services.reactions import Reaction


class Accepted(NamedTuple):
    """The push service accepted it; it is not yet displayed.

    ``id`` is the one it was sent under, ``unique_id`` the service's own, for its delivery log,
    where it gives one. A named tuple, since almost every push creates one.
    """

    id: str
    unique_id: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The push service refused it. ``reason`` is the service's own, ``reaction`` what to do."""

    reason: str
    reaction: Reaction
    status: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class DeviceGone:
    """The device has not accepted this app's notifications since ``since`` (UNIX milliseconds)."""

    reason: str
    since: int | None
    status: int = 410


@dataclass(frozen=True, slots=True)
class RetryLater:
    """It was certainly not accepted and may be sent again.

    ``after`` is the wait in seconds that the service asked for (``Retry-After``), or None.
    ``reaction`` tells what the wait concerns; ``status`` is 0 when no answer came.
    """

    reason: str
    reaction: Reaction
    after: float | None = None
    status: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class LostVerdict:
    """The push service refused it, but the reason did not arrive complete: nothing is proven.

    ``reason`` is ``AnswerCut`` where the answer broke off, ``AnswerUnreadable`` where it is not
    one of the push service (a proxy's page, say). The push was not accepted and may be sent again;
    nothing follows for the token, the key or the app. ``status`` is the answer's, 300 to 499;
    ``after`` as in :class:`RetryLater`.
    """

    status: int
    reason: str = "AnswerCut"
    detail: str = ""
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """The request went out and no answer came back: it may or may not have been accepted."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """It was withdrawn by :meth:`Gateway.withdraw` before anything was sent."""


Outcome = Accepted | Refused | DeviceGone | RetryLater | LostVerdict | Unknown | Withdrawn
