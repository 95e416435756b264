"""Lease due work to one worker at a time, and release what dead workers held.

In: rows of deliveries and shards that fall due. Out: leased deliveries and pages of sessions.
Promise: what is taken belongs to one live worker; a lease that ends gives everything back.
"""
