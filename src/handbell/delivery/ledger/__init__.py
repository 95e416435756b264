"""The ledger: outcomes of notifications, and changes to them by people.

In: queries (lists, counts, why), receipts, cancels, retention, erasure. Out: reports.
Promise: each read is one snapshot of the database; data is removed in small transactions.
"""
