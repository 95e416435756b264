"""The client of Web Push: RFC 8030, with RFC 8291 and RFC 8292."""
