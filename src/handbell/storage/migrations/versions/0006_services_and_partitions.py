"""Several push services, ids of apps, nodes, dead letters, and a ledger in partitions."""

import re

import sqlalchemy as sa
from alembic import op

from handbell.storage import partitions
from handbell.storage.migrations.divide import divide
from handbell.storage.migrations.rebuild import rebuild, with_column

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_SERVICE = "service TEXT DEFAULT 'apns' NOT NULL"
_APPS = ("android_package TEXT", "android_fingerprints TEXT", "web_origin TEXT")
_SESSIONS = (
    _SERVICE,
    "kind TEXT DEFAULT 'device' NOT NULL",
    "address TEXT",
    "device_id TEXT",
)
_FAILURES = "failures INTEGER DEFAULT 0 NOT NULL"
_IS_DEAD_LETTER = sa.text("state = 'dead_letter'")
_STATES = (
    "state = 'sent' OR "
    "state IN ('queued', 'sending', 'held', 'failed', 'dead_letter', 'expired', 'cancelled')"
)
_PROBER = "REFERENCES workers (id) ON DELETE SET NULL"
_APPLES_ID = "team_id || '.' || bundle_id"
_ID_WITH_TIME = (
    f"((floor(extract(epoch FROM now()))::bigint - {partitions.EPOCH}) << {partitions.NUMBER_BITS})"
    f" | (nextval('notification_numbers') & {(1 << partitions.NUMBER_BITS) - 1})"
)
_OTHERS = sa.text("service <> 'apns'")
_OWNED = sa.text("status IN ('active', 'quarantined')")


def upgrade() -> None:
    _create_nodes()
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        _alter_sqlite(connection)
    else:
        _alter_server()
        _divide_ledger(connection)
    op.drop_index("uq_sessions_owner", "sessions")
    op.create_index(
        "uq_sessions_owner",
        "sessions",
        ["app_id", "token", "service"],
        unique=True,
        sqlite_where=_OWNED,
        postgresql_where=_OWNED,
    )
    op.create_index(
        "ix_sessions_other_services",
        "sessions",
        ["app_id", "service"],
        sqlite_where=_OTHERS,
        postgresql_where=_OTHERS,
    )


def _create_nodes() -> None:
    op.create_table(
        "nodes",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("worker_id", _ID, nullable=True),
        sa.Column("secret_keys", sa.Text(), nullable=True),
        sa.Column("figures", sa.Text(), nullable=True),
        sa.CheckConstraint("kind IN ('server', 'worker')", name=op.f("ck_nodes_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_nodes")),
    )
    op.create_table(
        "installation",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_installation")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "cap_claims",
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("notification_id", _ID, nullable=False),
        sa.Column("worker_id", _ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["worker_id"],
            ["workers.id"],
            name=op.f("fk_cap_claims_worker_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "user_id", "notification_id", "worker_id", name=op.f("pk_cap_claims")
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_cap_claims_worker_id", "cap_claims", ["worker_id"])
    op.create_table(
        "shared_buckets",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("full_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_shared_buckets")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_shared_buckets_full_at", "shared_buckets", ["full_at"])


def _alter_sqlite(connection: sa.Connection) -> None:
    rebuild(connection, "apps", _with_ids, {"public_id": _APPLES_ID})
    rebuild(connection, "sessions", with_column(*_SESSIONS))
    rebuild(connection, "credentials", _of_any_kind)
    rebuild(connection, "tallies", _with_service_in_key)
    rebuild(connection, "circuits", _with_prober)
    rebuild(connection, "deliveries", _with_dead_letters)
    rebuild(connection, "shards", with_column(_FAILURES))
    _index_dead_letters()


def _with_dead_letters(made: str) -> str:
    return with_column(_FAILURES)(
        made.replace("'failed', 'expired'", "'failed', 'dead_letter', 'expired'")
    )


def _index_dead_letters() -> None:
    op.create_index(
        "ix_deliveries_dead_letter",
        "deliveries",
        ["notification_id"],
        sqlite_where=_IS_DEAD_LETTER,
        postgresql_where=_IS_DEAD_LETTER,
    )


def _with_ids(made: str) -> str:
    optional = re.sub(r"\b(team_id|bundle_id) TEXT NOT NULL", r"\1 TEXT", made)
    added = with_column("public_id TEXT NOT NULL", *_APPS)(optional)
    unique = ", \n\tCONSTRAINT uq_apps_public_id UNIQUE (public_id)\n)"
    return re.sub(r"\s*\)$", unique, added)


def _of_any_kind(made: str) -> str:
    added = with_column(_SERVICE)(made)
    return re.sub(r",\s*CONSTRAINT ck_credentials_kind CHECK \([^)]*\)\)", "", added)


def _with_service_in_key(made: str) -> str:
    added = with_column(_SERVICE)(made)
    return re.sub(r"(PRIMARY KEY \([^)]*)\)", r"\1, service)", added)


def _with_prober(made: str) -> str:
    added = with_column("prober INTEGER")(_with_service_in_key(made))
    key = f", \n\tCONSTRAINT fk_circuits_prober FOREIGN KEY(prober) {_PROBER}"
    return re.sub(r"(PRIMARY KEY \([^)]*\))", rf"\1{key}", added)


def _alter_server() -> None:
    op.execute("ALTER TABLE apps ADD COLUMN public_id TEXT")
    op.execute(f"UPDATE apps SET public_id = {_APPLES_ID}")  # noqa: S608 - names of columns only
    for column in ("team_id", "bundle_id"):
        op.alter_column("apps", column, nullable=True)
    op.alter_column("apps", "public_id", nullable=False)
    op.create_unique_constraint(op.f("uq_apps_public_id"), "apps", ["public_id"])
    for table, columns in {
        "apps": _APPS,
        "sessions": _SESSIONS,
        "credentials": (_SERVICE,),
        "circuits": (_SERVICE,),
        "tallies": (_SERVICE,),
        "deliveries": (_FAILURES,),
        "shards": (_FAILURES,),
    }.items():
        for column in columns:
            op.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
    op.execute(
        f"ALTER TABLE circuits ADD COLUMN prober BIGINT CONSTRAINT fk_circuits_prober {_PROBER}"
    )
    op.drop_constraint(op.f("ck_credentials_kind"), "credentials", type_="check")
    op.drop_constraint(op.f("ck_deliveries_state"), "deliveries", type_="check")
    op.create_check_constraint(op.f("ck_deliveries_state"), "deliveries", _STATES)
    _index_dead_letters()
    for table, key in {
        "circuits": ["app", "environment", "credential", "topic"],
        "tallies": ["app", "hour"],
    }.items():
        name = op.f(f"pk_{table}")
        op.drop_constraint(name, table, type_="primary")
        op.create_primary_key(name, table, [*key, "service"])


def _divide_ledger(connection: sa.Connection) -> None:
    for table in ("deliveries", "shards"):
        # Each row written would look up its notification, and each partition dropped all rows.
        op.drop_constraint(op.f(f"fk_{table}_notification_id"), table, type_="foreignkey")
    op.drop_constraint(op.f("uq_notifications_public_id"), "notifications", type_="unique")
    op.execute("CREATE UNIQUE INDEX notifications_before_public_id ON notifications (public_id)")
    op.execute("ALTER TABLE notifications ALTER COLUMN id DROP DEFAULT")
    op.execute("DROP SEQUENCE IF EXISTS notifications_id_seq")
    op.execute("CREATE SEQUENCE notification_numbers")
    now: float = connection.scalar(sa.text("SELECT extract(epoch FROM now())"))
    for table in ("notifications", "deliveries"):
        divide(connection, table, end=partitions.id_at(partitions.day_of(now)))
    op.execute(f"ALTER TABLE notifications ALTER COLUMN id SET DEFAULT {_ID_WITH_TIME}")
    partitions.make_ahead(connection, partitions.FIRST_DAYS)
