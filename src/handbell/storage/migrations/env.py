"""What Alembic runs: it migrates over the connection and within the transaction it is handed."""

from alembic import context

from handbell.storage.migrations import VERSION_TABLE
from handbell.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
