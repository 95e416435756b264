"""What one worker holds in memory while it sends: values and counts, no database.

In: deliveries that were taken, composed notifications, apps' rules. Out: tickets and batches.
Promise: each delivery in hand is in exactly one ticket, and counted there alone.
"""
