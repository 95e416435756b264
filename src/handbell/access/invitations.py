"""Invitations: one-time links for one purpose."""

from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Delete, delete, exists, or_

from handbell.storage.tables import invitations, operators

Purpose = Literal["first", "join", "reset"]

INVITATION_HOURS: Final = 24
"""The validity of an invitation's link."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """A link that creates one operator; ``mail`` is None if its reader chooses the address.

    ``id`` identifies it in lists and grants nothing. ``purpose`` is ``first`` (valid while there
    is no operator), ``join`` (valid while its address is no operator's) or ``reset`` (sets a new
    password of an existing operator): a purpose never changes. Instants are in UNIX milliseconds.
    """

    id: str
    mail: str | None
    purpose: Purpose
    created_at: int
    expires_at: int

    @property
    def is_reset(self) -> bool:
        """Return whether it sets a new password of an existing operator."""
        return self.purpose == "reset"


def serves(now: int) -> Any:
    """Return the condition that an invitation is open and its purpose unfulfilled."""
    is_theirs = exists().where(operators.c.mail == invitations.c.mail)
    purpose = invitations.c.purpose
    still = or_(
        (purpose == "reset") & is_theirs,
        (purpose == "join") & ~is_theirs,
        (purpose == "first") & ~exists().where(operators.c.id.is_not(None)),
    )
    return invitations.c.used_at.is_(None) & (invitations.c.expires_at > now) & still


def resets_of(mail: str) -> Delete:
    """Return the change that revokes an operator's password links."""
    is_reset = (invitations.c.purpose == "reset") & invitations.c.used_at.is_(None)
    return delete(invitations).where(invitations.c.mail == mail, is_reset)


def read_invitation(row: Any) -> Invitation:
    """Return the invitation of a row."""
    return Invitation(
        id=row.digest,
        mail=row.mail,
        purpose=row.purpose,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
