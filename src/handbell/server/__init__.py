"""The send server: HTTP API, pages of mailed links and console over one :class:`System`.

Every route has its need in one table (:mod:`.routes`); a guard in front of each route sees to it,
so a handler cannot forget it.
"""
