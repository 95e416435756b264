"""Accept a send: resolve its recipients, check it, and store it before the caller hears yes.

In: a notification, its recipients and options, from the front doors or the HTTP API.
Out: rows of notifications, deliveries and shards, and an acceptance (id, counts, warnings).
Promise: once a call returns, nothing of the send is lost; an idempotency key is answered once.
"""
