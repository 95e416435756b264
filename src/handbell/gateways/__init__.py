"""Clients of push services: each knows one protocol and neither queue nor database."""
