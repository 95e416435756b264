"""Jumps of the wall clock: intervals are moved along, times of day are not.

A queue is a table of instants by the wall clock. Some are times of day that people chose. The
others stand for an interval: the pause before a retry, a lease, work that was due when it
was accepted. If the clock were set back by an hour, those would wait an hour longer.
"""

from collections.abc import Callable
from time import time
from typing import Any, Final

from sqlalchemy import Column, Connection, delete, insert, or_, select, update

from handbell.clocks import MachineClock
from handbell.delivery.policy.parts import TIMES_OF_DAY
from handbell.storage.database import Database
from handbell.storage.tables import circuits, deliveries, proofs, shards, wall_clock, webhook_calls

JUMP_SECONDS: Final = 2.0
"""The smallest jump that is handled; time servers make smaller corrections."""

_DRIFT_SECONDS: Final = 0.2


class ClockJumps:
    """Detects that the wall clock was set, once for all processes of a machine.

    ``now`` gives UNIX seconds by the wall clock, ``machine`` is the monotonic one. With a
    database server nothing is moved: machines whose clocks differ would undo each other's work.
    """

    def __init__(
        self, database: Database, machine: MachineClock, *, now: Callable[[], float] = time
    ) -> None:
        self._database = database
        self._machine = machine
        self._now = now
        self._seen = self._ahead()

    def follow(self) -> float:
        """Move stored intervals by the jump since the last call of any process.

        Returns the jump in seconds since this instance's last call: nearly always 0. Instants in
        memory are the caller's to move.
        """
        former, self._seen = self._seen, self._ahead()
        if self._database.path is not None:
            self._follow()
        jump = self._seen - former
        return jump / 1000 if abs(jump) >= JUMP_SECONDS * 1000 else 0.0

    def _follow(self) -> None:
        with self._database.read() as connection:
            if not self._is_noteworthy(self._jump(connection)):
                return
        with self._database.write() as connection:
            jump = self._jump(connection)
            if self._is_noteworthy(jump):
                self._note(connection)
            if jump is not None and abs(jump) >= JUMP_SECONDS * 1000:
                _move(connection, jump)

    def _is_noteworthy(self, jump: int | None) -> bool:
        return jump is None or abs(jump) >= _DRIFT_SECONDS * 1000

    def _ahead(self) -> int:
        """Return the wall clock minus the machine's clock, in milliseconds."""
        return int((self._now() - self._machine.seconds()) * 1000)

    def _jump(self, connection: Connection) -> int | None:
        """Return the jump of the clock in milliseconds, None if another process has handled it."""
        known = select(wall_clock.c.ahead).where(wall_clock.c.boot == self._machine.boot)
        ahead = connection.scalar(known)
        return None if ahead is None else self._ahead() - ahead

    def _note(self, connection: Connection) -> None:
        connection.execute(delete(wall_clock))
        values = {"boot": self._machine.boot, "ahead": self._ahead()}
        connection.execute(insert(wall_clock).values(values))


def _move(connection: Connection, jump: int) -> None:
    is_interval = or_(
        deliveries.c.state == "queued",
        deliveries.c.reason.is_(None),
        deliveries.c.reason.not_in(TIMES_OF_DAY),
    )
    is_rest = or_(shards.c.reason.is_(None), shards.c.reason.not_in(TIMES_OF_DAY))
    for statement, columns in (
        (
            update(deliveries).where(deliveries.c.due_at.is_not(None), is_interval),
            (deliveries.c.due_at, deliveries.c.begun_at),
        ),
        (update(shards).where(is_rest), (shards.c.due_at,)),
        (
            update(webhook_calls).where(webhook_calls.c.due_at.is_not(None)),
            (webhook_calls.c.due_at,),
        ),
        (update(proofs).where(proofs.c.mail_due_at.is_not(None)), (proofs.c.mail_due_at,)),
        (update(circuits).where(circuits.c.probe_at.is_not(None)), (circuits.c.probe_at,)),
    ):
        connection.execute(statement.values(_moved(columns, jump)))


def _moved(columns: tuple[Column[Any], ...], jump: int) -> dict[str, Any]:
    return {column.name: column + jump for column in columns}
