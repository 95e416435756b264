"""The ledger: outcomes of notifications, and changes to them by people.

In: queries (lists, counts, why), receipts, cancels, retention, erasure. Out: reports.
Promise: reads one state of the database; what is forgotten is forgotten in small steps.
"""
