"""Apps, their sealed credentials, and their templates."""

from typing import Final

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from .columns import Id, instant, metadata, service

apps: Final = Table(
    "apps",
    metadata,
    Column("id", Id, primary_key=True),
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
    instant("created_at", required=True),
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
    Column("id", Id, primary_key=True),
    Column("app_id", Id, ForeignKey("apps.id", ondelete="CASCADE"), nullable=False),
    service(),
    # A key or a certificate of Apple's, or a kind of another service.
    Column("kind", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    # Limits the credential to one environment; NULL serves both.
    Column("environment", Text, nullable=True),
    Column("fingerprint", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    instant("expires_at"),
    instant("created_at", required=True),
    UniqueConstraint("app_id", "key_id"),
    sqlite_autoincrement=True,
)

templates: Final = Table(
    "templates",
    metadata,
    Column("id", Id, primary_key=True),
    Column("app_id", Id, ForeignKey("apps.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    # JSON, in the format of creation.template.
    Column("content", Text, nullable=False),
    instant("created_at", required=True),
    instant("updated_at", required=True),
    UniqueConstraint("app_id", "name"),
)
