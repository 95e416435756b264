"""What a sender gets back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from handbell.diagnostic import Diagnostic
from handbell.errors import DeliveryError

from .deliveries import Deliveries, DeliverySource
from .delivery import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """The answer to one send, as things stood when it was given.

    ``success`` is true when at least one device was reached and ``errors`` is empty: something went
    out, and nothing failed. A send of which all is stored and waits (for ``send_at``, the end of
    quiet hours, the app's rate, a push service that takes nothing) has reached nobody yet: it is no
    success and no error, ``success`` is False, ``errors`` is empty, and ``warnings`` say for each
    device what it waits for. Nothing is to be sent again for it.

    A person without a device, or a token that is gone, is a warning; any other failed delivery is
    an error. Both are texts with parts, see :class:`~handbell.Diagnostic`. ``states`` counts the
    deliveries by state, without the states that none is in; ``total`` counts them all, ``reached``
    those that the push service accepted; of a broadcast that waits for its time there are none yet.
    ``is_running`` says that some of it is still on its way, or due, and goes on by itself: after
    :meth:`~handbell.PushNotification.enqueue`, or where a ``timeout`` was over.
    """

    success: bool
    warnings: tuple[Diagnostic, ...] = ()
    errors: tuple[Diagnostic, ...] = ()
    notification_id: str | None = None
    reached: int = 0
    total: int = 0
    states: Mapping[State, int] = field(default_factory=dict, hash=False)
    is_running: bool = False
    _source: DeliverySource | None = field(default=None, repr=False, compare=False)

    @property
    def deliveries(self) -> Deliveries:
        """Every delivery with its state, reason, id and times, read when it is looked at."""
        return Deliveries(self._source)

    def raise_for_errors(self) -> Self:
        """Return the response, or raise :class:`~handbell.errors.DeliveryError` for its errors.

        Warnings raise nothing: whether anybody was reached is ``success``.
        """
        if self.errors:
            raise DeliveryError(self.errors, notification_id=self.notification_id)
        return self
