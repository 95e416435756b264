"""Classify outcomes and record them with session changes, hourly counts and webhook calls.

In: outcomes as gateways report them. Out: rows, in one transaction per batch, then events.
Promise: every push that was handed over ends in exactly one row; events follow the commit.
"""
