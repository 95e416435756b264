"""Sends that come together are stored together, and each caller gets its own."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from handbell.errors import StorageError
from handbell.storage.group_commit import GroupCommit, Turn


class Shelf:
    """A store that remembers what it was given at once; a door that can be held shut."""

    def __init__(self) -> None:
        self.steps: list[list[int]] = []
        self.portal = asyncio.Event()
        self.portal.set()

    async def store(self, entries: Sequence[int]) -> list[int]:
        """Keep numbers and return their doubles; a 13 breaks the whole step."""
        self.steps.append(list(entries))
        await self.portal.wait()
        if 13 in entries:
            raise StorageError("The disk is gone")
        return [2 * entry for entry in entries]


async def _let_others_run() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def _bring_all(gathering: GroupCommit[int, int], calls: list[list[int]]) -> list[object]:
    return list(
        await asyncio.gather(*map(gathering.bring, calls), return_exceptions=True),
    )


def test_whoever_comes_while_a_step_runs_joins_the_next() -> None:
    """The first goes alone and at once; the others share one step, in the order they came."""

    async def run() -> None:
        shelf = Shelf()
        gathering = GroupCommit(shelf.store)
        assert list(await gathering.bring([1])) == [2]
        shelf.portal.clear()
        first = asyncio.create_task(gathering.bring([2]))
        await _let_others_run()
        others = asyncio.create_task(_bring_all(gathering, [[3], [4, 5], []]))
        await asyncio.sleep(0)
        shelf.portal.set()
        assert list(await first) == [4]
        assert await others == [[6], [8, 10], []]
        assert shelf.steps == [[1], [2], [3, 4, 5]]

    asyncio.run(run())


def test_a_step_takes_whole_calls_up_to_its_bound() -> None:
    """A call is never divided, and one that is over the bound alone goes alone."""

    async def run() -> None:
        shelf = Shelf()
        gathering = GroupCommit(shelf.store, most=3)
        assert await _bring_all(gathering, [[1], [2, 3], [4], [5, 6, 7, 8], [9]]) == [
            [2],
            [4, 6],
            [8],
            [10, 12, 14, 16],
            [18],
        ]
        assert shelf.steps == [[1, 2, 3], [4], [5, 6, 7, 8], [9]]

    asyncio.run(run())


def test_what_breaks_a_step_is_raised_to_all_in_it_and_to_nobody_else() -> None:
    """The next step goes on."""

    async def run() -> None:
        shelf = Shelf()
        gathering = GroupCommit(shelf.store, most=2)
        results = await _bring_all(gathering, [[1], [13], [3]])
        assert [type(result) for result in results] == [StorageError, StorageError, list]
        with pytest.raises(StorageError):
            await gathering.bring([13])
        assert list(await gathering.bring([4])) == [8]

    asyncio.run(run())


def test_a_caller_that_gave_up_before_its_turn_is_left_out() -> None:
    """What nobody waits for any more is not stored."""

    async def run() -> None:
        shelf = Shelf()
        shelf.portal.clear()
        gathering = GroupCommit(shelf.store)
        first = asyncio.create_task(gathering.bring([1]))
        await _let_others_run()
        second, third = (asyncio.create_task(gathering.bring([n])) for n in (2, 3))
        await asyncio.sleep(0)
        second.cancel()
        shelf.portal.set()
        assert list(await first) == [2]
        assert list(await third) == [6]
        assert shelf.steps == [[1], [3]]

    asyncio.run(run())


@pytest.mark.parametrize("callers", [2, 7])
def test_callers_who_come_back_are_waited_for(callers: int) -> None:
    """Once they were served together, each of their next calls is; nobody waits for all the pause.

    What takes them back takes them several turns of the loop, as answers and requests do.
    """

    async def run() -> None:
        shelf = Shelf()
        gathering = GroupCommit(shelf.store, pause=60)

        async def keep_calling(number: int) -> None:
            for _ in range(5):
                await gathering.bring([number])
                for _ in range(number):
                    await asyncio.sleep(0)

        # The last one to leave is waited for by nobody.
        await asyncio.gather(*map(keep_calling, range(callers)))
        assert sorted(map(len, shelf.steps)) == [callers] * 5

    asyncio.run(run())


def test_who_calls_alone_waits_for_nobody() -> None:
    """Nobody else was in the step before."""

    async def run() -> None:
        shelf = Shelf()
        gathering = GroupCommit(shelf.store, pause=3600)
        for number in range(10):
            assert list(await gathering.bring([number])) == [2 * number]
        assert shelf.steps == [[number] for number in range(10)]

    asyncio.run(run())


def test_who_does_not_come_back_is_waited_for_once() -> None:
    """After a pause in vain the step goes on, and the next one expects as many as came."""

    async def run() -> None:
        shelf = Shelf()
        gathering = GroupCommit(shelf.store, pause=0.01)
        await _bring_all(gathering, [[1], [2], [3]])
        assert await _bring_all(gathering, [[4], [5]]) == [[8], [10]]
        assert await _bring_all(gathering, [[6], [7]]) == [[12], [14]]
        assert shelf.steps == [[1, 2, 3], [4, 5], [6, 7]]

    asyncio.run(run())


def test_only_a_full_step_begins_beside_another_one() -> None:
    """Two run at once where the second is full; what fills none waits for both."""

    async def run() -> None:
        shelf = Shelf()
        shelf.portal.clear()
        gathering = GroupCommit(shelf.store, most=2, overlapping=2)
        calls = [asyncio.create_task(gathering.bring([n, n])) for n in (1, 2, 3)]
        await _let_others_run()
        assert shelf.steps == [[1, 1], [2, 2]]
        calls.append(asyncio.create_task(gathering.bring([4])))
        shelf.portal.set()
        assert await asyncio.gather(*calls) == [[2, 2], [4, 4], [6, 6], [8]]
        assert shelf.steps == [[1, 1], [2, 2], [3, 3], [4]]

        shelf.portal.clear()
        calls = [asyncio.create_task(gathering.bring(some)) for some in ([5, 5], [6])]
        await _let_others_run()
        assert shelf.steps[4:] == [[5, 5]]
        calls.append(asyncio.create_task(gathering.bring([7])))
        await _let_others_run()
        assert shelf.steps[4:] == [[5, 5], [6, 7]]
        shelf.portal.set()
        assert await asyncio.gather(*calls) == [[10, 10], [12], [14]]

    asyncio.run(run())


def test_overlapping_steps_take_their_turns_in_order() -> None:
    """The last one waits for each before it, also for one behind which another ended early."""
    turns = [Turn()]
    for _ in range(3):
        turns.append(Turn(turns[-1]))
    order: list[int] = []
    first_may_end = threading.Event()

    def step(number: int) -> None:
        with turns[number] as turn:
            if number == 1:
                # Ends without having had anything to store.
                return
            turn.wait()
            if number == 0:
                first_may_end.wait(20)
            order.append(number)

    with ThreadPoolExecutor(4) as pool:
        steps = [pool.submit(step, number) for number in (3, 2, 1, 0)]
        steps[2].result(20)
        first_may_end.set()
        for each in steps:
            each.result(20)
    assert order == [0, 2, 3]
