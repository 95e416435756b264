"""Invitations: links that serve once, and only for what they were made for."""

from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Delete, delete, exists, or_

from handbell.storage.tables import invitations, operators

Purpose = Literal["first", "join", "reset"]

INVITATION_HOURS: Final = 24
"""For how long the link of an invitation works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """A link that makes one operator; ``mail`` is None where its reader names the address.

    ``id`` names it in lists and opens nothing. ``purpose`` is ``first`` (serves while there is no
    operator), ``join`` (serves while its address is no operator's) or ``reset`` (sets another
    password of an operator who is there): one never becomes another. Instants are in UNIX
    milliseconds.
    """

    id: str
    mail: str | None
    purpose: Purpose
    created_at: int
    expires_at: int

    @property
    def is_reset(self) -> bool:
        """Whether it sets another password of somebody who is an operator."""
        return self.purpose == "reset"


def serves(now: int) -> Any:
    """Return the condition that an invitation is open, and what it is for not yet come to pass."""
    is_theirs = exists().where(operators.c.mail == invitations.c.mail)
    purpose = invitations.c.purpose
    still = or_(
        (purpose == "reset") & is_theirs,
        (purpose == "join") & ~is_theirs,
        (purpose == "first") & ~exists().where(operators.c.id.is_not(None)),
    )
    return invitations.c.used_at.is_(None) & (invitations.c.expires_at > now) & still


def resets_of(mail: str) -> Delete:
    """Return what makes void the links that would set an operator's password."""
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
