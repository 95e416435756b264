"""Partitions of the ledger on PostgreSQL: made ahead, dropped when nothing in them is open."""

import asyncio
import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from bench.postgresql import PostgresServer
from sqlalchemy import text, update
from tests.ledger_book import DAY, Book

from handbell.creation.notification import Notification
from handbell.creation.recipients import EVERYBODY
from handbell.delivery.accept.store import Acceptance, Order
from handbell.delivery.ledger.retention import Pruner
from handbell.delivery.ledger.store import DELIVERIES
from handbell.storage.database import Database
from handbell.storage.partitions import (
    AHEAD_DAYS,
    DEFAULT,
    FIRST_DAYS,
    Partition,
    id_at,
    instant_of,
    oldest_open,
    read_partitions,
)
from handbell.storage.tables import deliveries

OLD = 90 + FIRST_DAYS + 1
"""After so many days the partition of today is old as a whole."""


@pytest.fixture
def book(postgresql: PostgresServer) -> Iterator[Book]:
    """Give an empty ledger on PostgreSQL."""
    with postgresql.database() as url, closing(Database.open(url)) as database:
        yield Book(database)


def partitions_of(database: Database) -> list[Partition]:
    """Return the partitions that there are, in their order."""
    with database.read() as connection:
        return read_partitions(connection)


def tables_of(database: Database, acceptance: Acceptance) -> set[str]:
    """Return the tables in which a notification and its deliveries lie."""
    statement = text(
        "SELECT tableoid::regclass::text FROM notifications WHERE id = :row UNION "
        "SELECT tableoid::regclass::text FROM deliveries WHERE notification_id = :row"
    )
    with database.read() as connection:
        return set(connection.scalars(statement, {"row": acceptance.row}))


def forget_ahead(database: Database) -> None:
    """Take the partitions away that were made ahead, as if time had passed and nobody had come."""
    with database.write() as connection:
        for one in read_partitions(connection):
            if one.first is not None:
                names = f"{one.table('notifications')}, {one.table('deliveries')}"
                connection.execute(text(f"DROP TABLE {names}"))


def are_seamless(found: list[Partition]) -> bool:
    """Return whether each partition begins where the one before it ends."""
    return [one.end for one in found[:-1]] == [one.first for one in found[1:]]


def test_a_new_database_has_partitions_for_the_days_ahead(book: Book) -> None:
    """A row lies in the partition of its day, and what it refers to lies in the same one."""
    found = partitions_of(book.database)
    assert found[0].first is None
    assert are_seamless(found)
    assert instant_of(found[-1].end) >= time.time() + AHEAD_DAYS * DAY
    accepted = book.accept(2)
    assert abs(instant_of(accepted.row) - time.time()) < 60
    (mine,) = [one for one in found if (one.first or 0) <= accepted.row < one.end]
    assert tables_of(book.database, accepted) == {
        mine.table("notifications"),
        mine.table("deliveries"),
    }


def test_many_ids_of_one_moment_are_distinct_and_matched(book: Book) -> None:
    """A large batch gets an id for each notification, also where the low bits start anew."""
    with book.database.write() as connection:
        connection.execute(text("SELECT setval('notification_numbers', (1 << 20) - 50)"))
    accepted = [book.accept(1) for _ in range(100)]
    assert len({one.row for one in accepted}) == 100
    for one in accepted:
        assert book.ledger.find(book.app, one.id).id == one.row


def test_nothing_is_refused_where_nobody_made_partitions(book: Book) -> None:
    """What comes meanwhile lies in the last resort, and is found, sent and forgotten there."""
    forget_ahead(book.database)
    stray = book.accept(3)
    expected = {f"notifications_{DEFAULT}", f"deliveries_{DEFAULT}"}
    assert tables_of(book.database, stray) == expected
    book.pruner().make_partitions()
    assert tables_of(book.database, stray) == expected
    made = [one for one in partitions_of(book.database) if one.first is not None]
    # From the next day on there is a place for everything.
    assert instant_of(made[0].first or 0) == (int(time.time()) // DAY + 1) * DAY
    assert are_seamless(made)
    assert len(book.ledger.deliveries_of(stray.id)) == 3
    book.end(stray)
    book.at += 91 * DAY
    assert asyncio.run(book.pruner().prune()) == 4
    assert book.left() == (0, 0, 0)


def url_of(book: Book) -> str:
    """Return the URL of a ledger's database."""
    return book.database._url.render_as_string(hide_password=False)  # noqa: SLF001 - it is a test's


MAKER = """
import sys
from handbell.delivery.ledger.old_partitions import make_partitions
from handbell.storage.database import Database
database = Database.open(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
make_partitions(database, 7)
"""


def test_several_machines_make_each_partition_once(book: Book) -> None:
    """Four processes begin at once: none fails, and every day has one partition."""
    forget_ahead(book.database)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", MAKER, url_of(book)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    ended = [process.communicate("go\n", timeout=50) for process in started]
    assert [error for _, error in ended] == [""] * 4
    found = partitions_of(book.database)
    assert are_seamless(found)
    spans = {(one.end - (one.first or 0)) >> 20 for one in found if one.first is not None}
    assert spans == {DAY}
    assert AHEAD_DAYS < len(found) <= AHEAD_DAYS + 2


def test_forgetting_is_dropping(book: Book) -> None:
    """When a partition is old as a whole it is dropped; until then all of it is kept."""
    book.end(book.accept(700))
    before = partitions_of(book.database)
    book.at += 91 * DAY
    assert asyncio.run(book.pruner().prune()) == 0
    assert book.left() == (1, 700, 0)
    book.at += FIRST_DAYS * DAY
    assert asyncio.run(book.pruner().prune()) == 0
    assert book.left() == (0, 0, 0)
    after = partitions_of(book.database)
    assert before[0] in after
    assert before[1] not in after


def hold(book: Book) -> None:
    """Let a delivery wait for its time."""
    row = book.accept(1).row
    held = update(deliveries).where(deliveries.c.notification_id == row)
    with book.database.write() as connection:
        connection.execute(held.values(state="held", due_at=int((book.at + 200 * DAY) * 1000)))


def take(book: Book) -> None:
    """Let a worker have a delivery in hand."""
    book.accept(1)
    book.queue.claim_due(book.known_workers.enlist(), 5, 1)


def broadcast(book: Book) -> None:
    """Let a broadcast run."""
    book.registry.register(book.app, "test@4d.com", "ab" * 32)
    order = Order(app=book.app, content=Notification(title="Hello"), recipients=EVERYBODY.to_dict())
    book.sends.accept(order, None)


def broadcast_again(book: Book) -> None:
    """Let a later broadcast run to those who got an old one, which itself is done."""
    book.registry.register(book.app, "test@4d.com", "ab" * 32)
    first = book.accept(2)
    book.end(first)
    later = Order(
        app=book.app,
        content=Notification(title="Hello"),
        recipients=EVERYBODY.to_dict(),
        source=first.row,
    )
    second = book.sends.accept(later, None)
    with book.database.write() as connection:
        # As if it had been stored long after: it is in a partition of its own.
        new = id_at(book.at + 2 * FIRST_DAYS * DAY) + 1
        for table, column in (("notifications", "id"), ("shards", "notification_id")):
            moved = f"UPDATE {table} SET {column} = :new WHERE {column} = :row"  # noqa: S608 - names
            connection.execute(text(moved), {"new": new, "row": second.row})


def end_late(book: Book) -> None:
    """Let a delivery end long after its notification was accepted."""
    accepted = book.accept(1)
    book.at += 60 * DAY
    book.end(accepted)
    book.at -= 60 * DAY


@pytest.mark.parametrize("keep", [hold, take, broadcast, broadcast_again, end_late])
def test_what_is_open_keeps_its_partition(book: Book, keep: Callable[[Book], None]) -> None:
    """The ended rows beside it are removed one by one, as in a database without partitions."""
    keep(book)
    kept = book.left()
    before = partitions_of(book.database)
    book.end(book.accept(30))
    book.at += OLD * DAY
    # What got a push is read by the broadcast that goes to the same people.
    assert asyncio.run(book.pruner().prune()) == 31
    assert book.left() == kept
    assert partitions_of(book.database) == before


def test_an_idempotency_key_keeps_its_partition(book: Book) -> None:
    """With few days kept, what a repeated call is answered from stays for thirty."""
    first = book.accept(2, key="order-7")
    book.end(first)
    book.end(book.accept(2))
    book.at += 29 * DAY
    asyncio.run(book.pruner(keep_days=7).prune())
    assert book.left() == (1, 2, 1)
    repeated = book.accept(2, key="order-7")
    assert (repeated.id, repeated.is_former) == (first.id, True)
    book.at += 9 * DAY
    # The key goes by itself, and with the partition all the rest.
    assert asyncio.run(book.pruner(keep_days=7).prune()) == 1
    assert book.left() == (0, 0, 0)
    assert not book.accept(2, key="order-7").is_former


def test_several_machines_drop_at_once(book: Book) -> None:
    """One of them drops the partition, and the others find it gone."""
    book.end(book.accept(1))
    book.at += OLD * DAY
    ready = threading.Barrier(4)

    def drop() -> int:
        with closing(Database(url_of(book))) as database:
            mine = Pruner(database, keep_days=90, now=book.now)
            ready.wait(20)
            return mine.drop_partitions()

    with ThreadPoolExecutor(4) as pool:
        done = [each.result(30) for each in [pool.submit(drop) for _ in range(4)]]
    # Where each was in the other's way, the next turn does it.
    assert sum(done) + book.pruner().drop_partitions() == 1
    assert book.left() == (0, 0, 0)


@pytest.mark.parametrize("keep", [hold, take, broadcast])
def test_the_queue_looks_back_as_far_as_anything_is_open(
    book: Book, keep: Callable[[Book], None]
) -> None:
    """Where nothing is open, old partitions are passed over; where something is, none is."""
    keep(book)
    _age(book)
    assert _looks_from(book) <= 7
    with book.database.write() as connection:
        connection.execute(text("UPDATE deliveries SET due_at = NULL, worker_id = NULL"))
        connection.execute(text("DELETE FROM shards"))
    assert _looks_from(book) >= id_at(time.time() - 2 * 3600)


def test_what_is_due_is_taken_from_old_partitions_and_new_ones(book: Book) -> None:
    """What was accepted now, and what comes from a database without partitions."""
    book.accept(1)
    _age(book)
    new = book.accept(1)
    book.at += 1
    level, _ = book.queue.look()
    due = book.queue.claim_due(book.known_workers.enlist(), level, 10)
    assert [one.notification for one in due] == [7, new.row]


def _age(book: Book) -> None:
    """Let the only notification be one that has no time in its id."""
    with book.database.write() as connection:
        connection.execute(text("UPDATE notifications SET id = 7"))
        for table in ("deliveries", "shards"):
            connection.execute(text(f"UPDATE {table} SET notification_id = 7"))  # noqa: S608 - names


def _looks_from(book: Book) -> int:
    with book.database.read() as connection:
        return oldest_open(connection)


def test_dropping_waits_for_nobody_for_long(book: Book, caplog: pytest.LogCaptureFixture) -> None:
    """Where somebody reads the ledger at length it is left for later, and others go on."""
    book.end(book.accept(1))
    book.at += OLD * DAY
    slowest = 0.0
    with caplog.at_level(logging.INFO), book.database.read() as connection:
        connection.execute(text("SELECT count(*) FROM deliveries")).all()
        dropping = threading.Thread(target=book.pruner().drop_partitions)
        dropping.start()
        while dropping.is_alive():
            began = time.monotonic()
            book.left()
            slowest = max(slowest, time.monotonic() - began)
    assert "Could not drop a partition" in caplog.text
    assert slowest < 2
    assert book.left() == (1, 1, 0)
    assert book.pruner().drop_partitions() == 1
    assert book.left() == (0, 0, 0)


def test_a_user_who_may_not_change_tables_forgets_row_by_row(book: Book) -> None:
    """Without the right to make and to drop tables, everything else is as it should be."""
    book.end(book.accept(3))
    book.at += OLD * DAY
    rights = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES"
    last = partitions_of(book.database)[-1]
    with book.database.write() as connection:
        connection.execute(text("DROP ROLE IF EXISTS ledger_user"))
        connection.execute(text("CREATE ROLE ledger_user LOGIN"))
        connection.execute(text(f"GRANT {rights} IN SCHEMA public TO ledger_user"))
        names = ", ".join(last.table(table) for table in ("notifications", "deliveries"))
        connection.execute(text(f"DROP TABLE {names}"))
    with closing(Database.open(url_of(book).replace("postgres@", "ledger_user@"))) as database:
        pruner = Pruner(database, keep_days=90, now=book.now)
        pruner.make_partitions()
        assert asyncio.run(pruner.prune()) == 4
    assert book.left() == (0, 0, 0)
    with book.database.write() as connection:
        connection.execute(text("DROP OWNED BY ledger_user"))
        connection.execute(text("DROP ROLE ledger_user"))


def test_what_a_row_is_known_of_is_looked_for_in_one_partition(book: Book) -> None:
    """By a notification's row, the planner passes over all partitions but its own."""
    accepted = book.accept(2)
    statement = DELIVERIES.where(deliveries.c.notification_id == accepted.row)
    with book.database.read() as connection:
        compiled = statement.compile(connection.engine, compile_kwargs={"literal_binds": True})
        plan = "\n".join(connection.scalars(text(f"EXPLAIN {compiled}")))
    spans = set(re.findall(r"on (?:deliveries|notifications)_(\w+)", plan))
    assert spans == {name.rpartition("_")[2] for name in tables_of(book.database, accepted)}
