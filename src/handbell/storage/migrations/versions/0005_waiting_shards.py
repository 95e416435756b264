"""What a broadcast waits for is said by its shards: why, and for which time zones."""

import sqlalchemy as sa
from alembic import op

from handbell.storage.migrations.rebuild import rebuild, with_column

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_SESSIONS = "ix_sessions_app_id_status"
_COLUMNS = ("reason TEXT", "zones TEXT", "is_split BOOLEAN DEFAULT false NOT NULL")


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        for column in _COLUMNS:
            rebuild(connection, "shards", with_column(column))
    else:
        for column in _COLUMNS:
            op.execute(f"ALTER TABLE shards ADD COLUMN {column}")
    scheduled = sa.text(
        "UPDATE shards SET reason = 'Scheduled' WHERE worker_id IS NULL AND notification_id IN "
        "(SELECT id FROM notifications WHERE send_at IS NOT NULL)"
    )
    connection.execute(scheduled)
    op.drop_index(_SESSIONS, "sessions")
    op.create_index(_SESSIONS, "sessions", ["app_id", "status", "id", "time_zone"], unique=False)
