"""What every service does with a push that it has judged: record, count, deliver to the phone."""

from collections.abc import Callable

from .device_store import DeviceStore
from .history import History, PushCounts, ReceivedRequest
from .hooks import call
from .phone import Arrival, Card, Phone
from .wire.exchange import Request


class Reception:
    """Records requests and delivers accepted pushes to the phones.

    ``total`` counts the pushes that were accepted; ``accepted`` and ``shown`` count them by token
    and push id. ``on_displayed`` is called for each shown card; ``now`` is the twin's clock.
    """

    def __init__(
        self,
        devices: DeviceStore,
        history: History,
        *,
        on_displayed: Callable[[Phone, Card], object],
        now: Callable[[], float],
    ) -> None:
        self.total = 0
        self.accepted, self.shown = PushCounts(), PushCounts()
        self.devices = devices
        self.now = now
        self._history = history
        self._on_displayed = on_displayed

    def accept(self, token: str, push_id: str) -> None:
        """Count a push that was accepted."""
        self.total += 1
        self.accepted.add(token, push_id)

    def deliver(self, former: Phone, push_id: str, arrival: Arrival) -> None:
        """Store the phone as the push left it, and report a card that is shown."""
        if arrival.phone is not former:
            self.devices.put(arrival.phone)
            self._history.publish("phone", arrival.phone)
        if arrival.card is not None:
            self.shown.add(former.token, push_id)
            call(self._on_displayed, arrival.phone, arrival.card)

    def lose(self, token: str, at: int) -> None:
        """Remove the app from the phone of a token, as of ``at`` (UNIX milliseconds)."""
        phone = self.devices.lose(token, at)
        if phone is not None:
            self._history.publish("phone", phone)

    def record(
        self,
        request: Request,
        side: str,
        *,
        status: int | None,
        verdict: str,
        what: str,
        token: str | None = None,
        reason: str | None = None,
        push_id: str | None = None,
        unique_id: str | None = None,
        fault: str | None = None,
        plain: bytes | None = None,
    ) -> None:
        """Add a request to the history; see :class:`~handbell.twin.history.ReceivedRequest`."""
        received = ReceivedRequest(
            id=self._history.next_id(),
            at=int(self.now() * 1000),
            side=side,
            phone_id=self.devices.id_of_token(token or ""),
            status=status,
            reason=reason,
            push_id=push_id,
            unique_id=unique_id,
            verdict=verdict,
            what=what,
            fault=fault,
            request=request,
            token=token or "",
            plain=plain,
        )
        self._history.add(received)
