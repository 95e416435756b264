"""Conditions for sessions that match the predicates of their indexes, and their order."""

from typing import Final

from sqlalchemy import and_, literal_column

from handbell.storage.tables import sessions

PROVEN: Final = sessions.c.status.in_([literal_column("'active'"), literal_column("'quarantined'")])
"""Must equal the predicate of the index that keeps one owner per token, so that it is used."""

CLAIMED: Final = sessions.c.status == literal_column("'pending'")
"""Must equal the predicate of the index of claims."""

GONE: Final = and_(
    sessions.c.status == literal_column("'closed'"), sessions.c.secret_digest.is_not(None)
)
"""Must equal the predicate of the index of closed sessions that may reopen by their secret."""

NEWEST_FIRST: Final = (sessions.c.registered_at.desc(), sessions.c.id.desc())
