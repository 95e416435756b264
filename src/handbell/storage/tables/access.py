"""Who may do what, and what they did."""

from typing import Final

from sqlalchemy import Column, ForeignKey, Index, Table, Text, text

from .columns import Id, instant, metadata

api_keys: Final = Table(
    "api_keys",
    metadata,
    Column("id", Id, primary_key=True),
    # The visible part of the key.
    Column("prefix", Text, nullable=False, unique=True),
    # SHA-256 of the whole key: it is random, so a slow hash would gain nothing.
    Column("digest", Text, nullable=False),
    Column("name", Text, nullable=False),
    # The names of the scopes, separated by commas.
    Column("scopes", Text, nullable=False),
    # NULL allows every app.
    Column("app_id", Id, ForeignKey("apps.id", ondelete="CASCADE"), nullable=True),
    instant("created_at", required=True),
    instant("used_at"),
    instant("revoked_at"),
    Index("ix_api_keys_app_id", "app_id"),
    sqlite_autoincrement=True,
)

operators: Final = Table(
    "operators",
    metadata,
    Column("id", Id, primary_key=True),
    Column("mail", Text, nullable=False, unique=True),
    # Argon2id, with its parameters.
    Column("password", Text, nullable=False),
    instant("created_at", required=True),
    instant("signed_in_at"),
    sqlite_autoincrement=True,
)

sign_ins: Final = Table(
    "sign_ins",
    metadata,
    # SHA-256 of the cookie's value.
    Column("digest", Text, primary_key=True),
    Column("operator_id", Id, ForeignKey("operators.id", ondelete="CASCADE"), nullable=False),
    instant("created_at", required=True),
    instant("expires_at", required=True),
    Index("ix_sign_ins_operator_id", "operator_id"),
    Index("ix_sign_ins_expires_at", "expires_at"),
    sqlite_with_rowid=False,
)

invitations: Final = Table(
    "invitations",
    metadata,
    # SHA-256 of the link's token; each creates one operator.
    Column("digest", Text, primary_key=True),
    # NULL lets the invited person choose an address.
    Column("mail", Text, nullable=True),
    instant("created_at", required=True),
    instant("expires_at", required=True),
    instant("used_at"),
    # Its purpose: the first operator, another one, or a new password for an existing one.
    Column("purpose", Text, nullable=False, server_default=text("'join'")),
    sqlite_with_rowid=False,
)

audit: Final = Table(
    "audit",
    metadata,
    Column("id", Id, primary_key=True),
    instant("at", required=True),
    # The actor: an operator's mail, the prefix of an API key, or the command line.
    Column("actor", Text, nullable=False),
    # The action, as a stable name: key.add, session.close.
    Column("action", Text, nullable=False),
    # The app id in full, where an app is concerned.
    Column("app", Text, nullable=True),
    Column("subject", Text, nullable=False),
    Column("detail", Text, nullable=True),
    Index("ix_audit_at", "at"),
)
