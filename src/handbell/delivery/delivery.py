"""One notification to one session, with its state and reason."""

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

from handbell._text import short_token
from handbell.registry.session import Environment
from handbell.storage.tables import ADDRESSED

from .ids import apns_id

GatewayName = Literal["apns", "fcm", "webpush", "simulator"]
State = Literal[
    "queued", "sending", "held", "sent", "failed", "dead_letter", "expired", "cancelled"
]
STATES: Final[tuple[State, ...]] = get_args(State)
"""The states in the order of a delivery's way."""

FAILED_STATES: Final = ("failed", "dead_letter", "expired")
"""The states of what was given up; what was cancelled is none of them."""

FINAL_STATES: Final = frozenset({"sent", "failed", "dead_letter", "expired", "cancelled"})


class Target(NamedTuple):
    """Where one push is to go: a delivery that has not been stored yet.

    ``session_id`` and ``mail`` are None for a device token or simulator that no session holds.
    ``time_zone`` and ``user_id`` are used by an app's rules, ``locale`` selects the language.
    ``details`` is JSON of what belongs to the address beside it, ``device_id`` the same for the
    sessions of one device with several push services.
    """

    gateway: GatewayName
    address: str
    environment: Environment
    session_id: int | None = None
    mail: str | None = None
    user_id: int | None = None
    time_zone: str | None = None
    locale: str | None = None
    details: str | None = None
    device_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One notification to one session, as stored in the ledger.

    ``number`` identifies it within its notification. Instants are UNIX milliseconds; None
    where something has not happened. ``created_at`` is the notification's, ``sent_at`` is when the
    push service accepted it, which is not yet shown; ``displayed_at`` and ``opened_at`` are what
    the phone reported; ``due_at`` is when a held one goes on. ``status`` is the HTTP status of the
    last answer, ``unique_id`` the push service's own id of it, where it gives one. ``gateway``
    is what it went by, and while it waits, what its session is reached by now. ``address`` is the
    token or the endpoint; empty once the device was removed with its person, or is reached by
    another service.
    """

    number: int
    notification_id: str
    gateway: GatewayName
    address: str
    environment: Environment
    state: State
    mail: str | None = None
    reason: str | None = None
    detail: str | None = None
    status: int | None = None
    attempts: int = 0
    unique_id: str | None = None
    due_at: int | None = None
    created_at: int
    sent_at: int | None = None
    finished_at: int | None = None
    displayed_at: int | None = None
    opened_at: int | None = None

    @property
    def id(self) -> str:
        """Its id, a UUID: it goes to the push service with every attempt, where that takes one."""
        return apns_id(self.notification_id, self.number)

    @property
    def apns_id(self) -> str:
        """The same id by the name of Apple's header."""
        return self.id

    @property
    def session_id(self) -> int | None:
        """Return the session it goes to; None for an address without a session."""
        return self.number if self.number < ADDRESSED else None

    @property
    def is_final(self) -> bool:
        """Return whether its state is final."""
        return self.state in FINAL_STATES

    @property
    def label(self) -> str:
        """Return its recipient for messages: the mail, and the beginning of the token."""
        device = short_token(self.address) or "a device that is not reached there any more"
        return f"{self.mail} ({device})" if self.mail else device
