"""What the ledger forgets, and what it never does; the clock is moved, nothing waits."""

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import insert, select
from tests.ledger_book import DAY, Book

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.creation.recipients import EVERYBODY, Recipients
from handbell.delivery.accept.store import Order
from handbell.delivery.delivery import Target
from handbell.storage.database import Database
from handbell.storage.tables import circuits

# How PostgreSQL forgets what ended, by partitions, is in test_partitions.
pytestmark = pytest.mark.databases


@pytest.fixture
def book(database_url: str) -> Iterator[Book]:
    """Give an empty ledger."""
    database = Database.open(database_url)
    yield Book(database)
    database.close()


@pytest.mark.databases("sqlite")
def test_what_ended_long_ago_is_forgotten_in_small_steps(book: Book) -> None:
    """No step removes more rows than it may; at the end nothing old is left."""
    book.end(book.accept(1200))
    book.at += 91 * DAY
    steps = []
    while removed := book.pruner().step(500):
        steps.append(removed)
    assert steps == [500, 500, 201]
    assert book.left() == (0, 0, 0)


@pytest.mark.databases("sqlite")
def test_what_is_not_old_stays(book: Book) -> None:
    """Ninety days are kept whole, and another number of days as it is set."""
    book.end(book.accept(3))
    book.at += 89 * DAY
    assert book.pruner().step() == 0
    assert book.left() == (1, 3, 0)
    assert asyncio.run(book.pruner(keep_days=30).prune()) == 4


def test_what_has_not_ended_is_never_touched(book: Book) -> None:
    """A delivery that waits keeps its notification, however old; ended ones beside it go."""
    acceptance = book.accept(3)
    worker = book.known_workers.enlist()
    taken = book.queue.claim_due(worker, 5, 1)
    assert len(taken) == 1
    book.end(acceptance)
    book.at += 1000 * DAY
    asyncio.run(book.pruner().prune())
    assert book.left() == (1, 1, 0)
    book.known_workers.retire(worker)
    asyncio.run(book.pruner().prune())
    assert book.left() == (1, 1, 0)


def test_a_broadcast_that_is_not_finished_is_never_touched(book: Book) -> None:
    """Sessions that a broadcast has not come to keep all of it."""
    book.registry.register(book.app, "test@4d.com", "ab" * 32)
    order = Order(app=book.app, content=Notification(title="Hello"), recipients=EVERYBODY.to_dict())
    book.sends.accept(order, None)
    book.at += 1000 * DAY
    assert asyncio.run(book.pruner().prune()) == 0
    assert book.left() == (1, 0, 0)


@pytest.mark.databases("sqlite")
def test_what_went_out_late_is_kept_from_then_on(book: Book) -> None:
    """A delivery is as old as its end, not as its notification."""
    acceptance = book.accept(1)
    book.at += 80 * DAY
    book.end(acceptance)
    book.at += 80 * DAY
    assert asyncio.run(book.pruner().prune()) == 0
    book.at += 11 * DAY
    assert asyncio.run(book.pruner().prune()) == 2


def test_a_repeated_call_finds_the_first_answer_for_thirty_days(book: Book) -> None:
    """With few days kept, a key and what it leads to stay for thirty; then the key is free."""
    first = book.accept(2, key="order-7")
    book.end(first)
    plain = book.accept(2)
    book.end(plain)
    book.at += 29 * DAY
    asyncio.run(book.pruner(keep_days=7).prune())
    assert book.left() == (1, 2, 1)
    repeated = book.accept(2, key="order-7")
    assert (repeated.id, repeated.is_former) == (first.id, True)
    book.at += 2 * DAY
    asyncio.run(book.pruner(keep_days=7).prune())
    assert book.left() == (0, 0, 0)
    assert not book.accept(2, key="order-7").is_former


@pytest.mark.databases("sqlite")
def test_keys_live_as_long_as_their_notifications(book: Book) -> None:
    """With many days kept, a key never outlives its notification, nor the other way round."""
    book.end(book.accept(1, key="order-7"))
    book.at += 89 * DAY
    asyncio.run(book.pruner().prune())
    assert book.left() == (1, 1, 1)
    book.at += 2 * DAY
    for _ in range(3):
        book.pruner().step(1)
        _, _, keys = book.left()
        assert keys == 0
    assert book.left() == (0, 0, 0)


def test_circuits_of_apps_that_are_gone_are_forgotten(book: Book) -> None:
    """So are outages that nobody has probed for a day; what still counts stays."""
    now = int(book.now() * 1000)
    sender = "TEAM123456.com.sample.sender"
    places = {
        "gone": ("TEAM123456.com.sample.gone", "production", now),
        "removed": ("TEAM123456.com.sample.removed", "development", None),
        "kept": (book.app.id, "production", now),
        "sender": (sender, "production", now),
        "outage": ("", "production", now),
        "former outage": ("", "development", now - 2 * DAY * 1000),
    }
    with book.database.write() as connection:
        for credential, (app, environment, probe_at) in places.items():
            connection.execute(
                insert(circuits).values(
                    app=app,
                    environment=environment,
                    credential=credential,
                    topic="",
                    reason="BadTopic" if probe_at else None,
                    stopped_at=probe_at,
                    probe_at=probe_at,
                )
            )
    target = Target(gateway="apns", address="a1" * 32, environment="production")
    order = Order(
        app=App.read_id(sender),
        content=Notification(title="Hello"),
        recipients=Recipients.read([target.address]).to_dict(),
        sealed_key=b"sealed",
    )
    book.sends.accept(order, [target])
    asyncio.run(book.pruner().prune())
    with book.database.read() as connection:
        left = set(connection.scalars(select(circuits.c.credential)))
    assert left == {"kept", "sender", "outage"}
