"""Calls of webhooks and mails of links, taken and given back by the same rules."""

import random
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import insert, select

from handbell.apps.store import AppStore
from handbell.apps.vault import Vault
from handbell.delivery.webhooks import sender
from handbell.delivery.webhooks.store import WebhookStore
from handbell.registry import proofs
from handbell.registry.store import Registry
from handbell.storage.database import Database
from handbell.storage.leases import Leases
from handbell.storage.tables import proofs as proofs_table
from handbell.storage.tables import webhook_calls

pytestmark = pytest.mark.databases

NOW = 1_700_000_000_000
BOTH = [sender.LEASES, proofs.LEASES]
SECONDS = {sender.LEASES: sender.LEASE_SECONDS, proofs.LEASES: proofs.LEASE_SECONDS}
TABLES: dict[Leases, Any] = {sender.LEASES: webhook_calls, proofs.LEASES: proofs_table}


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Open a database in which three calls and three mails are due."""
    with closing(Database.open(database_url)) as database:
        vault = Vault([Fernet.generate_key()])
        app = AppStore(database, vault).add("TEAM123456", "com.sample.myapp")
        WebhookStore(database, vault).add(app, "https://backend.example/hook")
        session = Registry(database).register(app, "test@4d.com", "ab" * 32)
        with database.write() as connection:
            for number in range(3):
                due = {"created_at": NOW, "session_id": session.id}
                connection.execute(
                    insert(proofs_table).values(
                        **due, digest=f"{number}", expires_at=NOW, mail_due_at=NOW + number
                    )
                )
                connection.execute(
                    insert(webhook_calls).values(
                        webhook_id=1,
                        message_id=f"msg_{number}",
                        body="{}",
                        state="queued",
                        due_at=NOW + number,
                        created_at=NOW,
                    )
                )
        yield database


@pytest.mark.parametrize("leases", BOTH, ids=["calls", "mails"])
def test_what_is_due_is_taken_once(database: Database, leases: Leases) -> None:
    """By the first who asks; what is not due yet by nobody, and what is over by nobody more."""
    names = map(str, count(10))
    with database.write() as connection:
        assert leases.next_due(connection) == NOW
        assert leases.take(connection, [1, 3], next(names), NOW + 1) == [1]
        assert leases.take(connection, [1, 3], next(names), NOW + 1) == []
        assert leases.take(connection, [2], "b", NOW + 1) == [2]
        assert leases.settle(connection, 2, "b", None)
        assert leases.take(connection, [2], next(names), NOW * 2) == []
        assert leases.next_due(connection) == NOW + 2


@pytest.mark.parametrize("leases", BOTH, ids=["calls", "mails"])
def test_what_a_dead_holder_had_is_taken_by_another(database: Database, leases: Leases) -> None:
    """When the lease has ended, and from then on the dead one has no say in it."""
    end = NOW + SECONDS[leases] * 1000
    with database.write() as connection:
        assert leases.take(connection, [1], "dead", NOW) == [1]
        assert leases.take(connection, [1], "other", end - 1) == []
        assert leases.take(connection, [1], "other", end) == [1]
        assert not leases.settle(connection, 1, "dead", None)
        assert not leases.give_back(connection, "dead", NOW)
        assert leases.settle(connection, 1, "other", NOW + 5)
        assert leases.take(connection, [1], "third", NOW + 5) == [1]


@pytest.mark.parametrize("leases", BOTH, ids=["calls", "mails"])
def test_what_is_given_back_is_due_at_once(database: Database, leases: Leases) -> None:
    """All that a holder has, and nothing that they are done with or others have."""
    with database.write() as connection:
        assert leases.take(connection, [2], "mine", NOW + 2) == [2]
        assert leases.take(connection, [3], "yours", NOW + 2) == [3]
        assert leases.give_back(connection, "mine", NOW + 3) == 1
        later = {row: leases.take(connection, [row], f"n{row}", NOW + 3) for row in (1, 2, 3)}
        assert later == {1: [1], 2: [2], 3: []}


@pytest.mark.parametrize("leases", BOTH, ids=["calls", "mails"])
def test_whatever_happens_a_row_is_in_one_pair_of_hands(database: Database, leases: Leases) -> None:
    """Over many random steps of holders that live and die, nobody has what another may have."""
    rng = random.Random(26)  # noqa: S311 - no secret
    lease = SECONDS[leases] * 1000
    table, names = TABLES[leases], map(str, count(10))
    now, ends = NOW, dict[int, tuple[str, int]]()
    with database.write() as connection:
        for _ in range(300):
            now += rng.choice([1, lease // 3, lease])
            row = rng.choice([1, 2, 3])
            held = ends.get(row)
            if held is not None and rng.random() < 0.4:
                assert leases.settle(connection, row, held[0], now + 1)
                del ends[row]
                continue
            name = next(names)
            took = bool(leases.take(connection, [row], name, now))
            assert not took or held is None or held[1] <= now
            assert (
                took or (held is not None and held[1] > now) or now <= _due(connection, table, row)
            )
            if took:
                ends[row] = (name, now + lease)


def _due(connection: Any, table: Any, row: int) -> int:
    column = table.c.due_at if "due_at" in table.c else table.c.mail_due_at
    return int(connection.scalar(select(column).where(table.c.id == row)))
