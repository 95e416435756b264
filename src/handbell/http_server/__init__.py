"""An HTTP/1.1 server for ASGI applications, whose clients are bounded from accept on.

httptools (llhttp) reads what comes; everything that a client may do without end stands in
:class:`~handbell.http_server.bounds.Bounds`. docs/decisions/0017 tells why it is ours.
"""
