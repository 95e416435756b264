"""What any carrier of signals promises, on each database.

Written against ``Database.signal`` and the protocol ``Signals`` alone.
"""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from handbell.storage.database import Database
from handbell.storage.signals import MOST_NUMBERS, Kind, Signal

pytestmark = pytest.mark.databases

SECONDS = 20.0
QUICK = 0.5


class Ear:
    """Hears the signals of a database, as another user of it."""

    def __init__(self, database: Database) -> None:
        self._heard: queue.SimpleQueue[Signal] = queue.SimpleQueue()
        self.leave = database.signals.subscribe(self._heard.put)

    def next(self, seconds: float = SECONDS) -> Signal:
        """Return the next signal; raise queue.Empty where none comes."""
        return self._heard.get(timeout=seconds)

    def hears(self, *signals: Signal) -> bool:
        """Return once these were heard, in this order, whatever was heard in between."""
        for signal in signals:
            while self.next() != signal:
                continue
        return True

    def await_start(self, database: Database) -> None:
        """Return once it hears what is sent, and has heard all that was sent before."""
        deadline = SECONDS / QUICK
        for number in range(1, int(deadline)):
            send(database, Kind.ENDED, [-number])
            try:
                while self.next(QUICK) != Signal(Kind.ENDED, frozenset([-number])):
                    continue
            except queue.Empty:
                continue
            return
        raise AssertionError("no signal arrives")


def send(database: Database, kind: Kind, numbers: list[int] | None = None) -> None:
    """Send one signal by a transaction of its own."""
    with database.write():
        database.signal(kind, numbers)


def _fail(database: Database) -> None:
    with database.write():
        database.signal(Kind.RULES)
        raise ZeroDivisionError


@contextmanager
def listening(database_url: str) -> Iterator[tuple[Database, Database, Ear]]:
    """Give one who sends, one who listens, and what the latter hears from now on."""
    sender = Database.open(database_url, migrate=True)
    listener = Database.open(database_url)
    ear = Ear(listener)
    try:
        ear.await_start(sender)
        yield sender, listener, ear
    finally:
        ear.leave()
        sender.close()
        listener.close()


def test_signals_are_heard_after_their_commit_and_not_before(database_url: str) -> None:
    """What is told is there to be read; each kind is told once for a transaction."""
    with listening(database_url) as (sender, _, ear):
        with sender.write():
            sender.signal(Kind.ENDED, [1, 2])
            sender.signal(Kind.WORK)
            sender.signal(Kind.ENDED, [3])
            with pytest.raises(queue.Empty):
                ear.next(0.1)
        assert ear.next() == Signal(Kind.ENDED, frozenset([1, 2, 3]))
        assert ear.next() == Signal(Kind.WORK)


def test_a_transaction_that_fails_tells_nothing(database_url: str) -> None:
    """Signals of a write that was rolled back are not sent, nor with the next one."""
    with listening(database_url) as (sender, _, ear):
        with pytest.raises(ZeroDivisionError):
            _fail(sender)
        send(sender, Kind.WORK)
        assert ear.next() == Signal(Kind.WORK)


def test_many_numbers_are_told_as_everything(database_url: str) -> None:
    """A signal stays small however much it is about."""
    with listening(database_url) as (sender, _, ear):
        send(sender, Kind.REVOKED, [2**53 - number for number in range(MOST_NUMBERS)])
        assert len(ear.next().numbers or ()) == MOST_NUMBERS
        send(sender, Kind.ENDED, list(range(MOST_NUMBERS + 1)))
        assert ear.next() == Signal(Kind.ENDED)


def test_who_has_left_hears_nothing(database_url: str) -> None:
    """A subscriber that left is not called again, and the others are."""
    with listening(database_url) as (sender, listener, ear):
        other = Ear(listener)
        other.leave()
        send(sender, Kind.WORK)
        assert ear.hears(Signal(Kind.WORK))
        with pytest.raises(queue.Empty):
            other.next(0.05)


def test_writers_in_many_threads_tell_of_their_own_transactions(database_url: str) -> None:
    """Each thread's signals go with its own commit."""
    with listening(database_url) as (sender, _, ear):
        threads = [
            threading.Thread(target=send, args=(sender, Kind.ENDED, [number]))
            for number in range(20)
        ]
        for thread in threads:
            thread.start()
        heard = [ear.next() for _ in threads]
        for thread in threads:
            thread.join()
        assert {one.numbers for one in heard} == {frozenset([number]) for number in range(20)}


def test_a_signal_outside_a_transaction_is_a_mistake(database_url: str) -> None:
    """There would be nothing that it tells of."""
    database = Database.open(database_url, migrate=True)
    with pytest.raises(RuntimeError, match="within its transaction"):
        database.signal(Kind.WORK)
    database.close()


def test_signals_are_checked_end_to_end(database_url: str) -> None:
    """Where they arrive the check says so."""
    database = Database.open(database_url, migrate=True)
    assert database.signals.check()
    database.close()
