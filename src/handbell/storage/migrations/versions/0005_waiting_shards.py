"""What a broadcast waits for is said by its shards: why, and for which time zones."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_SESSIONS = "ix_sessions_app_id_status"


def upgrade() -> None:
    op.add_column("shards", sa.Column("reason", sa.Text(), nullable=True))
    op.add_column("shards", sa.Column("zones", sa.Text(), nullable=True))
    is_false = sa.text("false")
    op.add_column(
        "shards", sa.Column("is_split", sa.Boolean(), server_default=is_false, nullable=False)
    )
    op.execute(
        "UPDATE shards SET reason = 'Scheduled' WHERE worker_id IS NULL AND notification_id IN "
        "(SELECT id FROM notifications WHERE send_at IS NOT NULL)"
    )
    op.drop_index(_SESSIONS, "sessions")
    op.create_index(_SESSIONS, "sessions", ["app_id", "status", "id", "time_zone"], unique=False)
