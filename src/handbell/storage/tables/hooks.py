"""Webhooks and the calls that are due."""

from typing import Final

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from .columns import Id, instant, metadata

webhooks: Final = Table(
    "webhooks",
    metadata,
    Column("id", Id, primary_key=True),
    Column("app_id", Id, ForeignKey("apps.id", ondelete="CASCADE"), nullable=False),
    Column("url", Text, nullable=False),
    Column("sealed_secret", LargeBinary, nullable=False),
    # The event names that it is called for, separated by commas.
    Column("events", Text, nullable=False),
    Column("is_enabled", Boolean, nullable=False, server_default=text("true")),
    instant("created_at", required=True),
    UniqueConstraint("app_id", "url"),
    sqlite_autoincrement=True,
)

webhook_calls: Final = Table(
    "webhook_calls",
    metadata,
    Column("id", Id, primary_key=True),
    Column("webhook_id", Id, ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    # The call id that the receiver sees; the same for every repeat.
    Column("message_id", Text, nullable=False, unique=True),
    Column("body", Text, nullable=False),
    Column("state", Text, nullable=False),
    # When it is due; while in progress, when the caller's lease ends.
    instant("due_at"),
    Column("lease", Text, nullable=True),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("last_status", Integer, nullable=True),
    Column("last_reason", Text, nullable=True),
    instant("created_at", required=True),
    instant("finished_at"),
    CheckConstraint("state IN ('queued', 'sending', 'sent', 'failed')", name="state"),
    Index("ix_webhook_calls_webhook_id", "webhook_id"),
    Index(
        "ix_webhook_calls_due_at",
        "due_at",
        sqlite_where=text("due_at IS NOT NULL"),
        postgresql_where=text("due_at IS NOT NULL"),
    ),
    Index(
        "ix_webhook_calls_finished_at",
        "finished_at",
        sqlite_where=text("finished_at IS NOT NULL"),
        postgresql_where=text("finished_at IS NOT NULL"),
    ),
)
