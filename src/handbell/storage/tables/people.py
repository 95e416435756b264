"""Users, their sessions, and how a device proves whose it is."""

from typing import Final

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from .columns import Id, instant, metadata, service

users: Final = Table(
    "users",
    metadata,
    Column("id", Id, primary_key=True),
    Column("app_id", Id, ForeignKey("apps.id", ondelete="CASCADE"), nullable=False),
    Column("mail", Text, nullable=True),
    Column("external_id", Text, nullable=True),
    instant("created_at", required=True),
    CheckConstraint("mail IS NOT NULL OR external_id IS NOT NULL", name="named"),
    UniqueConstraint("app_id", "mail"),
    UniqueConstraint("app_id", "external_id"),
)

OF_OTHER_SERVICES: Final = text("service <> 'apns'")
"""The condition of the index of sessions that are not Apple's."""

sessions: Final = Table(
    "sessions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("app_id", Id, ForeignKey("apps.id", ondelete="CASCADE"), nullable=False),
    Column("user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    service(),
    # The form of address at the service: a device's token or another id.
    Column("kind", Text, nullable=False, server_default=text("'device'")),
    # Identifies an address: a device token, or a subscription's endpoint.
    Column("token", Text, nullable=False),
    # JSON of further parts of the address: the keys of a browser's subscription.
    Column("address", Text, nullable=True),
    # Identifies one device across its sessions with several services.
    Column("device_id", Text, nullable=True),
    Column("platform", Text, nullable=False),
    # Services without environments have production and the twin only.
    Column("environment", Text, nullable=False),
    Column("status", Text, nullable=False),
    # Why it is closed or quarantined: the push service's reason or ours.
    Column("reason", Text, nullable=True),
    Column("locale", Text, nullable=True),
    Column("time_zone", Text, nullable=True),
    Column("device", Text, nullable=True),
    Column("app_version", Text, nullable=True),
    Column("os_version", Text, nullable=True),
    # The session id of the system this was imported from.
    Column("external_id", Text, nullable=True),
    # SHA-256 of the secret with which the device authenticates for this session.
    Column("secret_digest", Text, nullable=True, unique=True),
    # The id that its device got before the proof, where a former session was resumed.
    Column("claimed_as", Id, nullable=True),
    instant("created_at", required=True),
    instant("registered_at", required=True),
    instant("accepted_at"),
    instant("closed_at"),
    CheckConstraint("status IN ('pending', 'active', 'quarantined', 'closed')", name="status"),
    CheckConstraint("environment IN ('production', 'development', 'twin')", name="environment"),
    Index("ix_sessions_user_id", "user_id"),
    # Empty where all sessions are Apple's: then nobody need look at their service.
    Index(
        "ix_sessions_other_services",
        "app_id",
        "service",
        sqlite_where=OF_OTHER_SERVICES,
        postgresql_where=OF_OTHER_SERVICES,
    ),
    # By id, with the columns that select parts of a broadcast.
    Index("ix_sessions_app_id_status", "app_id", "status", "id", "time_zone"),
    # One owner per token, enforced by the database. A pending session owns nothing. The token
    # comes before the service, which few queries name.
    Index(
        "uq_sessions_owner",
        "app_id",
        "token",
        "service",
        unique=True,
        sqlite_where=text("status IN ('active', 'quarantined')"),
        postgresql_where=text("status IN ('active', 'quarantined')"),
    ),
    Index(
        "ix_sessions_claim",
        "app_id",
        "token",
        sqlite_where=text("status = 'pending'"),
        postgresql_where=text("status = 'pending'"),
    ),
    # Sessions that may reopen by their secret.
    Index(
        "ix_sessions_gone",
        "app_id",
        "token",
        sqlite_where=text("status = 'closed' AND secret_digest IS NOT NULL"),
        postgresql_where=text("status = 'closed' AND secret_digest IS NOT NULL"),
    ),
    # Deliveries refer to session ids, so a removed session's id is never reused.
    sqlite_autoincrement=True,
)

proofs: Final = Table(
    "proofs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("session_id", Id, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    # SHA-256 of the token in the mailed link.
    Column("digest", Text, nullable=False, unique=True),
    instant("created_at", required=True),
    instant("expires_at", required=True),
    # When the link is to be mailed, first or again; NULL once that is over.
    instant("mail_due_at"),
    instant("used_at"),
    Index("ix_proofs_session_id", "session_id"),
    Index("ix_proofs_expires_at", "expires_at"),
    Index(
        "ix_proofs_mail_due_at",
        "mail_due_at",
        sqlite_where=text("mail_due_at IS NOT NULL"),
        postgresql_where=text("mail_due_at IS NOT NULL"),
    ),
)

identity_tokens: Final = Table(
    "identity_tokens",
    metadata,
    Column("app_id", Id, ForeignKey("apps.id", ondelete="CASCADE"), primary_key=True),
    # SHA-256 of a used token: each is valid once.
    Column("digest", Text, primary_key=True),
    instant("expires_at", required=True),
    Index("ix_identity_tokens_expires_at", "expires_at"),
    sqlite_with_rowid=False,
)
