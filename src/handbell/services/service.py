"""What Handbell must know about a push service: pure facts, one value per service."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from handbell._back_off import BackOff

from .address import Address
from .reactions import Reaction, Reason

DEVELOPMENT: Final = "development"


class ReadAddress(Protocol):
    """Check an address that a device sent."""

    def __call__(self, token: str, details: Mapping[str, str] | None = None, /) -> Address:
        """Return it in its canonical form, or raise :class:`~handbell.errors.RegistryError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushService:
    """A push service.

    ``name`` is what is stored and spoken by the API, ``title`` what people read, ``vendor`` whose
    it is. ``platforms`` are those whose sessions it serves unless they name another service.
    ``environments`` are where its addresses live.

    ``reasons`` are those that it refuses pushes with; those in ``token_reasons`` speak about an
    address, from a service that accepts the credential. ``fixes`` tell what to do, ``back_off``
    after which delays it is asked again, by reaction; ``back_off_by_reason`` comes before these.
    ``push_types`` are those that it can carry, of all that a notification can have.

    ``origin_of`` gives the server that an address names, where addresses do: pushes to one server
    go together, and what it refuses stops nothing elsewhere. ``accepted_status`` is the HTTP status
    with which it accepts a push. ``ramp_seconds`` is how long traffic has to take to rise from
    nothing to ``peak_per_second``; 0 where it may begin at once. ``least_seconds`` is the shortest
    delay before a push is sent again, where no other is named. ``device`` is what people call a
    device that it reaches, and ``unseen`` what to look at on one that does not show what was
    accepted for it. ``client`` is the package with its client and its composing.
    """

    name: str
    title: str
    vendor: str
    platforms: tuple[str, ...]
    environments: tuple[str, ...]
    reasons: Mapping[str, Reason]
    token_reasons: frozenset[str]
    fixes: Mapping[Reaction, str]
    back_off: Mapping[Reaction, BackOff]
    back_off_by_reason: Mapping[str, BackOff] = field(default_factory=dict)
    max_payload_bytes: int
    push_types: frozenset[str]
    read_address: ReadAddress
    origin_of: Callable[[str], str] | None = None
    ramp_seconds: float = 0.0
    accepted_status: int = 200
    peak_per_second: int = 0
    least_seconds: float = 0.0
    device: str = "phone"
    unseen: str = "is it on and online, and may the app notify?"
    client: str = ""

    def __post_init__(self) -> None:
        if not self.client:
            object.__setattr__(self, "client", f"handbell.gateways.{self.name}")

    @property
    def has_environments(self) -> bool:
        """Whether an address may live in one of two environments of the service."""
        return DEVELOPMENT in self.environments

    def fix(self, reason: Reason) -> str:
        """Return what to do about a refusal with this reason."""
        return reason.fix or self.fixes.get(reason.reaction, "")
