"""Waiting for what the database says: one question for all who wait."""

import asyncio
from collections.abc import Collection

import pytest

from handbell.delivery.queue.poller import Poller
from handbell.errors import DatabaseLockedError, StorageError

MANY = 1000


class Ledger:
    """What is going on, and how often it was asked."""

    def __init__(self, *going: int) -> None:
        self.going = set(going)
        self.asked: list[set[int]] = []
        self.errors: list[Exception] = []
        self._was_asked = asyncio.Event()

    async def until_asked(self, times: int = 1) -> None:
        """Return when it was asked so often."""
        while len(self.asked) < times:
            self._was_asked.clear()
            await self._was_asked.wait()

    async def ask(self, numbers: Collection[int]) -> set[int]:
        """Return what of these is going on."""
        self.asked.append(set(numbers))
        self._was_asked.set()
        if self.errors:
            raise self.errors.pop()
        return self.going.intersection(numbers)


def test_a_thousand_who_wait_are_one_question() -> None:
    """However many wait, each time one question is asked for all of them."""
    ledger = Ledger(*range(MANY))

    async def story() -> None:
        poller = Poller(ledger.ask, seconds=3600)
        tasks = [asyncio.create_task(poller.until_over(number)) for number in range(MANY)]
        await ledger.until_asked()
        ledger.going.clear()
        poller.tell()
        await asyncio.gather(*tasks)

    asyncio.run(story())
    assert len(ledger.asked) <= 3
    assert ledger.asked[-1] == set(range(MANY))


def test_what_others_wrote_is_found() -> None:
    """Nobody here says that it is over: it is asked for from time to time."""
    ledger = Ledger(1)

    async def story() -> None:
        poller = Poller(ledger.ask, seconds=0.01, soonest=0.0)
        task = asyncio.create_task(poller.until_over(1))
        await ledger.until_asked(3)
        assert not task.done()
        ledger.going.clear()
        await asyncio.wait_for(task, 5)

    asyncio.run(story())


def test_only_what_may_be_over_is_asked_for_at_once() -> None:
    """What is told of one notification costs nothing for those who wait for others."""
    ledger = Ledger(1, 2)

    async def story() -> None:
        poller = Poller(ledger.ask, seconds=3600)
        one, two = (asyncio.create_task(poller.until_over(number)) for number in (1, 2))
        await ledger.until_asked()
        ledger.going.discard(1)
        poller.tell([1, 7])
        await asyncio.wait_for(one, 5)
        assert not two.done()
        two.cancel()

    asyncio.run(story())
    assert ledger.asked == [{1, 2}, {1}]


def test_a_database_that_cannot_be_asked_is_asked_again() -> None:
    """Whoever waits hears nothing of it, and waits longer."""
    ledger = Ledger()
    ledger.errors = [DatabaseLockedError("The database is locked")]

    async def story() -> None:
        await asyncio.wait_for(Poller(ledger.ask, seconds=3600).until_over(1), 5)

    asyncio.run(story())
    assert len(ledger.asked) == 2


def test_a_mistake_is_told_to_all_and_the_next_one_is_asked_for_anew() -> None:
    """A question that cannot be asked leaves nobody waiting for ever."""
    ledger = Ledger()
    ledger.errors = [KeyError("a mistake")]

    async def story() -> None:
        poller = Poller(ledger.ask, seconds=3600)
        ends = await asyncio.gather(
            poller.until_over(1), poller.until_over(2), return_exceptions=True
        )
        assert [type(end) for end in ends] == [KeyError, KeyError]
        await asyncio.wait_for(poller.until_over(1), 5)

    asyncio.run(story())


def test_whoever_waits_when_it_is_closed_is_told() -> None:
    """So is whoever comes later."""
    ledger = Ledger(1)

    async def story() -> None:
        poller = Poller(ledger.ask, seconds=3600)
        task = asyncio.create_task(poller.until_over(1))
        await ledger.until_asked()
        poller.close(StorageError("it has stopped"))
        for late in (task, asyncio.create_task(poller.until_over(2))):
            with pytest.raises(StorageError):
                await asyncio.wait_for(late, 5)

    asyncio.run(story())


def test_who_gives_up_is_not_asked_for_any_more() -> None:
    """A caller whose time is over leaves nothing behind."""
    ledger = Ledger(1)

    async def story() -> None:
        poller = Poller(ledger.ask, seconds=3600)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(poller.until_over(1), 0.05)
        # What asks ends with the last who waits, and begins anew with the next.
        await asyncio.sleep(0)
        assert not _others()
        ledger.going.clear()
        await asyncio.wait_for(poller.until_over(1), 5)
        await asyncio.sleep(0)
        assert not _others()

    asyncio.run(story())


def _others() -> "set[asyncio.Task[object]]":
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
