"""Compatibility of code and schema, and upgrades of the schema.

The database stores the oldest revision whose code still works on its schema; code declares the
oldest schema that it works on (``NEEDED``). A step that only adds (expand) keeps the code before it
working; a step that removes (contract) waits until every node is upgraded. So
servers are replaced one by one; docs/decisions/0028-keys-partitions-services.md has the order.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import Column, Connection, RowMapping, extract, func, inspect, select, text

from handbell.errors import StorageError

from .dialects import is_sqlite
from .installation import read_note, remove_note, write_note
from .migrations import HEAD, NEEDED, VERSION_TABLE
from .tables import installation, metadata, nodes

OLDEST_CODE: Final = "oldest-code"
"""The name under which the database stores the oldest revision whose code works on it."""

LIVING_SECONDS: Final = 60.0
"""How recently a node must have been seen to count as running."""


class Waiting(NamedTuple):
    """A step that waits for nodes to be upgraded: its revision, and their names."""

    revision: str
    nodes: tuple[str, ...]

    def __str__(self) -> str:
        return f"step {self.revision} waits until these are upgraded: {', '.join(self.nodes)}"


class Step(NamedTuple):
    """A revision, and the oldest one whose code works on its schema."""

    revision: str
    oldest: str


def read_revision(connection: Connection) -> str | None:
    """Return the revision of the schema, or None if there is no schema yet."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found: Any = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608
    return None if found is None else str(found)


def check_revision(connection: Connection, name: str) -> str | None:
    """Return the revision of a schema that this code works on, or may upgrade.

    None if there is none yet. Raises :class:`~handbell.errors.StorageError` for a newer one that
    this code does not work on, and for tables that are not Handbell's. ``name`` is the database's.
    """
    revision = read_revision(connection)
    if revision is None:
        if set(metadata.tables) & set(inspect(connection).get_table_names()):
            raise StorageError(
                f"{name} holds tables that are not Handbell's",
                fix="Point HANDBELL_DATABASE_URL to a database of Handbell's own",
            )
    elif revision > HEAD and _oldest_code(connection, revision) > HEAD:
        raise StorageError(
            f"{name} was written by a newer Handbell: its schema is {revision}, and this "
            f"one knows {HEAD}",
            fix="Upgrade Handbell here, or use another database",
        )
    return revision


def is_enough(revision: str | None) -> bool:
    """Return whether this code works on a schema that :func:`check_revision` has returned."""
    return revision is not None and revision >= NEEDED


def is_newest(revision: str | None) -> bool:
    """Return whether a schema needs no step known to this code."""
    return revision is not None and revision >= HEAD


def plan_steps(connection: Connection) -> list[Step]:
    """Return the missing steps of the schema, as far as the running nodes allow them.

    Raises :class:`~handbell.errors.StorageError` if they do not reach what this code needs.
    """
    revision = read_revision(connection)
    steps = _pending(revision)
    waiting = _waiting(connection, steps)
    if waiting is None:
        return steps
    allowed = [step for step in steps if step.revision < waiting.revision]
    if not is_enough(allowed[-1].revision if allowed else revision):
        raise StorageError(
            f"Older Handbells run on this database: {waiting}",
            fix="Upgrade or stop them, wait a minute, and try again",
        )
    return allowed


def take_steps(connection: Connection, steps: Sequence[Step]) -> None:
    """Apply steps of :func:`plan_steps`, within the transaction of the connection."""
    from alembic import command  # noqa: PLC0415 - slow to load, and hardly ever needed

    command.upgrade(_config(connection), steps[-1].revision)
    note_oldest(connection, steps[-1].revision, max(step.oldest for step in steps))


def read_waiting(connection: Connection) -> Waiting | None:
    """Return the next step of the schema that waits for nodes to be upgraded, if there is one."""
    revision = read_revision(connection)
    if revision is None or is_newest(revision):
        return None
    return _waiting(connection, _pending(revision))


def note_oldest(connection: Connection, revision: str, oldest: str) -> None:
    """Store the oldest revision whose code works on a schema, unless it is that schema's own."""
    if not inspect(connection).has_table(installation.name):
        return
    if oldest == revision:
        remove_note(connection, OLDEST_CODE)
    else:
        write_note(connection, OLDEST_CODE, oldest)


def _oldest_code(connection: Connection, revision: str) -> str:
    """Return the oldest revision whose code works on the schema; by default the schema's own."""
    if not inspect(connection).has_table(installation.name):
        return revision
    return read_note(connection, OLDEST_CODE) or revision


def _waiting(connection: Connection, steps: Iterable[Step]) -> Waiting | None:
    running = running_nodes(connection, nodes.c.name, nodes.c.version, nodes.c.revision)
    for step in steps:
        behind = [one for one in running if one["revision"] < step.oldest]
        if behind:
            names = sorted(f"{one['name']} ({one['version']})" for one in behind)
            return Waiting(step.revision, tuple(names))
    return None


def running_nodes(connection: Connection, *columns: Column[Any]) -> list[RowMapping]:
    """Return columns of the nodes that were seen within :data:`LIVING_SECONDS`."""
    if not inspect(connection).has_table(nodes.name):
        return []
    now = _now(connection)
    seen = select(*columns).where(nodes.c.seen_at > (now - LIVING_SECONDS) * 1000)
    return list(connection.execute(seen).mappings())


def _now(connection: Connection) -> float:
    if is_sqlite(connection):
        return time.time()
    # Compared by the server's clock, as the machines' clocks differ.
    return float(connection.execute(select(extract("epoch", func.now()))).scalar_one())


def _pending(revision: str | None) -> list[Step]:
    """Return the steps after a revision, in order."""
    return [step for step in _steps() if revision is None or step.revision > revision]


def _steps() -> Iterator[Step]:
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - slow, and hardly ever needed

    scripts = ScriptDirectory.from_config(_config())
    for script in reversed(list(scripts.walk_revisions())):
        # A step that is not declared to add only makes all code before it incompatible.
        yield Step(script.revision, getattr(script.module, "oldest", script.revision))


def _config(connection: Connection | None = None) -> Any:
    from alembic.config import Config  # noqa: PLC0415 - slow to load, and hardly ever needed

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
