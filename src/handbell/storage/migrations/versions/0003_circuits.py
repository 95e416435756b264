"""Circuits in a table of their own: one for each app, environment, key and topic, and for services.

A circuit that is open at this moment is closed by it; where the configuration is still wrong, the
next push opens it again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "circuits",
        sa.Column("app", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("credential", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("accepted_at", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("stopped_at", sa.BigInteger(), nullable=True),
        sa.Column("probe_at", sa.BigInteger(), nullable=True),
        sa.Column("probes", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint(
            "app", "environment", "credential", "topic", name=op.f("pk_circuits")
        ),
        sqlite_with_rowid=False,
    )
    for name in ("stopped_reason", "stopped_detail", "stopped_at", "probe_at", "probes"):
        op.drop_column("apps", name)
