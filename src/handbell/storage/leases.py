"""Leases of rows: each row is processed by one holder until its lease ends.

A holder that crashes releases nothing; its rows are due again when the lease ends. So the work on
a row must finish before that, or may be done twice.
"""

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, Table, select, update

_MILLISECONDS: Final = 1000


class Leases:
    """The leases of one table, whose rows have an ``id``. Instants are in UNIX milliseconds.

    ``due_at`` is when a row is due, or the end of its lease while it is held; NULL when it is
    done. ``holder`` is the unique name of the holder. A lease lasts ``seconds``.
    """

    def __init__(self, table: Table, due_at: str, holder: str, *, seconds: float) -> None:
        self._table = table
        self._due_at: Column[Any] = table.c[due_at]
        self._holder: Column[Any] = table.c[holder]
        self._milliseconds = int(seconds * _MILLISECONDS)

    def is_due(self, now: int) -> ColumnElement[bool]:
        """Return the condition that a row can be taken."""
        return self._due_at <= now

    def take(
        self, connection: Connection, rows: Collection[int], holder: str, now: int, **values: Any
    ) -> list[int]:
        """Take the rows that are still due, setting further values; return those taken."""
        statement = (
            update(self._table)
            .where(self._table.c.id.in_(rows), self.is_due(now))
            .values(
                {self._due_at: now + self._milliseconds, self._holder: holder},
            )
            .values(values)
            .returning(self._table.c.id)
        )
        return list(connection.execute(statement).scalars())

    def settle(
        self, connection: Connection, row: int, holder: str, due_at: int | None, **values: Any
    ) -> bool:
        """Make a row due at an instant, or done, setting further values.

        Returns False, and changes nothing, if the lease has ended and another holder has the row.
        """
        statement = (
            update(self._table)
            .where(self._table.c.id == row, self._holder == holder)
            .values({self._due_at: due_at})
            .values(values)
        )
        return bool(connection.execute(statement).rowcount)

    def give_back(self, connection: Connection, holder: str, now: int, **values: Any) -> int:
        """Make all rows of a holder due at once; return their number."""
        statement = (
            update(self._table)
            .where(self._holder == holder, self._due_at.is_not(None))
            .values({self._due_at: now})
            .values(values)
        )
        return connection.execute(statement).rowcount

    def next_due(self, connection: Connection) -> int | None:
        """Return when the next row is due or a lease ends; None if all is done."""
        statement = select(self._due_at).where(self._due_at.is_not(None)).order_by(self._due_at)
        return connection.scalar(statement.limit(1))
