"""The send server: HTTP API, pages of mailed links and console over one :class:`System`.

Every route's requirements are in one table (:mod:`.routes`); a guard enforces them before each
handler.
"""
