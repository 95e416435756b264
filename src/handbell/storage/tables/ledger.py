"""What was accepted, what became of it, and what waits."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from .columns import Id, instant, metadata, of_notification, service

notifications: Final = Table(
    "notifications",
    metadata,
    Column("id", Id, primary_key=True),
    # 15 hex digits, the public id; every apns-id of this notification begins with it.
    Column("public_id", Text, nullable=False),
    # The app id in full, so that an unregistered app has a ledger too.
    Column("app", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("recipients", Text, nullable=False),
    instant("created_at", required=True),
    instant("expires_at"),
    Column("urgency", Integer, nullable=False, server_default=text("5")),
    # JSON of an instant or of a local time in each recipient's zone.
    Column("send_at", Text, nullable=True),
    Column("is_development", Boolean, nullable=False, server_default=text("false")),
    # Whether it is shown unasked, so that a cap counts it.
    Column("is_loud", Boolean, nullable=False, server_default=text("true")),
    # The sealed key of a sender whose app is not in the registry.
    Column("sealed_key", LargeBinary, nullable=True),
    Column("replaces", Text, nullable=True),
    instant("cancelled_at"),
    # Sessions that a broadcast had not reached when it was cancelled.
    Column("cancelled", Integer, nullable=False, server_default=text("0")),
    # On PostgreSQL each partition has such an index of its own.
    UniqueConstraint("public_id").ddl_if(dialect="sqlite"),
    Index("ix_notifications_created_at", "created_at"),
    # The newest of one app, page by page.
    Index("ix_notifications_app", "app", "id"),
)

idempotency: Final = Table(
    "idempotency",
    metadata,
    Column("app", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("notification_id", Text, nullable=False),
    instant("created_at", required=True),
    Index("ix_idempotency_created_at", "created_at"),
    sqlite_with_rowid=False,
)

shards: Final = Table(
    "shards",
    metadata,
    Column("id", Id, primary_key=True),
    Column("notification_id", Id, nullable=False),
    # The app's sessions; or those that got the notification of this row.
    Column("source_id", Id, nullable=True),
    Column("urgency", Integer, nullable=False),
    # Done up to position; the shard ends at last.
    Column("position", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    instant("due_at", required=True),
    # The worker that owns it; NULL when there is none.
    Column("worker_id", Id, nullable=True),
    # Some sessions after position may have been sent to already.
    Column("is_resumed", Boolean, nullable=False, server_default=text("false")),
    # Why it waits until due_at.
    Column("reason", Text, nullable=True),
    # JSON: the time zones whose sessions it is for, "" for those that name none; NULL is for all.
    Column("zones", Text, nullable=True),
    # Others span the same sessions, so those that have a delivery are passed over.
    Column("is_split", Boolean, nullable=False, server_default=text("false")),
    # How often in a row it failed in our own code, or its worker was lost.
    Column("failures", Integer, nullable=False, server_default=text("0")),
    of_notification(),
    Index("ix_shards_urgency_due_at", "urgency", "due_at"),
    Index("ix_shards_notification_id", "notification_id"),
)

deliveries: Final = Table(
    "deliveries",
    metadata,
    Column("notification_id", Id, primary_key=True, autoincrement=False),
    # The session's id; from ADDRESSED on, a counter of addresses without a session. A session
    # occurs once per notification, and its apns-id is known before a row is written.
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    # The client that it goes through: that of a push service, or of Xcode's Simulator.
    Column("gateway", Text, nullable=False),
    # NULL: the session's address decides. Else a token, or JSON where an address has parts.
    Column("address", Text, nullable=True),
    Column("environment", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=True),
    # Details that a reason lacks: which host could not be reached, why it was given up.
    Column("detail", Text, nullable=True),
    Column("status", Integer, nullable=True),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    # The push service's own id of it, where it gives one.
    Column("unique_id", Text, nullable=True),
    Column("urgency", Integer, nullable=False, server_default=text("5")),
    # When a queued or held delivery is due; which worker is sending it now.
    instant("due_at"),
    Column("worker_id", Id, nullable=True),
    # It may have been sent before, so each repeat carries a collapse id.
    Column("is_repeat", Boolean, nullable=False, server_default=text("false")),
    # When its retry period begins: its first attempt, moved by the time it was held since.
    instant("begun_at"),
    instant("sent_at"),
    instant("finished_at"),
    instant("displayed_at"),
    instant("opened_at"),
    # How often in a row it failed in our own code, or its worker was lost.
    Column("failures", Integer, nullable=False, server_default=text("0")),
    CheckConstraint(
        # This order lets SQLite use the index without a temporary table.
        "state = 'sent' OR "
        "state IN ('queued', 'sending', 'held', 'failed', 'dead_letter', 'expired', 'cancelled')",
        name="state",
    ),
    of_notification(),
    Index("ix_deliveries_number", "number"),
    Index(
        "ix_deliveries_due",
        "urgency",
        "due_at",
        sqlite_where=text("due_at IS NOT NULL"),
        postgresql_where=text("due_at IS NOT NULL"),
    ),
    Index(
        "ix_deliveries_worker_id",
        "worker_id",
        sqlite_where=text("worker_id IS NOT NULL"),
        postgresql_where=text("worker_id IS NOT NULL"),
    ),
    Index(
        "ix_deliveries_dead_letter",
        "notification_id",
        sqlite_where=text("state = 'dead_letter'"),
        postgresql_where=text("state = 'dead_letter'"),
    ),
    # Keeps the rows of one broadcast adjacent, instead of spread over a second tree.
    sqlite_with_rowid=False,
)

tallies: Final = Table(
    "tallies",
    metadata,
    # The app id in full; the start of the hour.
    Column("app", Text, primary_key=True),
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    service(is_key=True),
    Column("sent", Integer, nullable=False, server_default=text("0")),
    # Failed, expired, or a dead letter.
    Column("failed", Integer, nullable=False, server_default=text("0")),
    Column("displayed", Integer, nullable=False, server_default=text("0")),
    Column("opened", Integer, nullable=False, server_default=text("0")),
    sqlite_with_rowid=False,
)

ADDRESSED: Final = 1 << 52
"""Delivery numbers below this are ids of sessions."""
