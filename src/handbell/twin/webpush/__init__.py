"""A push service for browsers: RFC 8030 for senders, autopush's WebSocket for a stock Firefox."""
