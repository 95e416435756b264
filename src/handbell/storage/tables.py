"""The schema: the tables that stores use and that Alembic compares with.

All instants are UNIX milliseconds (UTC) in integers; ``NULL`` for events that have not happened.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite makes only an INTEGER primary key the row id; PostgreSQL wants the width spelled out.
_Id = BigInteger().with_variant(Integer(), "sqlite")


def _instant(name: str, *, required: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=not required)


def _service(*, is_key: bool = False) -> Column[str]:
    # One of the push services known to the code. The database does not check it: a further
    # service would need a migration of every installation.
    default = text("'apns'")
    return Column("service", Text, nullable=False, primary_key=is_key, server_default=default)


def _of_notification() -> ForeignKeyConstraint:
    # PostgreSQL would look up a notification for each row, and all rows for a dropped partition.
    key = ForeignKeyConstraint(["notification_id"], ["notifications.id"], ondelete="CASCADE")
    return key.ddl_if(dialect="sqlite")


apps: Final = Table(
    "apps",
    metadata,
    Column("id", _Id, primary_key=True),
    # The app's permanent name in the ledger, in keys and for callers: team and bundle id as
    # TEAM123456.com.sample.myapp, or another name for an app without Apple's ids.
    Column("public_id", Text, nullable=False, unique=True),
    Column("team_id", Text, nullable=True),
    Column("bundle_id", Text, nullable=True),
    Column("android_package", Text, nullable=True),
    # SHA-256 of the certificates that sign it, for assetlinks.json; separated by blanks.
    Column("android_fingerprints", Text, nullable=True),
    # The origin of its web pages, to which browsers' subscriptions belong.
    Column("web_origin", Text, nullable=True),
    Column("name", Text, nullable=False),
    Column("is_enabled", Boolean, nullable=False, server_default=text("true")),
    _instant("created_at", required=True),
    # The operator's rules, in the format of delivery.policy.app_rules.
    Column("quiet_hours", Text, nullable=True),
    Column("cap", Text, nullable=True),
    Column("rate_limit", Text, nullable=True),
    # For recipients whose own time zone is not known.
    Column("time_zone", Text, nullable=True),
    # How a device proves its owner: by the back end's API key, a mailed link or a signed token.
    Column("proof", Text, nullable=False, server_default=text("'key'")),
    Column("identity_algorithm", Text, nullable=True),
    # Verifies the back end's tokens: a shared secret or a public key.
    Column("sealed_identity_key", LargeBinary, nullable=True),
    # For universal links: the app's domain, and where to get the app.
    Column("associated_domain", Text, nullable=True),
    Column("store_url", Text, nullable=True),
    CheckConstraint("proof IN ('key', 'link', 'token')", name="proof"),
    UniqueConstraint("team_id", "bundle_id"),
    # Ids live in caches and in memory: none is ever reused.
    sqlite_autoincrement=True,
)

credentials: Final = Table(
    "credentials",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("app_id", _Id, ForeignKey("apps.id", ondelete="CASCADE"), nullable=False),
    _service(),
    # A key or a certificate of Apple's, or a kind of another service.
    Column("kind", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    # Limits the credential to one environment; NULL serves both.
    Column("environment", Text, nullable=True),
    Column("fingerprint", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    _instant("expires_at"),
    _instant("created_at", required=True),
    UniqueConstraint("app_id", "key_id"),
    sqlite_autoincrement=True,
)

users: Final = Table(
    "users",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("app_id", _Id, ForeignKey("apps.id", ondelete="CASCADE"), nullable=False),
    Column("mail", Text, nullable=True),
    Column("external_id", Text, nullable=True),
    _instant("created_at", required=True),
    CheckConstraint("mail IS NOT NULL OR external_id IS NOT NULL", name="named"),
    UniqueConstraint("app_id", "mail"),
    UniqueConstraint("app_id", "external_id"),
)

OF_OTHER_SERVICES: Final = text("service <> 'apns'")
"""The condition of the index of sessions that are not Apple's."""

sessions: Final = Table(
    "sessions",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("app_id", _Id, ForeignKey("apps.id", ondelete="CASCADE"), nullable=False),
    Column("user_id", _Id, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    _service(),
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
    Column("claimed_as", _Id, nullable=True),
    _instant("created_at", required=True),
    _instant("registered_at", required=True),
    _instant("accepted_at"),
    _instant("closed_at"),
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

notifications: Final = Table(
    "notifications",
    metadata,
    Column("id", _Id, primary_key=True),
    # 15 hex digits, the public id; every apns-id of this notification begins with it.
    Column("public_id", Text, nullable=False),
    # The app id in full, so that an unregistered app has a ledger too.
    Column("app", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("recipients", Text, nullable=False),
    _instant("created_at", required=True),
    _instant("expires_at"),
    Column("urgency", Integer, nullable=False, server_default=text("5")),
    # JSON of an instant or of a local time in each recipient's zone.
    Column("send_at", Text, nullable=True),
    Column("is_development", Boolean, nullable=False, server_default=text("false")),
    # Whether it is shown unasked, so that a cap counts it.
    Column("is_loud", Boolean, nullable=False, server_default=text("true")),
    # The sealed key of a sender whose app is not in the registry.
    Column("sealed_key", LargeBinary, nullable=True),
    Column("replaces", Text, nullable=True),
    _instant("cancelled_at"),
    # Sessions that a broadcast had not reached when it was cancelled.
    Column("cancelled", Integer, nullable=False, server_default=text("0")),
    # On PostgreSQL each partition has such an index of its own.
    UniqueConstraint("public_id").ddl_if(dialect="sqlite"),
    Index("ix_notifications_created_at", "created_at"),
    # The newest of one app, page by page.
    Index("ix_notifications_app", "app", "id"),
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
    _service(is_key=True),
    # When the push service first accepted a push this way.
    _instant("accepted_at"),
    # While it is open: the reason, since when, and when the next probe is sent.
    Column("reason", Text, nullable=True),
    Column("detail", Text, nullable=True),
    _instant("stopped_at"),
    _instant("probe_at"),
    Column("probes", Integer, nullable=False, server_default=text("0")),
    # The worker that may send the one probe.
    Column("prober", _Id, ForeignKey("workers.id", ondelete="SET NULL"), nullable=True),
    sqlite_with_rowid=False,
)

idempotency: Final = Table(
    "idempotency",
    metadata,
    Column("app", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("notification_id", Text, nullable=False),
    _instant("created_at", required=True),
    Index("ix_idempotency_created_at", "created_at"),
    sqlite_with_rowid=False,
)

workers: Final = Table(
    "workers",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    # The last heartbeat, in milliseconds of the monotonic clock since boot.
    Column("boot", Text, nullable=False),
    Column("beat", BigInteger, nullable=False),
)

revocations: Final = Table(
    "revocations",
    metadata,
    Column("id", _Id, primary_key=True),
    # The worker that has to release the sessions; it deletes the row afterwards.
    Column("worker_id", _Id, ForeignKey("workers.id", ondelete="CASCADE"), nullable=False),
    # A JSON list of the ids of sessions.
    Column("sessions", Text, nullable=False),
    Index("ix_revocations_worker_id", "worker_id"),
)

nodes: Final = Table(
    "nodes",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", Text, nullable=False),
    # A server answers requests; a worker only sends.
    Column("kind", Text, nullable=False),
    # The version of Handbell that runs there, and the newest schema that it knows.
    Column("version", Text, nullable=False),
    Column("revision", Text, nullable=False),
    _instant("started_at", required=True),
    # By the database server's clock, where there is one.
    _instant("seen_at", required=True),
    # Its worker, while it has one.
    Column("worker_id", _Id, nullable=True),
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

cap_claims: Final = Table(
    "cap_claims",
    metadata,
    # What a worker has let through an app's cap and not written down yet, for the other workers.
    Column("user_id", _Id, primary_key=True, autoincrement=False),
    Column("notification_id", _Id, primary_key=True, autoincrement=False),
    Column(
        "worker_id",
        _Id,
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

shards: Final = Table(
    "shards",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("notification_id", _Id, nullable=False),
    # The app's sessions; or those that got the notification of this row.
    Column("source_id", _Id, nullable=True),
    Column("urgency", Integer, nullable=False),
    # Done up to position; the shard ends at last.
    Column("position", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    _instant("due_at", required=True),
    # The worker that owns it; NULL when there is none.
    Column("worker_id", _Id, nullable=True),
    # Some sessions after position may have been sent to already.
    Column("is_resumed", Boolean, nullable=False, server_default=text("false")),
    # Why it waits until due_at.
    Column("reason", Text, nullable=True),
    # JSON: the time zones whose sessions it is for, "" for those that name none; NULL is for all.
    Column("zones", Text, nullable=True),
    # Others span the same sessions, so those that have a delivery are passed over.
    Column("is_split", Boolean, nullable=False, server_default=text("false")),
    _of_notification(),
    Index("ix_shards_urgency_due_at", "urgency", "due_at"),
    Index("ix_shards_notification_id", "notification_id"),
)

deliveries: Final = Table(
    "deliveries",
    metadata,
    Column("notification_id", _Id, primary_key=True, autoincrement=False),
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
    _instant("due_at"),
    Column("worker_id", _Id, nullable=True),
    # It may have been sent before, so each repeat carries a collapse id.
    Column("is_repeat", Boolean, nullable=False, server_default=text("false")),
    # When its retry period begins: its first attempt, moved by the time it was held since.
    _instant("begun_at"),
    _instant("sent_at"),
    _instant("finished_at"),
    _instant("displayed_at"),
    _instant("opened_at"),
    CheckConstraint(
        # This order lets SQLite use the index without a temporary table.
        "state = 'sent' OR "
        "state IN ('queued', 'sending', 'held', 'failed', 'expired', 'cancelled')",
        name="state",
    ),
    _of_notification(),
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
    # Keeps the rows of one broadcast adjacent, instead of spread over a second tree.
    sqlite_with_rowid=False,
)

tallies: Final = Table(
    "tallies",
    metadata,
    # The app id in full; the start of the hour.
    Column("app", Text, primary_key=True),
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    _service(is_key=True),
    Column("sent", Integer, nullable=False, server_default=text("0")),
    # Failed or expired.
    Column("failed", Integer, nullable=False, server_default=text("0")),
    Column("displayed", Integer, nullable=False, server_default=text("0")),
    Column("opened", Integer, nullable=False, server_default=text("0")),
    sqlite_with_rowid=False,
)

webhooks: Final = Table(
    "webhooks",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("app_id", _Id, ForeignKey("apps.id", ondelete="CASCADE"), nullable=False),
    Column("url", Text, nullable=False),
    Column("sealed_secret", LargeBinary, nullable=False),
    # The event names that it is called for, separated by commas.
    Column("events", Text, nullable=False),
    Column("is_enabled", Boolean, nullable=False, server_default=text("true")),
    _instant("created_at", required=True),
    UniqueConstraint("app_id", "url"),
    sqlite_autoincrement=True,
)

webhook_calls: Final = Table(
    "webhook_calls",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("webhook_id", _Id, ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    # The call id that the receiver sees; the same for every repeat.
    Column("message_id", Text, nullable=False, unique=True),
    Column("body", Text, nullable=False),
    Column("state", Text, nullable=False),
    # When it is due; while in progress, when the caller's lease ends.
    _instant("due_at"),
    Column("lease", Text, nullable=True),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("last_status", Integer, nullable=True),
    Column("last_reason", Text, nullable=True),
    _instant("created_at", required=True),
    _instant("finished_at"),
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

proofs: Final = Table(
    "proofs",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("session_id", _Id, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    # SHA-256 of the token in the mailed link.
    Column("digest", Text, nullable=False, unique=True),
    _instant("created_at", required=True),
    _instant("expires_at", required=True),
    # When the link is to be mailed, first or again; NULL once that is over.
    _instant("mail_due_at"),
    _instant("used_at"),
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
    Column("app_id", _Id, ForeignKey("apps.id", ondelete="CASCADE"), primary_key=True),
    # SHA-256 of a used token: each is valid once.
    Column("digest", Text, primary_key=True),
    _instant("expires_at", required=True),
    Index("ix_identity_tokens_expires_at", "expires_at"),
    sqlite_with_rowid=False,
)

templates: Final = Table(
    "templates",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("app_id", _Id, ForeignKey("apps.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    # JSON, in the format of creation.template.
    Column("content", Text, nullable=False),
    _instant("created_at", required=True),
    _instant("updated_at", required=True),
    UniqueConstraint("app_id", "name"),
)

api_keys: Final = Table(
    "api_keys",
    metadata,
    Column("id", _Id, primary_key=True),
    # The visible part of the key.
    Column("prefix", Text, nullable=False, unique=True),
    # SHA-256 of the whole key: it is random, so a slow hash would gain nothing.
    Column("digest", Text, nullable=False),
    Column("name", Text, nullable=False),
    # The names of the scopes, separated by commas.
    Column("scopes", Text, nullable=False),
    # NULL allows every app.
    Column("app_id", _Id, ForeignKey("apps.id", ondelete="CASCADE"), nullable=True),
    _instant("created_at", required=True),
    _instant("used_at"),
    _instant("revoked_at"),
    Index("ix_api_keys_app_id", "app_id"),
    sqlite_autoincrement=True,
)

operators: Final = Table(
    "operators",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("mail", Text, nullable=False, unique=True),
    # Argon2id, with its parameters.
    Column("password", Text, nullable=False),
    _instant("created_at", required=True),
    _instant("signed_in_at"),
    sqlite_autoincrement=True,
)

sign_ins: Final = Table(
    "sign_ins",
    metadata,
    # SHA-256 of the cookie's value.
    Column("digest", Text, primary_key=True),
    Column("operator_id", _Id, ForeignKey("operators.id", ondelete="CASCADE"), nullable=False),
    _instant("created_at", required=True),
    _instant("expires_at", required=True),
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
    _instant("created_at", required=True),
    _instant("expires_at", required=True),
    _instant("used_at"),
    # Its purpose: the first operator, another one, or a new password for an existing one.
    Column("purpose", Text, nullable=False, server_default=text("'join'")),
    sqlite_with_rowid=False,
)

audit: Final = Table(
    "audit",
    metadata,
    Column("id", _Id, primary_key=True),
    _instant("at", required=True),
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

ADDRESSED: Final = 1 << 52
"""Delivery numbers below this are ids of sessions."""

SEALED: Final[tuple[Column[bytes], ...]] = tuple(
    column
    for table in metadata.sorted_tables
    for column in table.columns
    if isinstance(column.type, LargeBinary)
)
"""The columns of secrets, which the installation's key opens."""
