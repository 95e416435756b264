"""Rows that somebody is to do something with, each in one pair of hands until its lease ends.

Whoever crashes gives nothing back; what they had is due again when the lease is over. So what is
done with a row has to end before, or may be done twice.
"""

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, Table, select, update

_MILLISECONDS: Final = 1000


class Leases:
    """The leases of one table, whose rows have an ``id``. Instants are in UNIX milliseconds.

    ``due_at`` is when a row is due; while somebody has it, when the lease ends; NULL when it is
    over. ``holder`` is who has it, by a name that nobody else takes. A lease is for ``seconds``.
    """

    def __init__(self, table: Table, due_at: str, holder: str, *, seconds: float) -> None:
        self._table = table
        self._due_at: Column[Any] = table.c[due_at]
        self._holder: Column[Any] = table.c[holder]
        self._milliseconds = int(seconds * _MILLISECONDS)

    def is_due(self, now: int) -> ColumnElement[bool]:
        """Return the condition that a row may be taken."""
        return self._due_at <= now

    def take(
        self, connection: Connection, rows: Collection[int], holder: str, now: int, **values: Any
    ) -> list[int]:
        """Take those of the rows that are still due, with more values set; return which."""
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
        """Have a row be due at an instant, or no more, with more values set.

        Returns False, and changes nothing, where the lease is over and somebody else has taken it.
        """
        statement = (
            update(self._table)
            .where(self._table.c.id == row, self._holder == holder)
            .values({self._due_at: due_at})
            .values(values)
        )
        return bool(connection.execute(statement).rowcount)

    def give_back(self, connection: Connection, holder: str, now: int, **values: Any) -> int:
        """Have all that somebody has be due at once; return how many rows that were."""
        statement = (
            update(self._table)
            .where(self._holder == holder, self._due_at.is_not(None))
            .values({self._due_at: now})
            .values(values)
        )
        return connection.execute(statement).rowcount

    def next_due(self, connection: Connection) -> int | None:
        """Return when the first row is due, or a lease ends; None when there is nothing to do."""
        statement = select(self._due_at).where(self._due_at.is_not(None)).order_by(self._due_at)
        return connection.scalar(statement.limit(1))
