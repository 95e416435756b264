"""A ledger on a database of its own, with a clock that the test moves."""

import time
from typing import Final

from sqlalchemy import func, insert, select

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.accept.send_store import SendStore
from handbell.delivery.accept.store import Acceptance, Order
from handbell.delivery.delivery import Target
from handbell.delivery.ledger.retention import Pruner
from handbell.delivery.ledger.store import Ledger
from handbell.delivery.queue.sql_queue import Queue
from handbell.delivery.queue.workers import Workers
from handbell.registry.store import Registry
from handbell.storage.database import Database
from handbell.storage.tables import apps, deliveries, idempotency, notifications

DAY: Final = 24 * 3600


class Book:
    """A ledger on a database of its own, and the clock that it goes by."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.at = time.time()
        self.app = self._add_app()
        self.ledger = Ledger(database, now=self.now)
        self.sends = SendStore(database, now=self.now)
        self.queue = Queue(database, now=self.now)
        self.known_workers = Workers(database, now=self.now)
        self.registry = Registry(database, now=self.now)

    def now(self) -> float:
        """Return the time that the test has set."""
        return self.at

    def pruner(self, keep_days: float = 90) -> Pruner:
        """Return what forgets."""
        return Pruner(self.database, keep_days=keep_days, now=self.now)

    def accept(self, number: int, *, key: str | None = None) -> Acceptance:
        """Store a notification to so many device tokens."""
        targets = [
            Target(gateway="apns", address=f"{one:064x}", environment="production")
            for one in range(number)
        ]
        order = Order(
            app=self.app,
            content=Notification(title="Hello"),
            recipients=Recipients.read([target.address for target in targets]).to_dict(),
            idempotency_key=key,
        )
        return self.sends.accept(order, targets)

    def end(self, acceptance: Acceptance) -> None:
        """Let every delivery of a notification end now."""
        self.ledger.begin_cancel(self.app, acceptance.id)

    def left(self) -> tuple[int, int, int]:
        """Return how many notifications, deliveries and idempotency keys there are."""
        with self.database.read() as connection:
            tables = (notifications, deliveries, idempotency)
            counts = [
                connection.scalar(select(func.count()).select_from(table)) for table in tables
            ]
        return counts[0] or 0, counts[1] or 0, counts[2] or 0

    def _add_app(self) -> App:
        values = {"public_id": "TEAM123456.com.sample.myapp", "name": "My App"}
        with self.database.write() as connection:
            added = connection.execute(
                insert(apps).values(**values, created_at=0).returning(apps.c.id)
            )
            return App(team_id="TEAM123456", bundle_id="com.sample.myapp", row=added.scalar_one())
