"""Nodes: the servers and workers of an installation, as each reports with its heartbeat.

Nothing depends on it: a worker's rights are in :mod:`~handbell.delivery.queue.workers`. It shows
people which machines run, in which version, and since when.
"""

import json
import os
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import time
from types import MappingProxyType
from typing import Any, Final, Literal

from sqlalchemy import Connection, Row, delete, insert, select, update

from handbell._version import __version__
from handbell.storage.database import Database
from handbell.storage.migrations import HEAD
from handbell.storage.tables import nodes

from .workers import LEASE_SECONDS

NodeKind = Literal["server", "worker"]
"""A server answers requests, and may send as well; a worker only sends."""

KEEP_SECONDS: Final = 24 * 3600.0
"""How long a node that stopped without notice is still shown."""

_ID_BITS: Final = 53
_AWAY: Final = "broker_away_since"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A running server or worker. Instants are UNIX milliseconds.

    ``name`` is its host and its process id. ``revision`` is the newest schema that it
    knows, ``is_sending`` whether it has a worker. ``is_gone`` means that it has not been seen for
    as long as a worker's lease, without a clean stop. ``broker_away_since`` is since when the
    broker does not answer it; such a node sends nothing. ``figures`` are counts of its recent
    activity, see :class:`~handbell.delivery.observe.recent.Recent`.
    """

    name: str
    kind: str
    version: str
    revision: str
    started_at: int
    seen_at: int
    is_sending: bool
    is_gone: bool
    broker_away_since: int | None = None
    figures: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


class Presence:
    """The node of this process. Every method is one transaction.

    ``figures`` gives its recent activity, ``secret_keys`` the names of the keys that it knows,
    ``broker_away_since`` since when the broker of this process does not answer, None where it
    does; ``now`` gives UNIX seconds, by a clock that all nodes of the database share.
    """

    def __init__(
        self,
        database: Database,
        *,
        kind: NodeKind,
        figures: Callable[[], Mapping[str, float]],
        secret_keys: Callable[[], Sequence[str]] = list,
        broker_away_since: Callable[[], float | None] = lambda: None,
        now: Callable[[], float] = time,
    ) -> None:
        self._database = database
        self._kind = kind
        self._figures = figures
        self._secret_keys = secret_keys
        self._broker_away_since = broker_away_since
        self._now = now
        self._id = secrets.randbits(_ID_BITS)
        self._pid = os.getpid()

    def beat(self, worker: int | None = None) -> None:
        """Record that this process is alive, and forget nodes that are gone for long."""
        known = json.dumps([*self._secret_keys()])
        with self._database.write() as connection:
            now = int(self._now() * 1000)
            connection.execute(delete(nodes).where(nodes.c.seen_at < now - KEEP_SECONDS * 1000))
            values: dict[str, Any] = {
                "seen_at": now,
                "worker_id": worker,
                "secret_keys": known,
                "figures": json.dumps(self._all_figures()),
            }
            mine = update(nodes).where(nodes.c.id == self._id).values(values)
            if not connection.execute(mine).rowcount:
                connection.execute(insert(nodes).values(**self._entry(now), **values))

    def _all_figures(self) -> dict[str, float]:
        figures, away_since = dict(self._figures()), self._broker_away_since()
        if away_since is not None:
            figures[_AWAY] = int(away_since * 1000)
        return figures

    def _entry(self, now: int) -> dict[str, Any]:
        return {
            "id": self._id,
            "name": f"{socket.gethostname()}:{self._pid}",
            "kind": self._kind,
            "version": __version__,
            "revision": HEAD,
            "started_at": now,
        }

    def end(self) -> None:
        """Remove the node: the process stops."""
        with self._database.write() as connection:
            connection.execute(delete(nodes).where(nodes.c.id == self._id))


def read_nodes(connection: Connection, now: int) -> list[Node]:
    """Return all nodes at an instant (UNIX milliseconds).

    Servers come first; each kind is in the order in which they started.
    """
    order = (nodes.c.kind, nodes.c.started_at, nodes.c.name)
    return [_node(row, now) for row in connection.execute(select(nodes).order_by(*order))]


def _node(row: Row[Any], now: int) -> Node:
    figures = json.loads(row.figures or "{}")
    return Node(
        name=row.name,
        kind=row.kind,
        version=row.version,
        revision=row.revision,
        started_at=row.started_at,
        seen_at=row.seen_at,
        is_sending=row.worker_id is not None,
        is_gone=now - row.seen_at > LEASE_SECONDS * 1000,
        broker_away_since=figures.pop(_AWAY, None),
        figures=MappingProxyType(figures),
    )
