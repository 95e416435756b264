"""Judge what came back and write it: outcomes, session changes, hourly counts, webhook calls.

In: outcomes as gateways report them. Out: rows, in one transaction per batch, then events.
Promise: every push that was handed over ends in exactly one row; events follow the commit.
"""
