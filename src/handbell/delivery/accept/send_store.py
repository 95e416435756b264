"""Stores sends, and finds them by idempotency key."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import time

from sqlalchemy import exists, func, select

from handbell.apps.app import App
from handbell.delivery.delivery import Target
from handbell.delivery.policy.parts import NO_ZONE, local_waits, parts_of
from handbell.delivery.policy.schedule import LocalTime
from handbell.errors import IdempotencyError
from handbell.registry.conditions import FORM
from handbell.services.forms import forms_of
from handbell.services.table import SERVICES
from handbell.storage.database import Database
from handbell.storage.signals import Kind
from handbell.storage.tables import OF_OTHER_SERVICES, apps, idempotency, sessions

from .store import (
    Acceptance,
    Draft,
    Former,
    Order,
    leaves_work,
    needs_core,
    read_former,
    store_drafts,
)


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
        """Store sends in one transaction; they are durable once this returns.

        A send whose idempotency key is known gets the first send's answer, or IdempotencyError for
        another content; that does not affect the others.
        """
        drafts = [self._divided(draft) for draft in drafts]
        connect = self._database.write if needs_core(drafts) else self._database.quick_write
        now = self._milliseconds()
        with connect() as connection:
            if any(leaves_work(draft, now) for draft in drafts):
                self._database.signal(Kind.WORK)
            return store_drafts(connection, drafts, now=now)

    def _divided(self, draft: Draft) -> Draft:
        """Return a send at a local time with the app's zone, and to everybody with its parts.

        Others are returned as they are. Who moves or registers before it is stored is of the last
        part.
        """
        app, send_at = draft.order.app, draft.order.send_at
        if not isinstance(send_at, LocalTime):
            return draft
        if draft.targets is not None:
            return replace(draft, default_zone=self._zone_of(app))
        mine = (sessions.c.app_id == app.row, sessions.c.status == "active")
        zone = func.coalesce(sessions.c.time_zone, NO_ZONE)
        with self._database.read() as connection:
            zones = connection.scalars(select(zone).distinct().where(*mine)).all()
        now = self._now()
        waits = local_waits(send_at, zones, self._zone_of(app))
        due = {zone: None if wait and wait.until <= now else wait for zone, wait in waits.items()}
        return replace(draft, parts=parts_of(due, now))

    def _zone_of(self, app: App) -> str | None:
        with self._database.read() as connection:
            return connection.scalar(select(apps.c.time_zone).where(apps.c.id == app.row))

    def other_forms(self, app: App) -> list[str]:
        """Return the forms other than Apple's that an app has sessions of."""
        if app.row is None:
            return []
        mine = (sessions.c.app_id == app.row, OF_OTHER_SERVICES)
        with self._database.read() as connection:
            if not connection.scalar(select(exists().where(*mine))):
                return []
            return [
                form
                for name in SERVICES
                for form in forms_of(name)
                if connection.scalar(select(exists().where(*mine, FORM.in_([form]))))
            ]

    def former(self, orders: Sequence[Order]) -> list[Former]:
        """Return for each order the answer stored under its idempotency key; store nothing."""
        if not any(order.idempotency_key for order in orders):
            return [None] * len(orders)
        with self._database.quick_read() as connection:
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
