"""What PostgreSQL cannot alter: a table becomes a divided one, with its rows as a partition."""

from sqlalchemy import Connection, text

from handbell.storage.partitions import BEFORE, DEFAULT, KEY_OF, add_table

_INDEXES = """
    SELECT indexname AS name, indexdef AS made FROM pg_indexes
    WHERE schemaname = current_schema() AND tablename = :table
"""
_KEY = """
    SELECT conname AS name, pg_get_constraintdef(oid) AS made FROM pg_constraint
    WHERE conrelid = to_regclass(:table) AND contype = 'p'
"""


def divide(connection: Connection, table: str, *, end: int) -> None:
    """Make a table one that is divided by ranges of ids; its rows have ids below ``end``.

    Rows and indexes stay where they are, as the partition ``before``. What comes from ``end`` on
    goes to ``default`` as long as there is no partition for it.
    """

    def run(statement: str) -> None:
        connection.execute(text(statement))

    key = connection.execute(text(_KEY), {"table": table}).one()
    indexes = connection.execute(text(_INDEXES), {"table": table}).all()
    before = f"{table}_{BEFORE}"
    run(f"ALTER TABLE {table} RENAME TO {before}")
    for index in indexes:
        if not index.name.startswith(before):
            run(f"ALTER INDEX {index.name} RENAME TO {index.name}_{BEFORE}")
    run(
        f"CREATE TABLE {table} (LIKE {before} INCLUDING DEFAULTS INCLUDING CONSTRAINTS) "
        f"PARTITION BY RANGE ({KEY_OF[table]})"
    )
    run(f"ALTER TABLE {table} ADD CONSTRAINT {key.name} {key.made}")
    for index in indexes:
        if index.name != key.name and not index.name.startswith(before):
            # The text of an index names its table, which is the new one now.
            run(index.made)
    run(f"ALTER TABLE {table} ATTACH PARTITION {before} FOR VALUES FROM (MINVALUE) TO ({end})")
    add_table(connection, table, f"{table}_{DEFAULT}")
    run(f"ALTER TABLE {table} ATTACH PARTITION {table}_{DEFAULT} DEFAULT")
