"""Chaos over processes: servers and workers on one PostgreSQL, and everything that can go wrong.

Two send servers take what callers bring, three workers send it: a broadcast, urgent sends to one
person each, and phones that change hands. Meanwhile nodes are killed, the database is killed and
started again, links between nodes and database are cut and restored, and the clock of one machine
is wrong by a minute. At the end everything that was answered with 2xx is looked for: in the
database, and where the twin counts what it accepted.
"""
