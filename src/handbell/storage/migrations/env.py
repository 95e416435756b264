"""What Alembic runs: it migrates over the connection and within the transaction it is handed."""

from alembic import context

from handbell.storage.tables import metadata

from . import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
