"""The interface of a push service: pushes in, outcomes out.

A gateway knows neither queue nor database. It takes :class:`Push` values, which share one
:class:`Message`, and reports exactly one :data:`~.outcomes.Outcome` for each. Outcomes are values,
never exceptions: one push must not disturb the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from .outcomes import Outcome


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
    is the device's token, its endpoint or a simulator id, ``environment`` where it is valid,
    ``id`` the id to send under: the delivery's, a UUID. ``collapse_id`` is set for a repeat whose
    first outcome is unknown, so that the phone shows it once; the message's own collapse id wins.
    ``details`` is JSON of the further parts of an address, where it has some.
    """

    key: int
    address: str
    environment: str
    id: str
    message: Message
    collapse_id: str | None = None
    details: str | None = None


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
