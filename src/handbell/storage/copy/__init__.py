"""A filled SQLite database, copied into PostgreSQL.

In comes a source that nobody uses and an empty target; out comes a target that goes on with the
source's work, and a report. Rows are streamed table by table, in the order of their keys, and each
page is committed with how far its table is: a copy that was cut goes on there, with no row twice.
Both databases are closed from the first page on (see :mod:`handbell.storage.installation`); the
target is opened by the last transaction, the source stays closed.
"""
