"""The front door to a send server elsewhere: the same calls, over HTTP."""

from .client import RemoteApp

__all__ = ["RemoteApp"]
