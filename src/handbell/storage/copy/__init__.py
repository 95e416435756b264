"""Copies a filled SQLite database into PostgreSQL.

In: a source that is not in use, and an empty target. Out: a target that continues the source's
work, and a report. Rows are streamed table by table in key order, and each page is committed with
the table's progress, so an interrupted copy resumes there, with no row twice. Both databases are
closed from the first page on (see :mod:`handbell.storage.installation`); the last transaction
opens the target, the source stays closed.
"""
