"""The sends in the database: stored before anybody hears yes, and found by their keys."""

from collections.abc import Callable, Sequence
from time import time

from sqlalchemy import select

from handbell.apps.app import App
from handbell.delivery.delivery import Target
from handbell.errors import IdempotencyError
from handbell.storage.database import Database
from handbell.storage.tables import idempotency

from .plain import PlainBatch, PlainStored, store_plain
from .store import Acceptance, Draft, Former, Order, read_former, store_drafts


class SendStore:
    """Stores sends; every method is one transaction. ``now`` gives UNIX seconds."""

    def __init__(self, database: Database, *, now: Callable[[], float] = time) -> None:
        self._database = database
        self._now = now

    def accept(
        self, order: Order, targets: Sequence[Target] | None, *, worker: int | None = None
    ) -> Acceptance:
        """Store one send, as :meth:`accept_many` does.

        Raises IdempotencyError when the key was used for something else.
        """
        (accepted,) = self.accept_many([Draft(order=order, targets=targets, worker=worker)])
        if isinstance(accepted, IdempotencyError):
            raise accepted
        return accepted

    def accept_many(self, drafts: Sequence[Draft]) -> list[Acceptance | IdempotencyError]:
        """Store sends in one transaction; once this returns, nothing of them is lost.

        One whose idempotency key was used before gets the first one's answer, or the error that it
        was used for something else; the others are stored even so.
        """
        with self._database.write() as connection:
            return store_drafts(connection, drafts, now=self._milliseconds())

    def accept_plain(self, *batches: PlainBatch) -> list[PlainStored | None]:
        """Store plain sends in one transaction; once this returns, nothing of them is lost.

        None, and nothing, is stored of a batch one of whose idempotency keys was used before.
        """
        with self._database.quick_write() as connection:
            now = self._milliseconds()
            return [store_plain(connection, batch, now=now) for batch in batches]

    def former(self, orders: Sequence[Order]) -> list[Former]:
        """Return for each order what its idempotency key says; nothing is stored."""
        if not any(order.idempotency_key for order in orders):
            return [None] * len(orders)
        with self._database.read() as connection:
            return read_former(connection, orders)

    def knows_key(self, app: App, key: str) -> bool:
        """Return whether something was accepted under an idempotency key of the app."""
        wanted = select(idempotency.c.key).where(
            idempotency.c.app == app.id, idempotency.c.key == key
        )
        with self._database.read() as connection:
            return connection.execute(wanted).first() is not None

    def _milliseconds(self) -> int:
        return int(self._now() * 1000)
