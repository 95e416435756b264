"""Whose an address, a name and an id is: mailboxes, app names, ids, invitations, old secrets."""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from alembic import op

from handbell._mail import fold_mail
from handbell.storage.migrations.rebuild import rebuild, with_column, with_lasting_ids

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_LASTING = ("apps", "credentials", "webhooks", "api_keys", "operators")
_PURPOSE = "purpose TEXT DEFAULT 'join' NOT NULL"

_apps = sa.table("apps", *map(sa.column, ("id", "team_id", "bundle_id", "name")))
_users = sa.table("users", *map(sa.column, ("id", "app_id", "mail")))
_sessions = sa.table(
    "sessions",
    *map(sa.column, ("id", "app_id", "user_id", "token", "status", "reason", "secret_digest")),
)
_proofs = sa.table("proofs", *map(sa.column, ("session_id",)))
_operators = sa.table("operators", *map(sa.column, ("id", "mail", "created_at")))
_invitations = sa.table(
    "invitations", *map(sa.column, ("digest", "mail", "purpose", "created_at", "used_at"))
)
_PROVEN = _sessions.c.status.in_(["active", "quarantined"])


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        for table in _LASTING:
            rebuild(connection, table, with_lasting_ids)
        rebuild(connection, "invitations", with_column(_PURPOSE))
    else:
        purpose = sa.Column("purpose", sa.Text(), server_default=sa.text("'join'"), nullable=False)
        op.add_column("invitations", purpose)
    gone = sa.text("status = 'closed' AND secret_digest IS NOT NULL")
    op.create_index(
        "ix_sessions_gone",
        "sessions",
        ["app_id", "token"],
        unique=False,
        sqlite_where=gone,
        postgresql_where=gone,
    )
    _part_names(connection)
    _read_addresses_anew(connection)
    _void_secrets(connection)
    _tell_purposes(connection)


def _part_names(connection: sa.Connection) -> None:
    """Rename each app whose name means another app too; the oldest keeps its name."""
    rows = connection.execute(sa.select(_apps).order_by(_apps.c.id)).all()
    names: set[str] = set()
    for row in rows:
        others = {text.casefold() for one in rows if one.id != row.id for text in _ids(one)}
        wanted, number = row.name, 1
        while wanted.casefold() in names | others:
            number += 1
            wanted = f"{row.name[:190]} {number}"
        names.add(wanted.casefold())
        if wanted != row.name:
            mine = sa.update(_apps).where(_apps.c.id == row.id)
            connection.execute(mine.values(name=wanted))


def _ids(row: Any) -> tuple[str, str]:
    return row.bundle_id, f"{row.team_id}.{row.bundle_id}"


def _read_addresses_anew(connection: sa.Connection) -> None:
    """Store each address as it is compared now; who was proven by another mailbox proves again."""
    for row in _strange(connection.execute(sa.select(_users).order_by(_users.c.id))):
        folded = fold_mail(row.mail)
        if folded == row.mail and not _was_mailed_elsewhere(row.mail):
            continue
        _unprove(connection, row.id)
        if folded == row.mail:
            continue
        of_app = (_users.c.app_id == row.app_id, _users.c.mail == folded)
        known = connection.scalar(sa.select(_users.c.id).where(*of_app))
        mine = _users.c.id == row.id
        if known is None:
            connection.execute(sa.update(_users).where(mine).values(mail=folded))
        else:
            theirs = sa.update(_sessions).where(_sessions.c.user_id == row.id)
            connection.execute(theirs.values(user_id=known))
            connection.execute(sa.delete(_users).where(mine))
    for row in _strange(connection.execute(sa.select(_operators).order_by(_operators.c.id))):
        folded = fold_mail(row.mail)
        taken = sa.select(_operators.c.id).where(_operators.c.mail == folded)
        if connection.scalar(taken) is None:
            mine = sa.update(_operators).where(_operators.c.id == row.id)
            connection.execute(mine.values(mail=folded))


def _strange(rows: Iterable[Any]) -> list[Any]:
    # All the others are compared and mailed as they were.
    return [row for row in rows if row.mail and (not row.mail.isascii() or "=?" in row.mail)]


def _was_mailed_elsewhere(mail: str) -> bool:
    """Say whether 0.1 mailed links for this address to another mailbox than is compared now."""
    import idna  # noqa: PLC0415 - only here, and heavy

    local, _, domain = mail.rpartition("@")
    if "=?" in local:
        return True
    try:
        # By IDNA 2003, which makes strasse.de of straße.de.
        mailed = domain.encode("idna").decode()
    except UnicodeError:
        return False
    try:
        return mailed != idna.encode(domain).decode()
    except idna.IDNAError:
        return True


def _unprove(connection: sa.Connection, user: int) -> None:
    mine = _sessions.c.user_id == user
    held = sa.select(_sessions.c.id).where(mine)
    # A link that is on its way went to the wrong mailbox.
    connection.execute(sa.delete(_proofs).where(_proofs.c.session_id.in_(held)))
    pending = {"status": "pending", "reason": None}
    connection.execute(sa.update(_sessions).where(mine, _PROVEN).values(pending))
    closed = sa.update(_sessions).where(mine, _sessions.c.status == "closed")
    connection.execute(closed.values(secret_digest=None))


def _void_secrets(connection: sa.Connection) -> None:
    """Let nobody open a session that was closed as gone where somebody else has its token."""
    owner = _sessions.alias("owner")
    is_elsewhere = (
        sa.exists()
        .where(
            owner.c.app_id == _sessions.c.app_id,
            owner.c.token == _sessions.c.token,
            owner.c.user_id != _sessions.c.user_id,
            owner.c.status.in_([sa.literal_column("'active'"), sa.literal_column("'quarantined'")]),
        )
        .correlate(_sessions)
    )
    closed = (_sessions.c.status == "closed", _sessions.c.secret_digest.is_not(None))
    connection.execute(sa.update(_sessions).where(*closed, is_elsewhere).values(secret_digest=None))


def _tell_purposes(connection: sa.Connection) -> None:
    """Void each invitation that is older than its operator; a younger one sets a password.

    One without an address that is older than every operator was for the first.
    """
    made = {row.mail: row.created_at for row in connection.execute(sa.select(_operators))}
    first = min(made.values(), default=None)
    for row in connection.execute(sa.select(_invitations)).all():
        mine = _invitations.c.digest == row.digest
        since = first if row.mail is None else made.get(row.mail)
        if since is not None and row.created_at <= since:
            connection.execute(sa.delete(_invitations).where(mine))
            continue
        is_first = row.mail is None and first is None
        purpose = "first" if is_first else "reset" if row.mail in made else "join"
        connection.execute(sa.update(_invitations).where(mine).values(purpose=purpose))
