"""The interface of a push service: pushes in, outcomes out.

A gateway knows neither queue nor database. It takes :class:`Push` values, which share one
:class:`Message`, and reports exactly one :data:`Outcome` for each. Outcomes are values, never
exceptions: one push must not disturb the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from .apns.protocol import Reaction


@dataclass(frozen=True, slots=True)
class Message:
    """The content of a push, the same for every device: ready bytes and headers, validated.

    ``headers`` are the shared pairs, with lower-case names. ``expires_at`` is in UNIX seconds, 0
    for one attempt and no storage, or None when the push service's own policy applies.
    """

    payload: bytes
    headers: tuple[tuple[str, str], ...]
    topic: str
    push_type: str
    priority: int
    collapse_id: str | None = None
    expires_at: int | None = None


class Push(NamedTuple):
    """One message to one device, as a gateway needs it.

    ``key`` is the caller's own handle (the delivery's number), handed back untouched. ``address``
    is the device token or simulator id, ``environment`` where it is valid, ``apns_id`` the id to
    send under. ``collapse_id`` is set for a repeat whose first outcome is unknown, so that the
    phone shows it once; the message's own collapse id wins.
    """

    key: int
    address: str
    environment: str
    apns_id: str
    message: Message
    collapse_id: str | None = None


class Accepted(NamedTuple):
    """The push service accepted it; it is not yet displayed.

    ``unique_id`` is Apple's key for its delivery log (development hosts only). A named tuple,
    since almost every push creates one.
    """

    apns_id: str
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
Report = Callable[[Push, Outcome], None]
"""Called once for each push, in the event loop, as its outcome becomes known."""


class Gateway(Protocol):
    """A push service, or one route to it."""

    async def send(self, batch: Sequence[Push], report: Report) -> None:
        """Send every push of the batch and report each outcome as it arrives.

        Returns when each was reported exactly once. Several calls may run at the same time; they
        share connections. Raises :class:`~handbell.errors.CredentialError` before anything is sent
        when the credential cannot be used; a single push's failure is never raised.
        """

    def require(self, may_begin: Callable[[], bool]) -> None:
        """Begin pushes only while ``may_begin`` returns true; the others wait.

        It is called as pushes go on the wire, once per round.
        """

    def withdraw(self, is_meant: Callable[[Push], bool]) -> None:
        """Withdraw pushes: those not on the wire are reported as :class:`Withdrawn` at once.

        Those on the wire are reported as they end, and are not retried by the gateway.
        """

    async def close(self) -> None:
        """Finish pushes in flight, then close the connections."""
