"""Workers and servers, and what they share."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    text,
)

from .columns import Id, instant, metadata, service

workers: Final = Table(
    "workers",
    metadata,
    Column("id", Id, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    # The last heartbeat, in milliseconds of the monotonic clock since boot.
    Column("boot", Text, nullable=False),
    Column("beat", BigInteger, nullable=False),
)

revocations: Final = Table(
    "revocations",
    metadata,
    Column("id", Id, primary_key=True),
    # The worker that has to release the sessions; it deletes the row afterwards.
    Column("worker_id", Id, ForeignKey("workers.id", ondelete="CASCADE"), nullable=False),
    # A JSON list of the ids of sessions.
    Column("sessions", Text, nullable=False),
    Index("ix_revocations_worker_id", "worker_id"),
)

nodes: Final = Table(
    "nodes",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Text, nullable=False),
    # A server answers requests; a worker only sends.
    Column("kind", Text, nullable=False),
    # The version of Handbell that runs there, and the newest schema that it knows.
    Column("version", Text, nullable=False),
    Column("revision", Text, nullable=False),
    instant("started_at", required=True),
    # By the database server's clock, where there is one.
    instant("seen_at", required=True),
    # Its worker, while it has one.
    Column("worker_id", Id, nullable=True),
    # JSON: the names of the secret keys that it knows, the one that it seals with first.
    Column("secret_keys", Text, nullable=True),
    # JSON: how much it did lately.
    Column("figures", Text, nullable=True),
    CheckConstraint("kind IN ('server', 'worker')", name="kind"),
)

installation: Final = Table(
    "installation",
    metadata,
    # Facts about the database as a whole, each owned by the module that names it.
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    sqlite_with_rowid=False,
)

circuits: Final = Table(
    "circuits",
    metadata,
    # The app id in full and the topic; both are empty for the service itself.
    Column("app", Text, primary_key=True),
    Column("environment", Text, primary_key=True),
    # The fingerprint of the key or certificate.
    Column("credential", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
    service(is_key=True),
    # When the push service first accepted a push this way.
    instant("accepted_at"),
    # While it is open: the reason, since when, and when the next probe is sent.
    Column("reason", Text, nullable=True),
    Column("detail", Text, nullable=True),
    instant("stopped_at"),
    instant("probe_at"),
    Column("probes", Integer, nullable=False, server_default=text("0")),
    # The worker that may send the one probe.
    Column("prober", Id, ForeignKey("workers.id", ondelete="SET NULL"), nullable=True),
    sqlite_with_rowid=False,
)

cap_claims: Final = Table(
    "cap_claims",
    metadata,
    # What a worker has let through an app's cap and not written down yet, for the other workers.
    Column("user_id", Id, primary_key=True, autoincrement=False),
    Column("notification_id", Id, primary_key=True, autoincrement=False),
    Column(
        "worker_id",
        Id,
        ForeignKey("workers.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Index("ix_cap_claims_worker_id", "worker_id"),
    sqlite_with_rowid=False,
)

shared_buckets: Final = Table(
    "shared_buckets",
    metadata,
    # A token bucket of all processes: its purpose, and whose it is.
    Column("name", Text, primary_key=True),
    # When it is full again, in microseconds of the clock that all processes share.
    Column("full_at", BigInteger, nullable=False),
    Index("ix_shared_buckets_full_at", "full_at"),
    sqlite_with_rowid=False,
)

wall_clock: Final = Table(
    "wall_clock",
    metadata,
    # By how many milliseconds it was ahead of the monotonic clock since boot.
    Column("boot", Text, primary_key=True),
    Column("ahead", BigInteger, nullable=False),
)
