"""The schema: the tables that stores use and that Alembic compares with.

All instants are UNIX milliseconds (UTC) in integers; ``NULL`` for events that have not happened.
"""

from typing import Final

from sqlalchemy import Column, LargeBinary

from .access import api_keys, audit, invitations, operators, sign_ins
from .columns import metadata
from .fleet import (
    cap_claims,
    circuits,
    installation,
    nodes,
    revocations,
    shared_buckets,
    wall_clock,
    workers,
)
from .hooks import webhook_calls, webhooks
from .ledger import ADDRESSED, deliveries, idempotency, notifications, shards, tallies
from .people import OF_OTHER_SERVICES, identity_tokens, proofs, sessions, users
from .publishing import apps, credentials, templates

__all__ = [
    "ADDRESSED",
    "OF_OTHER_SERVICES",
    "SEALED",
    "api_keys",
    "apps",
    "audit",
    "cap_claims",
    "circuits",
    "credentials",
    "deliveries",
    "idempotency",
    "identity_tokens",
    "installation",
    "invitations",
    "metadata",
    "nodes",
    "notifications",
    "operators",
    "proofs",
    "revocations",
    "sessions",
    "shards",
    "shared_buckets",
    "sign_ins",
    "tallies",
    "templates",
    "users",
    "wall_clock",
    "webhook_calls",
    "webhooks",
    "workers",
]

SEALED: Final[tuple[Column[bytes], ...]] = tuple(
    column
    for table in metadata.sorted_tables
    for column in table.columns
    if isinstance(column.type, LargeBinary)
)
"""The columns of secrets, which the installation's key opens."""
