"""An HTTP/1.1 server for ASGI applications with limits for clients from accept on.

httptools (llhttp) parses; all limits are in :class:`~handbell.http_server.bounds.Bounds`. See
docs/decisions/0017 for why it is our own.
"""
