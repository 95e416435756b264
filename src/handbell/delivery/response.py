"""What a sender gets back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .delivery import Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """The answer to one send.

    ``success`` is true when at least one device was reached and ``errors`` is empty: something went
    out, and nothing failed. A send of which all is stored and waits (for ``send_at``, the end of
    quiet hours, the app's rate, a push service that takes nothing) has reached nobody yet: it is no
    success and no error, ``success`` is False, ``errors`` is empty, and ``warnings`` say for each
    device what it waits for. Nothing is to be sent again for it.

    A person without a device, or a token that is gone, is a warning; any other failed delivery is
    an error. ``reached`` and ``total`` count deliveries; of a broadcast that waits for its time
    there are none yet. ``deliveries`` are read from the ledger when asked for, so a broadcast to
    many costs nothing here.
    """

    success: bool
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    notification_id: str | None = None
    reached: int = 0
    total: int = 0
    _load: Callable[[], Sequence[Delivery]] = field(default=tuple, repr=False, compare=False)

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """Every delivery with its state, reason, apns-id and times."""
        return tuple(self._load())
