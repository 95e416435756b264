"""The audit trail: who changed what, and when."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import RowMapping, insert, select

from handbell.storage.database import Database
from handbell.storage.tables import audit as audit_table

MOST_ENTRIES = 1000
"""The maximum number of entries per call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """An audited action; ``at`` is in UNIX milliseconds, ``app`` the app id in full."""

    id: int
    at: int
    actor: str
    action: str
    subject: str
    app: str | None
    detail: str | None


# Within the class, `list` is its method.
_Entries = list[AuditEntry]


class AuditTrail:
    """The log of changes, in order. ``now`` returns UNIX seconds.

    It never contains a secret: callers pass names, ids and prefixes.
    """

    def __init__(self, database: Database, *, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now

    def note(
        self,
        actor: str,
        action: str,
        subject: str,
        app: str | None = None,
        detail: str | None = None,
    ) -> None:
        """Record that ``actor`` did ``action``, a stable dotted name, to ``subject``."""
        values = {
            "at": int(self._now() * 1000),
            "actor": actor,
            "action": action,
            "subject": subject,
            "app": app,
            "detail": detail,
        }
        with self._database.write() as connection:
            connection.execute(insert(audit_table).values(values))

    def list(
        self,
        *,
        limit: int = 100,
        before: int | None = None,
        app: str | None = None,
        action: str | None = None,
        actor: str | None = None,
    ) -> _Entries:
        """Return entries, the newest first; ``before`` is the last id of the previous page.

        ``action`` is a whole name, or its first part with the dot: ``session.``.
        """
        table = audit_table
        statement = select(table).order_by(table.c.id.desc()).limit(min(limit, MOST_ENTRIES))
        if before is not None:
            statement = statement.where(table.c.id < before)
        if app is not None:
            statement = statement.where(table.c.app == app)
        if actor is not None:
            statement = statement.where(table.c.actor == actor)
        if action is not None and action.endswith("."):
            statement = statement.where(table.c.action.startswith(action, autoescape=True))
        elif action is not None:
            statement = statement.where(table.c.action == action)
        with self._database.read() as connection:
            return [_entry(row) for row in connection.execute(statement).mappings()]


def _entry(row: RowMapping) -> AuditEntry:
    return AuditEntry(
        id=row["id"],
        at=row["at"],
        actor=row["actor"],
        action=row["action"],
        subject=row["subject"],
        app=row["app"],
        detail=row["detail"],
    )
