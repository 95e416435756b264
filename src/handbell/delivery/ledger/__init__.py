"""Read what became of notifications, and take what people do to them.

In: questions (lists, counts, why), receipts, cancels, retention, erasure. Out: reports.
Promise: reads one state of the database; what is forgotten is forgotten in small steps.
"""
