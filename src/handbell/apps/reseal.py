"""Replaces the secret key of a running installation: seals everything with another key.

Every machine knows both keys by then. The first one of the machine that runs this becomes the
installation's; the nodes notice with their next heartbeat and seal with it from then on. Once all
of them say so, nothing more is sealed with another key, and what is left of it is sealed again.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Column, Connection, select, update

from handbell.errors import SettingsError
from handbell.storage.database import Database
from handbell.storage.signals import Kind
from handbell.storage.tables import SEALED, nodes
from handbell.storage.upgrade import running_nodes

from .installation_key import InstallationKey
from .vault import Vault

PAGE: Final = 500
"""How many secrets are sealed again in one transaction."""

FOLLOW_SECONDS: Final = 90.0
"""How long the nodes have to notice the new key: longer than one counts as running."""

_LOOK_SECONDS: Final = 0.5


@dataclass(slots=True)
class Resealed:
    """What was done. ``key`` is the name of the installation's key, ``others`` those of the rest.

    ``resealed`` counts the secrets sealed again, ``opened`` all that it opens now, and ``lost``
    those that no key of this machine opens, by their column.
    """

    key: str
    others: tuple[str, ...] = ()
    resealed: int = 0
    opened: int = 0
    lost: dict[str, int] = field(default_factory=dict)


class Resealer:
    """Makes a machine's first key the installation's; it may be interrupted and run again."""

    def __init__(self, database: Database, vault: Vault, installation_key: InstallationKey) -> None:
        self._database = database
        self._vault = vault
        self._installation_key = installation_key

    def run(self, *, pause: Callable[[float], object] = time.sleep) -> Resealed:
        """Seal every secret with the first of this machine's keys; return what was done.

        Raises SettingsError, and changes nothing, if this machine does not have the present key or
        a running node does not have the new one; and if a node does not take to it in time.
        """
        new, *others = self._vault.names
        self._installation_key.check()
        self._installation_key.replace(check=lambda connection: _check_known(connection, new))
        done = self._pass_over(Resealed(key=new, others=tuple(others)))
        if self._wait_for_nodes(new, pause):
            # What they sealed meanwhile with the former key.
            again = Resealed(key=new, others=done.others, resealed=done.resealed)
            done = self._pass_over(again)
        return done

    def _wait_for_nodes(self, new: str, pause: Callable[[float], object]) -> bool:
        """Return once all running nodes seal with the new key; whether there are any."""
        deadline = time.monotonic() + FOLLOW_SECONDS
        while True:
            with self._database.read() as connection:
                _check_known(connection, new)
                seal_with = [keys[0] for _, keys in _keys_of_nodes(connection)]
            if all(one == new for one in seal_with):
                return bool(seal_with)
            if time.monotonic() > deadline:
                raise SettingsError(
                    f"Not every running node seals with the key {new} yet",
                    fix="Look at handbell status and the nodes' logs, then run this again: it goes "
                    "on where it stopped. Keep the former key until then",
                )
            pause(_LOOK_SECONDS)

    def _pass_over(self, done: Resealed) -> Resealed:
        for column in SEALED:
            last = 0
            while (page := self._page(column, last, done)) is not None:
                last = page
        return done

    def _page(self, column: Column[bytes], after: int, done: Resealed) -> int | None:
        """Seal the next secrets of a column again; return the id of the last, None at the end."""
        table = column.table
        wanted = select(table.c.id, column).where(column.is_not(None), table.c.id > after)
        with self._database.read() as connection:
            rows = connection.execute(wanted.order_by(table.c.id).limit(PAGE)).all()
        anew: list[tuple[int, bytes]] = []
        for row, sealed in rows:
            name = self._vault.key_of(sealed)
            if name is None:
                place = f"{table.name}.{column.name}"
                done.lost[place] = done.lost.get(place, 0) + 1
            elif name == done.key:
                done.opened += 1
            else:
                anew.append((row, sealed))
        if anew:
            number = self._write(column, anew)
            done.resealed += number
            done.opened += number
        return rows[-1][0] if rows else None

    def _write(self, column: Column[bytes], rows: Sequence[tuple[int, bytes]]) -> int:
        table = column.table
        number = 0
        with self._database.write() as connection:
            for row, sealed in rows:
                # Whoever replaced or removed it meanwhile wins.
                its = (table.c.id == row, column == sealed)
                values = {column.name: self._vault.reseal(sealed)}
                number += connection.execute(update(table).where(*its).values(values)).rowcount
            self._database.signal(Kind.RULES)
        return number


def _keys_of_nodes(connection: Connection) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each running node and the names of its keys, the one that seals first."""
    for row in running_nodes(connection, nodes.c.name, nodes.c.secret_keys):
        yield row["name"], json.loads(row["secret_keys"] or "[]") or [""]


def _check_known(connection: Connection, key: str) -> None:
    """Raise SettingsError if a running node does not have a key."""
    if without := [name for name, keys in _keys_of_nodes(connection) if key not in keys]:
        raise SettingsError(
            f"These nodes do not have the key {key} yet, the first one of this machine: "
            f"{', '.join(sorted(without))}",
            fix="Give it to them beside the present one and restart them; or, if one of them is "
            "gone, wait a minute. Then run this again",
        )
