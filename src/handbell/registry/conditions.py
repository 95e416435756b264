"""Conditions for sessions that match the predicates of their indexes, and their order."""

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, case, literal_column

from handbell.services.forms import VARIANTS, Variant
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


def _by_variant(value: Callable[[str, Variant], str], otherwise: ColumnElement[Any]) -> Any:
    cases: list[tuple[ColumnElement[bool], ColumnElement[str]]] = [
        (_is_of(one), _text(value(name, one))) for name, one in VARIANTS.items()
    ]
    return case(*cases, else_=otherwise)


def _is_of(variant: Variant) -> ColumnElement[bool]:
    platforms = map(_text, variant.platforms)
    return and_(
        sessions.c.service == _text(variant.service), sessions.c.platform.in_(list(platforms))
    )


def _text(ours: str) -> ColumnElement[str]:
    # Queries that are compiled once have no place for values of their own.
    return literal_column(f"'{ours}'")


FORM: Final[ColumnElement[str]] = _by_variant(lambda name, _: name, sessions.c.service)
"""The form in which a session gets notifications."""

DETAILS: Final[ColumnElement[str | None]] = _by_variant(
    lambda _, one: one.details, sessions.c.address
)
"""What belongs to a session's address beside the token, as a send needs it."""
