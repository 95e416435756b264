"""Operators of the console: passwords, invitations and sign-ins.

Tokens of cookies and links are random and stored as SHA-256 only, so a leaked database grants no
access.
"""

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from handbell._mail import fold_mail, read_mail
from handbell.errors import InvitationError, OperatorError, UnknownOperatorError
from handbell.fixes import Action, Fix
from handbell.storage.database import Database
from handbell.storage.tables import invitations, operators, sign_ins

from .invitations import INVITATION_HOURS, Invitation, Purpose, read_invitation, resets_of, serves
from .passwords import Passwords, check_password

LONGEST_MAIL: Final = 320
"""The maximum length of an entered mail address."""

_SECRET_BYTES: Final = 32
# Whether there is an operator, or one of this mail, decides which links serve.
_TURN: Final = "operators"
_HOUR: Final = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """A person who signs in to the console. Instants are in UNIX milliseconds."""

    id: int
    mail: str
    created_at: int
    signed_in_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """A sign-in and its absolute expiry; instants are in UNIX milliseconds."""

    operator: Operator
    created_at: int
    expires_at: int


# Within the class, `list` is its method.
_Operators = list[Operator]
_Invitations = list[Invitation]


class OperatorStore:
    """Stores the operators. ``now`` returns UNIX seconds."""

    def __init__(
        self,
        database: Database,
        *,
        passwords: Passwords | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._passwords = passwords or Passwords()
        self._now = now

    # Operators

    def add(self, mail: str, password: str) -> Operator:
        """Add an operator and return it.

        Raises :class:`~handbell.errors.OperatorError` for an invalid or known mail, and for a weak
        password.
        """
        mail = _mail(mail)
        hashed = self._hashed(password, mail)
        with self._database.write(alone=_TURN) as connection:
            return self._added(connection, mail, hashed)

    def list(self) -> _Operators:
        """Return every operator, sorted by mail."""
        with self._database.read() as connection:
            return [_operator(row) for row in connection.execute(_OPERATORS)]

    def find(self, mail: str) -> Operator:
        """Return an operator. Raises :class:`~handbell.errors.OperatorError` if there is none."""
        with self._database.read() as connection:
            row = connection.execute(_OPERATORS.where(operators.c.mail == fold_mail(mail))).first()
        if row is None:
            raise _unknown(mail)
        return _operator(row)

    def remove(self, mail: str) -> None:
        """Remove an operator; end their sign-ins and revoke their links.

        Raises :class:`~handbell.errors.OperatorError` if there is none.
        """
        folded = fold_mail(mail)
        with self._database.write(alone=_TURN) as connection:
            connection.execute(delete(invitations).where(invitations.c.mail == folded))
            statement = delete(operators).where(operators.c.mail == folded)
            if not connection.execute(statement).rowcount:
                raise _unknown(mail)

    def set_password(self, operator: Operator, password: str) -> None:
        """Set an operator's password and end all of their sign-ins.

        Raises :class:`~handbell.errors.OperatorError` for a weak one.
        """
        hashed = self._hashed(password, operator.mail)
        with self._database.write(alone=_TURN) as connection:
            self._renewed(connection, operator.mail, hashed)

    def check(self, mail: str, password: str) -> Operator | None:
        """Return the operator with this mail and password, or None.

        An unknown mail takes as long. A hash with older parameters is renewed.
        """
        statement = select(operators).where(operators.c.mail == fold_mail(mail[:LONGEST_MAIL]))
        with self._database.read() as connection:
            row = connection.execute(statement).first()
        stored = None if row is None else row.password
        if not self._passwords.fits(password, stored) or row is None:
            return None
        if self._passwords.is_outdated(row.password):
            renewed = self._passwords.hash(password)
            with self._database.write() as connection:
                # Unless a new password was set meanwhile.
                _set_hash(connection, row.id, renewed, instead_of=row.password)
        return _operator(row)

    # Sign-ins

    def sign_in(self, operator: Operator, *, hours: float) -> str:
        """Begin a sign-in that ends after ``hours``, and return its cookie's value."""
        secret = _secret()
        now = self._milliseconds()
        values = {
            "digest": _digest(secret),
            "operator_id": operator.id,
            "created_at": now,
            "expires_at": now + int(hours * _HOUR),
        }
        with self._database.write() as connection:
            connection.execute(delete(sign_ins).where(sign_ins.c.expires_at <= now))
            try:
                connection.execute(insert(sign_ins).values(values))
            except IntegrityError:
                raise _unknown(operator.mail) from None
            connection.execute(
                update(operators).where(operators.c.id == operator.id).values(signed_in_at=now)
            )
        return secret

    def signed_in(self, secret: str) -> SignIn | None:
        """Return the sign-in of a cookie, or None for an unknown or expired one."""
        statement = (
            select(
                *_OPERATOR_COLUMNS,
                sign_ins.c.created_at.label("began_at"),
                sign_ins.c.expires_at,
            )
            .join_from(sign_ins, operators)
            .where(
                sign_ins.c.digest == _digest(secret), sign_ins.c.expires_at > self._milliseconds()
            )
        )
        with self._database.read() as connection:
            row = connection.execute(statement).first()
        if row is None:
            return None
        return SignIn(operator=_operator(row), created_at=row.began_at, expires_at=row.expires_at)

    def sign_out(self, secret: str) -> None:
        """End one sign-in."""
        with self._database.write() as connection:
            connection.execute(delete(sign_ins).where(sign_ins.c.digest == _digest(secret)))

    def sign_out_everywhere(self, operator: Operator, *, but: str = "") -> int:
        """End every sign-in of an operator except ``but``, and return their number."""
        statement = delete(sign_ins).where(
            sign_ins.c.operator_id == operator.id, sign_ins.c.digest != _digest(but)
        )
        with self._database.write() as connection:
            return connection.execute(statement).rowcount

    def count_sign_ins(self) -> dict[int, int]:
        """Return the number of current sign-ins by operator id."""
        statement = (
            select(sign_ins.c.operator_id, func.count())
            .where(sign_ins.c.expires_at > self._milliseconds())
            .group_by(sign_ins.c.operator_id)
        )
        with self._database.read() as connection:
            return {row[0]: row[1] for row in connection.execute(statement)}

    # Invitations

    def invite_first(self) -> str:
        """Return the secret of a link that creates the first operator within 24 hours.

        It is valid while there is no operator, and only the newest such link is.
        """
        with self._database.write(alone=_TURN) as connection:
            connection.execute(delete(invitations).where(invitations.c.purpose == "first"))
            return self._invited(connection, None, "first")

    def invite(self, mail: str | None = None) -> str:
        """Return the secret of a link that creates one operator within 24 hours.

        Without ``mail`` its reader chooses an address. Raises
        :class:`~handbell.errors.OperatorError` for an invalid mail or an operator's.
        """
        folded = None if mail is None else _mail(mail)
        with self._database.write(alone=_TURN) as connection:
            if folded is not None and _is_known(connection, folded):
                raise _exists(folded)
            return self._invited(connection, folded, "join")

    def reset(self, operator: Operator) -> str:
        """Return the secret of a link with which an operator sets a new password.

        Until then the old one stays valid. It is valid once within 24 hours; a newer link or a
        password change revokes it.
        """
        with self._database.write(alone=_TURN) as connection:
            if not _is_known(connection, operator.mail):
                raise _unknown(operator.mail)
            connection.execute(resets_of(operator.mail))
            return self._invited(connection, operator.mail, "reset")

    def invitation(self, secret: str) -> Invitation:
        """Return the invitation of a link.

        Raises :class:`~handbell.errors.InvitationError` when it was used or has expired, or its
        purpose is fulfilled.
        """
        with self._database.read() as connection:
            return self._open(connection, secret)

    def invitations(self) -> _Invitations:
        """Return the open invitations, the newest first."""
        statement = (
            select(invitations)
            .where(self._serves())
            .order_by(invitations.c.created_at.desc(), invitations.c.digest)
        )
        with self._database.read() as connection:
            return [read_invitation(row) for row in connection.execute(statement)]

    def accept(self, secret: str, mail: str, password: str) -> Operator:
        """Create the invited operator, or set the password of an existing one.

        This uses the link up and ends former sign-ins of the operator. ``mail`` counts only if the
        invitation has none. Raises :class:`~handbell.errors.InvitationError` when it was used or
        has expired, and :class:`~handbell.errors.OperatorError` as :meth:`add` does; the link can
        be used again then.
        """
        invited = self.invitation(secret)
        mail = invited.mail or _mail(mail)
        hashed = self._hashed(password, mail)
        statement = (
            update(invitations)
            .where(invitations.c.digest == invited.id)
            .values(used_at=self._milliseconds())
        )
        with self._database.write(alone=_TURN) as connection:
            # Again, under the write lock: an operator may have been added meanwhile.
            invited = self._open(connection, secret)
            connection.execute(statement)
            if invited.is_reset:
                return self._renewed(connection, mail, hashed)
            return self._added(connection, mail, hashed)

    def withdraw(self, invitation_id: str) -> bool:
        """Withdraw an invitation by its id; return whether it was open."""
        statement = delete(invitations).where(invitations.c.digest == invitation_id, self._serves())
        with self._database.write() as connection:
            return connection.execute(statement).rowcount > 0

    def _invited(self, connection: Connection, mail: str | None, purpose: Purpose) -> str:
        secret = _secret()
        now = self._milliseconds()
        values = {
            "digest": _digest(secret),
            "mail": mail,
            "purpose": purpose,
            "created_at": now,
            "expires_at": now + INVITATION_HOURS * _HOUR,
        }
        connection.execute(delete(invitations).where(invitations.c.expires_at <= now))
        connection.execute(insert(invitations).values(values))
        return secret

    def _renewed(self, connection: Connection, mail: str, hashed: str) -> Operator:
        row = connection.execute(_OPERATORS.where(operators.c.mail == mail)).first()
        if row is None:
            raise _unknown(mail)
        _set_hash(connection, row.id, hashed)
        connection.execute(delete(sign_ins).where(sign_ins.c.operator_id == row.id))
        connection.execute(resets_of(mail))
        return _operator(row)

    def _open(self, connection: Connection, secret: str) -> Invitation:
        statement = select(invitations).where(
            invitations.c.digest == _digest(secret), self._serves()
        )
        row = connection.execute(statement).first()
        if row is None:
            raise _used()
        return read_invitation(row)

    def _serves(self) -> Any:
        return serves(self._milliseconds())

    def _added(self, connection: Connection, mail: str, hashed: str) -> Operator:
        if _is_known(connection, mail):
            raise _exists(mail)
        # Else they would become valid again once this operator is removed.
        stale = (invitations.c.mail == mail) | (invitations.c.purpose == "first")
        connection.execute(delete(invitations).where(stale, invitations.c.used_at.is_(None)))
        values = {"mail": mail, "password": hashed, "created_at": self._milliseconds()}
        connection.execute(insert(operators).values(values))
        return _operator(connection.execute(_OPERATORS.where(operators.c.mail == mail)).one())

    def _hashed(self, password: str, mail: str) -> str:
        check_password(password, mail=mail)
        return self._passwords.hash(password)

    def _milliseconds(self) -> int:
        return int(self._now() * 1000)


_OPERATOR_COLUMNS: Final = (
    operators.c.id,
    operators.c.mail,
    operators.c.created_at,
    operators.c.signed_in_at,
)
_OPERATORS: Final[Select[Any]] = select(*_OPERATOR_COLUMNS).order_by(operators.c.mail)


def _operator(row: Any) -> Operator:
    return Operator(
        id=row.id, mail=row.mail, created_at=row.created_at, signed_in_at=row.signed_in_at
    )


def _is_known(connection: Connection, mail: str) -> bool:
    statement = select(operators.c.id).where(operators.c.mail == mail)
    return connection.scalar(statement) is not None


def _set_hash(
    connection: Connection, operator_id: int, hashed: str, *, instead_of: str | None = None
) -> None:
    statement = update(operators).where(operators.c.id == operator_id).values(password=hashed)
    if instead_of is not None:
        statement = statement.where(operators.c.password == instead_of)
    connection.execute(statement)


def _secret() -> str:
    return secrets.token_urlsafe(_SECRET_BYTES)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _mail(text: str) -> str:
    try:
        return read_mail(text)
    except ValueError as error:
        raise OperatorError(
            f"{text[:100]!r} is not a mail address: {error}",
            fix="Name the operator by a mail address",
        ) from None


def _exists(mail: str) -> OperatorError:
    return OperatorError(
        f"{mail} is an operator already", fix="Sign in with this address, or name another one"
    )


def _unknown(mail: str) -> UnknownOperatorError:
    return UnknownOperatorError(
        f"There is no operator {mail[:100]!r}", fix=Fix(Action.LIST_OPERATORS, "See")
    )


def _used() -> InvitationError:
    return InvitationError(
        "This invitation was used already, was withdrawn, is older than "
        f"{INVITATION_HOURS} hours, or its purpose is fulfilled",
        fix=Fix(Action.ADD_OPERATOR, "Ask an operator for a new one, or run on the server"),
    )
